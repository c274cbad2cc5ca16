"""How the gateway hears that a version's replicas are away; nothing of Ray runs."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from ray.serve.exceptions import BackPressureError, RayServeException

from serve.deployments import Application
from serve.problems import Problem
from serve.protocol import Query


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AioRpcError(grpc.StatusCode.CANCELLED, Metadata(), Metadata()), "unavailable"),
        (RayServeException("There is no such application."), "unavailable"),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), "overloaded"),
    ],
)
def test_replicas_that_are_lost_under_a_request_are_away(error: Exception, code: str) -> None:
    async def lost(*arguments: object) -> None:
        raise error

    application = Application("ens-0123456789ab")
    application.__dict__["_handle"] = SimpleNamespace(score=SimpleNamespace(remote=lost))
    with pytest.raises(Problem) as caught:
        asyncio.run(application.score(Query(b"", sex="male")))
    assert caught.value.code == code
