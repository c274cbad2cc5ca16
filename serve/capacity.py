"""How many replicas a cluster holds, and how far each may be loaded. Plain numbers, no Ray."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.limits import FEW, MAX_IN_FLIGHT
from serve.logs import SERVE_LOGGING

BATCH_SIZE = 16
"""Most images in one forward pass."""
MAX_ONGOING = 1024
"""Requests that a replica takes on: more than gateways let in (`serve.limits`). Where a replica is full, Serve's router
looks again with growing pauses, and under an onslaught that was four answers a second on an idle machine."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the replicas of one bundle version may take of a cluster."""

    preprocess_replicas: int
    """Upper bound; each decodes on one thread."""
    ensemble_replicas: int
    """Upper bound; one a GPU, or one a pair of cores."""
    ensemble_gpus: float
    """GPUs of each ensemble replica; 0 for the CPU."""
    ensemble_threads: int
    """Torch threads of each ensemble replica."""
    lone_threads: int = 1
    """Networks that a replica runs side by side for a radiograph that comes alone: then its share of cores is idle."""
    least_replicas: int = 1
    """Of each tier, always there. From two on, no machine holds more than an even share of the upper bound: Serve deals
    replicas of both tiers out in turn, so that both of one tier came to lie on one of two machines."""
    sleep_after_s: float | None = None
    """A version that has been asked nothing for so long gives its replicas back, and starts them when it is asked."""
    market: str = ""
    """Where it is given, replicas run on nodes with this value of the label ``market`` alone, such as on-demand."""

    @classmethod
    def of(cls, resources: Mapping[str, float], gpus_per_replica: float | None = None) -> "Capacity":
        """Divide a cluster as ``ray.cluster_resources()`` describes it.

        A pool that has scaled to zero is not described: `gpus_per_replica` then says what each ensemble replica
        asks for, and the cluster grows to give it.

        On the CPU half of the cores compute and the rest is left to decoding and to Serve itself, so that
        two cores carry one replica of each tier without taking turns.
        """
        cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        each = float(bool(gpus)) if gpus_per_replica is None else gpus_per_replica
        replicas = max(1, int(gpus / each)) if each else max(1, cpus // 4)
        return cls(
            preprocess_replicas=max(1, cpus // 2),
            ensemble_replicas=replicas,
            lone_threads=max(1, cpus // replicas),
            ensemble_gpus=each,
            ensemble_threads=max(1, cpus // (2 * replicas)) if not each else 2,
        )

    def preprocess_options(self) -> dict[str, Any]:
        """Options of the preprocessing deployment."""
        # a request stays here while the ensemble works on it: a batch there, and the next one here
        return self._options(2 * BATCH_SIZE, FEW, self.preprocess_replicas, {"num_cpus": 0.1})

    def ensemble_options(self) -> dict[str, Any]:
        """Options of the ensemble deployment; of two batches one computes and one gathers."""
        resources = {"num_cpus": 0.2, "num_gpus": self.ensemble_gpus}
        let_in = MAX_IN_FLIGHT if self.ensemble_gpus else FEW  # a GPU answers fast enough for more to be let in
        return self._options(BATCH_SIZE, let_in, self.ensemble_replicas, resources)

    def _options(self, most_ongoing: int, let_in: int, max_replicas: int, resources: dict[str, Any]) -> dict[str, Any]:
        """Options of a tier.

        Args:
            most_ongoing: Requests of a replica beyond which Serve starts another, at most.
            let_in: Requests that a gateway lets in while many wait: so many must be enough for all replicas to come up,
                or those that are missing keep the service too slow for more to be let in.
            max_replicas: Upper bound.
            resources: Of each replica.
        """
        if self.market:
            resources["label_selector"] = {"market": self.market}
        most = max(max_replicas, self.least_replicas)
        sleep = {} if self.sleep_after_s is None else {"min_replicas": 0, "initial_replicas": self.least_replicas}
        return {
            "ray_actor_options": resources,
            "max_replicas_per_node": None if self.least_replicas == 1 else min(100, -(-most // self.least_replicas)),
            "max_ongoing_requests": MAX_ONGOING,
            "max_queued_requests": MAX_ONGOING,
            "autoscaling_config": {
                "min_replicas": self.least_replicas,
                "max_replicas": most,
                "target_ongoing_requests": max(1, min(most_ongoing, let_in // most)),
                "look_back_period_s": 15.0,
                "upscale_delay_s": 10.0,
                "downscale_delay_s": 120.0,
                "downscale_to_zero_delay_s": self.sleep_after_s,
                **sleep,
            },
            **_LIFE,
        }


def gateway_options(num_replicas: int = 1) -> dict[str, Any]:
    """Options of the gateway, which does its own admission and therefore takes what the proxy brings."""
    return {
        "num_replicas": num_replicas,
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": MAX_ONGOING,
        "max_queued_requests": MAX_ONGOING,
        **_LIFE,
    }


def keeper_options() -> dict[str, Any]:
    """Options of a declared service's keeper: one, and never two at a time."""
    return {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0}, **_LIFE, "max_surge_percent": 0}


_LIFE = {
    "health_check_period_s": 5.0,
    "health_check_timeout_s": 20.0,
    "graceful_shutdown_wait_loop_s": 0.2,  # looks this often whether the last request is done
    "graceful_shutdown_timeout_s": 20.0,
    "max_surge_percent": 100,  # an update starts the new replica first: by default a lone one leaves a gap
    "max_constructor_retry_count": 2,  # a bundle that fails to load will not load the twentieth time either
    "logging_config": SERVE_LOGGING,  # that of `serve.start` does not reach replicas: they would log every path asked
}
