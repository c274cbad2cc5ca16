"""How a cluster is divided among the replicas."""

import math
from dataclasses import replace

import pytest

from serve.capacity import Capacity, gateway_options
from serve.limits import FEW, MAX_IN_FLIGHT


@pytest.mark.parametrize("resources", [{"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 64.0}, {"CPU": 16.0, "GPU": 2.0}])
def test_all_replicas_fit_while_an_update_doubles_them(resources: dict[str, float]) -> None:
    capacity = Capacity.of(resources)
    tiers = [capacity.preprocess_options(), capacity.ensemble_options()]
    for tier in tiers:  # the GPUs are shared out without the spare that an update would need: it waits for one
        assert tier["autoscaling_config"]["min_replicas"] == 1
    cpus = sum(2 * tier["autoscaling_config"]["max_replicas"] * tier["ray_actor_options"]["num_cpus"] for tier in tiers)
    assert cpus <= max(2.0, resources["CPU"])


def test_two_cores_compute_on_one_and_leave_the_other_but_for_a_lone_radiograph() -> None:
    capacity = Capacity.of({"CPU": 2.0})
    assert (capacity.ensemble_threads, capacity.lone_threads) == (1, 2)


@pytest.mark.parametrize("cpus", [1.0, 8.0, 64.0])
def test_lone_radiographs_of_all_replicas_ask_for_no_more_cores_than_there_are(cpus: float) -> None:
    capacity = Capacity.of({"CPU": cpus})
    assert capacity.ensemble_replicas * capacity.lone_threads <= cpus


@pytest.mark.parametrize("cpus", [2.0, 8.0, 16.0, 64.0])
def test_half_of_the_cores_compute(cpus: float) -> None:
    capacity = Capacity.of({"CPU": cpus})
    assert capacity.ensemble_replicas * capacity.ensemble_threads == cpus / 2


def test_a_gpu_each_when_there_are_gpus() -> None:
    capacity = Capacity.of({"CPU": 16.0, "GPU": 2.0})
    assert (capacity.ensemble_replicas, capacity.ensemble_gpus) == (2, 1.0)
    assert capacity.ensemble_options()["ray_actor_options"]["num_gpus"] == 1.0


def test_a_replica_takes_what_four_gateways_let_in_and_queues_are_finite() -> None:
    capacity = Capacity.of({"CPU": 2.0})
    for tier in (capacity.preprocess_options(), capacity.ensemble_options(), gateway_options()):
        assert tier["max_ongoing_requests"] >= 4 * MAX_IN_FLIGHT  # one that is full is asked again after long pauses
        assert tier["max_queued_requests"] < 10_000
        assert tier["max_surge_percent"] == 100


def test_no_more_replicas_than_cores() -> None:
    capacity = Capacity.of({"CPU": 2.0})
    assert (capacity.preprocess_replicas, capacity.ensemble_replicas) == (1, 1)


@pytest.mark.parametrize("resources", [{"CPU": 8.0}, {"CPU": 64.0}, {"CPU": 64.0, "GPU": 8.0}])
def test_as_many_as_wait_at_a_full_gateway_bring_up_all_replicas(resources: dict[str, float]) -> None:
    capacity = Capacity.of(resources)
    full = {"ensemble": MAX_IN_FLIGHT if capacity.ensemble_gpus else FEW, "preprocess": FEW}
    for tier, options in (("ensemble", capacity.ensemble_options()), ("preprocess", capacity.preprocess_options())):
        scaling = options["autoscaling_config"]
        wanted = math.ceil(full[tier] / scaling["target_ongoing_requests"])  # as Serve reckons
        assert wanted >= scaling["max_replicas"], tier


def test_no_machine_holds_all_replicas_where_there_are_to_be_two() -> None:
    one, two = Capacity.of({"CPU": 8.0}), replace(Capacity.of({"CPU": 8.0}), least_replicas=2)
    assert one.ensemble_options()["max_replicas_per_node"] is None
    options = two.ensemble_options()
    assert options["autoscaling_config"]["min_replicas"] == options["autoscaling_config"]["max_replicas"] == 2
    assert options["max_replicas_per_node"] == 1
