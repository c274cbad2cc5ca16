"""The gateway as a Serve application, and how it asks the applications of the versions behind it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from grpc.aio import AioRpcError  # type: ignore[import-untyped]
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from preprocessing.radiograph import RadiographError
from preprocessing.storage import as_path
from serve import logs
from serve.books import Books
from serve.capacity import gateway_options
from serve.gateway import Gateway
from serve.images import KeptImages
from serve.problems import Problem
from serve.protocol import Outcome, Query
from serve.scrape import Snapshot, snapshot

LEDGER_WAIT_S = 300.0
"""A gateway that starts while the database is away waits for it: Serve gives a failing start up after three."""
SCRAPE_TIMEOUT_S = 3.0
"""For the counters of all gateways; Prometheus gives up after 10 s unless told otherwise."""


class Application:
    """A `serve.versions.Scorer` that asks the Serve application of one version, which is called like it."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def score(self, query: Query) -> Outcome:
        outcome: dict[str, Any] = await self._ask(
            "score", query.data, {**query.options(), "request_id": logs.request_id()}
        )
        if "refused" in outcome:
            code, sentence = outcome["refused"]
            raise (Problem if code in ("profile_unavailable", "overloaded") else RadiographError)(code, sentence)
        return Outcome(outcome["answer"], outcome["timings"], outcome.get("heatmap"), outcome["appearance"])

    async def version(self) -> str:
        try:
            version: str = await self._ask("version")
        except RuntimeError:  # `serve.worker.Worker.check`
            raise Problem("unavailable", "The ensemble hangs and is about to be replaced. Ask again later.") from None
        return version

    async def monitors(self) -> dict[str, Any]:
        monitors: dict[str, Any] = await self._ask("monitors")
        return monitors

    @cached_property
    def _handle(self) -> DeploymentHandle[Any]:  # at the first request: both applications start side by side
        return serve.get_app_handle(self._name)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except BackPressureError:
            raise Problem("overloaded", "Every place in the queue is taken. Send it again in a second.") from None
        # not there yet, not any more, or lost under this request: of the last, Serve passes some on as gRPC has them
        except (RayServeException, RayActorError, AioRpcError):
            raise Problem("unavailable", "The ensemble is not there. Send it again in a few seconds.") from None


@serve.ingress()
class HttpGateway:
    """The Starlette gateway as a deployment; its app is built when a replica starts, with handles at hand."""

    def __init__(
        self,
        versions: Sequence[Mapping[str, Any]],
        ledger: str,
        spool: str,
        is_open: bool,
        images: tuple[str, float] | None,
        is_local: bool,
    ) -> None:
        self._versions, self._images, self._is_local = versions, images, is_local
        self._ledger, self._spool, self._is_open = ledger, spool, is_open

    def __serve_build_asgi_app__(self) -> Starlette:
        logs.follow_serve("gateway")
        images = KeptImages(as_path(self._images[0]), self._images[1]) if self._images else None
        books = Books(self._ledger, Path(self._spool), is_open=self._is_open, wait_s=LEDGER_WAIT_S, images=images)
        gateway = Gateway(Application, self._versions, books, self._all_counted, is_local=self._is_local)
        self._metrics = gateway.metrics
        return gateway.app()

    async def counted(self) -> tuple[str, Snapshot]:
        """This replica's name and counters."""
        return serve.get_replica_context().replica_tag, snapshot(self._metrics)

    async def _all_counted(self) -> tuple[dict[str, Snapshot], int]:
        """Those of all gateways; the ones that are silent for too long are left out."""
        own, counters = await self.counted()
        asked = self._gateways.broadcast("counted")
        try:
            told = await asked.results_async(timeout_s=SCRAPE_TIMEOUT_S, return_exceptions=True)
        except (TimeoutError, RayServeException):  # one that hangs, or all of them about to end
            return {own: counters}, 1
        heard = dict(each for each in told if not isinstance(each, BaseException))
        return {**heard, own: counters}, len(told) - len(heard)

    @cached_property
    def _gateways(self) -> DeploymentHandle[Any]:
        context = serve.get_replica_context()
        return serve.get_deployment_handle(context.deployment, context.app_name)


def gateway_application(
    versions: Sequence[Mapping[str, Any]],
    ledger: str,
    spool: Path,
    is_open: bool,
    images: tuple[str, float] | None = None,
    num_replicas: int = 1,
    *,
    is_local: bool = False,
) -> serve.Application:
    """The application that speaks HTTP; the versions behind it are those that the ledger's routing names.

    Args:
        versions: What ``GET /v1/versions`` lists.
        ledger: URL of the ledger.
        spool: Folder for predictions while the database is away.
        is_open: Whether callers need no key.
        images: Folder or URI for radiographs, and for how many days they are kept; none keeps none.
        num_replicas: Gateways.
        is_local: Whether only who calls it by a name of loopback is answered.
    """
    deployment = serve.deployment(**gateway_options(num_replicas))(HttpGateway)
    return deployment.bind(list(versions), ledger, str(spool), is_open, images, is_local)
