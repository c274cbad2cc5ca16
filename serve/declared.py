"""The service as Ray Serve's own configuration files declare it: what ``import_path`` names in deploy/serve.yaml.

``serve deploy`` and KubeRay's RayService call these builders on the cluster. Two applications, as ever: the one that
scores with a version, and the gateway before it, which outlives an update of the other.
"""

from dataclasses import dataclass, replace
from typing import Any

from ensemble.registry import Registry
from preprocessing.storage import as_path
from serve.admin import ledger_url, spool_folder
from serve.capacity import Capacity
from serve.database import Database
from serve.deployments import gateway_application, version_application
from serve.protocol import describe
from serve.routing import Routing


@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """Arguments of the application that scores; an unknown one is refused."""

    registry: str
    """Folder or fsspec URI that every node reaches."""
    version: str = "champion"
    """Alias or version; the replicas load what it means when they are deployed."""
    cpus: int
    """Cores that the replicas may take in all. Written down, as a pool that has scaled to zero shows none."""
    gpus: int = 0
    """GPUs that the replicas may take in all."""
    replicas: int = 1
    """Of each tier, that are always there."""
    market: str = ""
    """Where it is given, replicas run on nodes with this value of the label ``market`` alone, such as on-demand."""


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Arguments of the application that speaks HTTP."""

    registry: str
    version: str = "champion"
    scorer: str = "scorer"
    """Name of the application that scores."""
    ledger: str = ""
    """URL of the ledger; else ``$CARPAL_LEDGER``, else SQLite in the registry's own folder."""
    open: bool = False
    """Ask for no key: where nobody but the right ones reaches the port."""


def scorer(arguments: dict[str, Any]) -> Any:
    """The application that scores with one bundle version, of `ScorerSettings`.

    Raises:
        RegistryError: There is no such version, or a byte of it has changed.
    """
    settings = ScorerSettings(**arguments)
    bundle = Registry(as_path(settings.registry)).resolve(settings.version)
    capacity = replace(
        Capacity.of({"CPU": settings.cpus, "GPU": settings.gpus}),
        least_replicas=settings.replicas,
        market=settings.market,
    )
    return version_application(settings.registry, bundle.version, bundle.recipe, capacity)


def gateway(arguments: dict[str, Any]) -> Any:
    """The application that speaks HTTP and asks the other one, of `GatewaySettings`."""
    settings = GatewaySettings(**arguments)
    registry = Registry(as_path(settings.registry))
    bundle = registry.resolve(settings.version)
    ledger = ledger_url(registry.path, settings.ledger)
    Routing(Database(ledger)).start(bundle.version)
    versions = [describe(bundle, registry.aliases())]
    names = {bundle.version: settings.scorer}
    return gateway_application(versions, ledger, spool_folder(registry.path), settings.open, names)
