"""The same predictor behind other servers: ``python -m benchmarks.rivals starlette|litserve REGISTRY PORT``.

Each as its own documentation has it: Starlette on uvicorn with the work in its thread pool; LitServe with one worker,
batches of 16 and decoding in the server's own process. LitServe is no dependency: name an interpreter that has it.
"""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.service import ROOT

BATCH_SIZE = 16


@contextmanager
def running_rival(name: str, registry: str, port: int, interpreter: str = sys.executable) -> Iterator[int]:
    """One of them, until the block ends.

    Raises:
        RuntimeError: It did not start.
    """
    command = [interpreter, "-m", "benchmarks.rivals", name, registry, str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while not _is_up(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} does not start: {' '.join(command)}")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except (OSError, urllib.error.URLError):
        return False


def _predictor(registry: str) -> Any:
    import torch

    from ensemble.predictor import Predictor
    from ensemble.registry import Registry
    from preprocessing.storage import as_path

    torch.set_num_threads(1)
    return Predictor(Registry(as_path(registry)).resolve("champion"))


def _starlette(registry: str, port: int) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from serve.protocol import answer

    predictor = _predictor(registry)

    async def score(request: Request) -> JSONResponse:
        data = await request.body()
        return JSONResponse(answer(await run_in_threadpool(predictor.score, data, "male")))

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({})

    app = Starlette(routes=[Route("/v1/score", score, methods=["POST"]), Route("/health", health)])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def _litserve(registry: str, port: int) -> None:
    import litserve  # type: ignore[import-not-found]
    import numpy as np
    from starlette.requests import Request

    from serve.protocol import answer

    class Api(litserve.LitAPI):  # type: ignore[misc]
        def setup(self, device: str) -> None:
            self.predictor = _predictor(registry)

        async def decode_request(self, request: Request) -> np.ndarray:
            reading = self.predictor.reader.read(await request.body())
            return np.asarray(reading.pixels)

        def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
            return np.stack(inputs)

        def predict(self, pixels: np.ndarray) -> list[Any]:
            return list(self.predictor.predict(pixels, np.ones(len(pixels), bool)))

        def unbatch(self, output: list[Any]) -> list[Any]:
            return output

        def encode_response(self, output: Any) -> dict[str, Any]:
            return answer(output)

    api = Api(max_batch_size=BATCH_SIZE, batch_timeout=0.0, api_path="/v1/score")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    {"starlette": _starlette, "litserve": _litserve}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
