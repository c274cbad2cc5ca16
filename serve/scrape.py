"""``GET /metrics``: what all gateways counted, on one page, whichever of them is asked.

A proxy hands a scrape to any one replica. That one asks the others for their counters, and the label ``replica`` keeps
them apart, as Prometheus wants it: a counter never goes down because another replica answered.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.books import Books
from serve.metrics import Metrics

Snapshot = list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]
"""Name, documentation, type and samples of each metric, as plain values that travel between processes."""
Others = Callable[[], Awaitable[tuple[dict[str, Snapshot], int]]]
"""Asks all gateways, the asking one among them: snapshots by replica, and how many were silent."""


def snapshot(metrics: Metrics) -> Snapshot:
    """What one process counted so far."""
    return [
        (
            family.name,
            family.documentation,
            family.type,
            [(one.name, dict(one.labels), one.value) for one in family.samples if not one.name.endswith("_created")],
        )
        for family in metrics.registry.collect()
    ]


def page(replicas: Mapping[str, Snapshot], num_silent: int) -> bytes:
    """The counters of several replicas as Prometheus reads them.

    Args:
        replicas: By the replica's name.
        num_silent: Replicas that did not tell theirs in time.
    """
    families: dict[str, Metric] = {}
    for replica, counted in replicas.items():
        for name, documentation, kind, samples in counted:
            family = families.setdefault(name, Metric(name, documentation, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "replica": replica}, value)
    silent = Metric("carpal_gateways_silent", "Gateways whose counters are missing on this page.", "gauge")
    silent.add_sample(silent.name, {}, num_silent)
    registry = CollectorRegistry()
    registry.register(_Families([*families.values(), silent]))
    return generate_latest(registry)


def metrics_routes(books: Books, metrics: Metrics, others: Others | None = None) -> list[Route]:
    """The route, for callers with the role ``read``.

    Args:
        books: Checks keys.
        metrics: Of this gateway.
        others: None where this gateway is alone.
    """

    async def scrape(request: Request) -> Response:
        books.caller(request, "read")
        replicas, num_silent = await others() if others else ({"0": snapshot(metrics)}, 0)
        return Response(page(replicas, num_silent), headers={"content-type": CONTENT_TYPE_LATEST})

    return [Route("/metrics", scrape, methods=["GET"])]


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families
