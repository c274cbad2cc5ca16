"""The same predictor behind other servers: ``python -m benchmarks.rivals starlette REGISTRY PORT``.

Each as its own documentation has it: here Starlette on uvicorn with the work in its thread pool; LitServe, which is no
dependency, in `benchmarks.rival_litserve`, for an interpreter that has it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.service import ROOT


@dataclass(frozen=True)
class Rival:
    """A server that stands still but for its turns: LitServe's worker asks for work without a pause."""

    port: int
    group: int
    """Its process group."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """It runs until the block ends."""
        os.killpg(self.group, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.group, signal.SIGSTOP)


@contextmanager
def running_rival(name: str, registry: str, port: int, interpreter: str = sys.executable) -> Iterator[Rival]:
    """One of them, which has its first turn to come, until the block ends.

    Raises:
        RuntimeError: It did not start.
    """
    module = "benchmarks.rivals" if name == "starlette" else "benchmarks.rival_litserve"
    command = [interpreter, "-m", module, name, registry, str(port)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        end = time.monotonic() + 120
        while not _is_up(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} does not start: {' '.join(command)}")
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGSTOP)
        yield Rival(port, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.wait()


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except (OSError, urllib.error.URLError):
        return False


def load_predictor(registry: str) -> Any:
    """The champion's, on one thread."""
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

    predictor = load_predictor(registry)

    async def score(request: Request) -> JSONResponse:
        data = await request.body()
        return JSONResponse(answer(await run_in_threadpool(predictor.score, data, "male")))

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({})

    app = Starlette(routes=[Route("/v1/score", score, methods=["POST"]), Route("/health", health)])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    _starlette(sys.argv[2], int(sys.argv[3]))
