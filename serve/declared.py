"""The service as Ray Serve's own configuration files declare it: what ``import_path`` names in deploy/serve.yaml.

``serve deploy`` and KubeRay's RayService call these builders on the cluster. Two applications: the keeper, which loads
the versions that the ledger's routing names, each as an application of its own, and the gateway, which speaks HTTP.
Serve removes an application that is declared no longer, and lets those alone that a keeper has put up.
"""

from dataclasses import dataclass, replace
from typing import Any

from ensemble.registry import Registry
from preprocessing.storage import as_path
from serve.admin import ledger_url, spool_folder
from serve.applications import serve_host
from serve.boundary import is_loopback
from serve.capacity import Capacity
from serve.deployments import gateway_application
from serve.image_commands import images_folder
from serve.keeping import keep_application


@dataclass(frozen=True, kw_only=True)
class KeeperSettings:
    """Arguments of the application that loads versions; an unknown one is refused."""

    registry: str
    """Folder or fsspec URI that every node reaches."""
    version: str = "champion"
    """Alias or version. Another one than the last time is loaded beside the champion and then takes its place;
    ``champion`` is the ledger's, or the registry's where that was moved later while no service ran."""
    ledger: str = ""
    """URL of the ledger; else ``$CARPAL_LEDGER``, else SQLite in the registry's own folder."""
    cpus: int
    """Cores that the replicas may take in all. Written down, as a pool that has scaled to zero shows none."""
    gpus: int = 0
    """GPUs that the replicas may take in all."""
    replicas: int = 1
    """Of each tier, that are always there."""
    sleep_minutes: float | None = None
    """A version beside the champion gives its replicas back when it was asked nothing for so long; None: never."""
    market: str = ""
    """Where it is given, replicas run on nodes with this value of the label ``market`` alone, such as on-demand."""


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Arguments of the application that speaks HTTP."""

    registry: str
    ledger: str = ""
    """As the keeper's."""
    replicas: int = 1
    """Gateways; two, so that one may fail."""
    open: bool = False
    """Ask for no key; where Serve listens on loopback only, and only who calls it by a name of loopback is answered."""
    open_to_others: bool = False
    """`open` at any address: where something else lets nobody but the right ones reach the port."""
    keep_images_days: float = 0.0
    """Keep radiographs so long, encrypted with ``$CARPAL_IMAGE_KEY``, which every node has then; 0 keeps none."""


def keeper(arguments: dict[str, Any]) -> Any:
    """The application that loads versions, of `KeeperSettings`; it runs when the champion can answer.

    Raises:
        RegistryError: There is no such version.
    """
    settings = KeeperSettings(**arguments)
    registry = Registry(as_path(settings.registry))
    registry.version_of(settings.version)
    capacity = replace(
        Capacity.of({"CPU": settings.cpus, "GPU": settings.gpus}),
        least_replicas=settings.replicas,
        sleep_after_s=None if settings.sleep_minutes is None else 60 * settings.sleep_minutes,
        market=settings.market,
    )
    ledger = ledger_url(registry.path, settings.ledger)
    return keep_application(settings.registry, settings.version, ledger, capacity)


def gateway(arguments: dict[str, Any]) -> Any:
    """The application that speaks HTTP, of `GatewaySettings`.

    Raises:
        ValueError: It would be open to the network, and the file does not say that it may be.
    """
    settings = GatewaySettings(**arguments)
    if settings.open_to_others and not settings.open:
        raise ValueError(
            "open_to_others says how far `open: true` goes, which is not there. Add it, or leave both out."
        )
    is_local = settings.open and not settings.open_to_others
    if is_local and not is_loopback(host := serve_host()):
        raise ValueError(
            f"`open: true` is for this machine alone, and Serve listens at {host}, open to others. Make a key instead "
            "or, where nobody but the right ones reaches the port, add `open_to_others: true`."
        )
    registry = as_path(settings.registry)
    days = settings.keep_images_days
    images = (str(images_folder(registry)), days) if days else None
    ledger = ledger_url(registry, settings.ledger)
    spool = spool_folder(registry)
    return gateway_application([], ledger, spool, settings.open, images, settings.replicas, is_local=is_local)
