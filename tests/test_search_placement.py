"""What each trial gets of a cluster."""

import pytest

from search.placement import Compute, Node, StudyError, share_out

HEAD = {"CPU": 8.0, "memory": 1e9}
FOUR_CORES = {"CPU": 4.0}
EIGHT_GPUS = {"CPU": 16.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "concurrent", "cpus"),
    [
        ([FOUR_CORES, FOUR_CORES], 1, 4),  # together they have eight, which no trial can have
        ([FOUR_CORES, FOUR_CORES], 3, 2),
        ([{"CPU": 6.0}, {"CPU": 2.0}], 2, 3),  # both on the larger one
        ([FOUR_CORES], 3, 1),
        ([FOUR_CORES], 9, 1),
        ([HEAD, {"CPU": 4.0, "GPU": 1.0}], 1, 4),  # the head has no GPU
        ([HEAD, {"CPU": 4.0, "GPU": 1.0}], 2, 4),  # one waits for the other
        ([], 2, 1),
    ],
)
def test_a_trial_asks_for_no_more_cpus_than_a_machine_has(nodes: list[Node], concurrent: int, cpus: int) -> None:
    gpus = 1.0 if any("GPU" in node for node in nodes) else 0.0
    compute = Compute(address="auto", concurrent=concurrent, gpus_per_trial=gpus)
    assert share_out(nodes, compute, num_folds=100) == (concurrent, cpus, gpus)


def test_folds_of_few_trials_fill_the_gpus() -> None:
    assert share_out([EIGHT_GPUS], Compute(), num_folds=2 * 5) == (8, 2, 1.0)
    assert share_out([EIGHT_GPUS], Compute(), num_folds=1 * 5) == (5, 3, 1.0)


@pytest.mark.parametrize(("gpus", "concurrent"), [(0.5, 16), (0.4, 16), (0.25, 16), (2.0, 4), (0.0, 16)])
def test_a_share_of_a_gpu_lies_on_one(gpus: float, concurrent: int) -> None:
    assert share_out([EIGHT_GPUS], Compute(gpus_per_trial=gpus), num_folds=100).concurrent == concurrent


def test_gpus_that_this_machine_lacks_are_refused() -> None:
    with pytest.raises(StudyError, match="--gpus-per-trial 1 is asked for, and this machine has 0 GPUs"):
        share_out([FOUR_CORES], Compute(gpus_per_trial=1.0), num_folds=5)


def test_a_cluster_that_has_scaled_to_zero_is_not_guessed_about() -> None:
    with pytest.raises(StudyError, match="Say how: --concurrent N --gpus-per-trial G"):
        share_out([{"memory": 1e9}], Compute(address="auto"), num_folds=5)
