"""What Ray Serve says of itself and of the applications that score: which are there, and why one is not."""

import re

from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatusOverview, ReplicaState

from ensemble.bundle import VERSION_PATTERN


def serve_host() -> str:
    """Address at which Serve listens: the first who started it has chosen it, and what others ask for is ignored."""
    client = _get_global_client()
    assert client is not None, "Serve runs"
    return str(client.http_config.host)


def versions_present() -> dict[str, ApplicationStatusOverview]:
    """The applications that score, as they are now; each is called as its version."""
    found = serve.status().applications
    return {name: each for name, each in found.items() if VERSION_PATTERN.fullmatch(name)}


def has_replicas(application: ApplicationStatusOverview) -> bool:
    """Whether each tier has one that answers: Serve calls it unhealthy as soon as one of several is lost."""
    tiers = application.deployments.values()
    return bool(tiers) and all(tier.replica_states.get(ReplicaState.RUNNING, 0) for tier in tiers)


def is_asleep(application: ApplicationStatusOverview) -> bool:
    """Whether one of its deployments has given all its replicas back, or is about to."""
    return any(not set(each.replica_states) - {"STOPPING"} for each in application.deployments.values())


def reason(application: ApplicationStatusOverview) -> str:
    """The line of a replica's traceback that names its error, else what the application says."""
    for deployment in application.deployments.values():
        if found := re.findall(r"^[\w.]*(?:Error|Exception): .+", deployment.message, re.MULTILINE):
            return str(found[-1])
    return last_line(application.message)


def last_line(message: object) -> str:
    """The last line of a message that is not empty."""
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
