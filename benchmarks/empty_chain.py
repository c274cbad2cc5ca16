"""Ray Serve with nothing of ours to do: ``python -m benchmarks.empty_chain PORT``.

The three deployments of the service as Serve's documentation writes them, with the service's own way, options and
payloads: a gateway takes the request's bytes, a second replica hands on pixels of the size that the recipe makes, a
third one returns an answer of the usual shape. Nothing is decoded, checked, stored or logged. Instead of a model the
third one reads through memory for as long, so that the others find their caches as cold. What is above that is the
share of Ray Serve; what the service takes beyond is its own work.
"""

import argparse
import logging
import signal
import threading
import time

from preprocessing import environment
from serve.boundary import FOR_PROCESSES
from serve.transport import LOOPBACK, choose
from serve.versions import ANSWER_TIMEOUT_S

MEMORY_BYTES = 8 * 1024 * 1024
"""More than the caches of a core."""
ANSWER = {"bone_age_months": 120.5, "distribution": [0.0041667] * 240, "bundle": "0" * 64, "image_sha256": "0" * 64}


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.empty_chain", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--busy-ms", type=float, default=0.0, help="of a core, in place of the model (default 0)")
    parser.add_argument("--views", type=int, default=1, help="of the pixels that are handed on (default 1)")
    parser.add_argument("--size", type=int, default=64, help="of the pixels, on a side (default 64)")
    options = parser.parse_args()
    stop = threading.Event()
    transport = choose(LOOPBACK, options.port, ANSWER_TIMEOUT_S, plain=False, is_joined=False)
    environment.prepare(FOR_PROCESSES | transport.settings, own_ray=True)
    try:
        _serve(options.port, (options.views, options.size, options.size), options.busy_ms / 1000, stop)
    finally:
        transport.remove()


def _serve(port: int, shape: tuple[int, int, int], busy_s: float, stop: threading.Event) -> None:
    import numpy as np  # these, too, only now: Ray reads its environment when it is imported
    import ray
    from ray import serve
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from preprocessing.cluster import connection
    from serve.capacity import Capacity, gateway_options
    from serve.logs import SERVE_LOGGING

    class Ensemble:
        def __init__(self):  # type: ignore[no-untyped-def]
            self._memory = np.ones(MEMORY_BYTES, np.uint8)

        async def score(self, pixels):  # type: ignore[no-untyped-def]
            end = time.perf_counter() + busy_s
            while time.perf_counter() < end:
                self._memory.max()
            return {"answer": ANSWER}

    class Preprocess:
        def __init__(self, ensemble):  # type: ignore[no-untyped-def]
            self._ensemble, self._pixels = ensemble, np.zeros(shape, np.uint8)

        async def score(self, data):  # type: ignore[no-untyped-def]
            return await self._ensemble.score.remote(self._pixels)

    @serve.ingress()
    class Gateway:
        def __init__(self, preprocess):  # type: ignore[no-untyped-def]
            self._preprocess = preprocess

        def __serve_build_asgi_app__(self):  # type: ignore[no-untyped-def]
            async def score(request: Request) -> JSONResponse:
                outcome = await self._preprocess.score.remote(await request.body())
                return JSONResponse(outcome["answer"])

            return Starlette(routes=[Route("/v1/score", score, methods=["POST"])])

    ray.init(**connection(None, FOR_PROCESSES))
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: stop.set())
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="HeadOnly", http_options={"host": LOOPBACK, "port": port}, logging_config=SERVE_LOGGING)
    capacity = Capacity.of(ray.cluster_resources(), 0)
    ensemble = serve.deployment(**capacity.ensemble_options())(Ensemble).bind()
    preprocess = serve.deployment(**capacity.preprocess_options())(Preprocess).bind(ensemble)
    serve.run(serve.deployment(**gateway_options())(Gateway).bind(preprocess), name="gateway")
    print(f"ready at http://{LOOPBACK}:{port}", flush=True)
    while not stop.wait(1.0):
        pass
    begin = time.monotonic()
    serve.shutdown()
    ray.shutdown()
    print(f"stopped after {time.monotonic() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    main()
