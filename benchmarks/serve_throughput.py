"""How much of the model's own speed is left behind HTTP: ``python -m benchmarks.serve_throughput``.

The same decode + preprocess + predict runs as a plain loop in one process, behind the real service on this machine,
and behind plain Starlette on uvicorn (and behind LitServe, given an interpreter that has it). All take turns, so that a
busy machine slows all, and the rivals stand still between theirs, which the service cannot: its idle processes take a
tenth of two cores from all others. Figures are medians of the turns. With ``--tiny`` a bundle that computes next to
nothing runs behind the fast way and behind Ray Serve's own proxy: what is left is the way itself. With ``--empty`` one
client asks the service and then an empty chain of deployments, which does nothing but take the loop's time: what that
takes above the loop is Ray Serve's own share. Both are started anew for every turn, since a second Ray slows the first.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.load import Client, Turn, closed_loop, post, post_form
from benchmarks.rivals import Rival, running_rival
from benchmarks.sample import publish_sample
from benchmarks.service import Running, running_chain, running_service
from ensemble.bundle import Bundle
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from preprocessing.phantom import draw_phantom
from preprocessing.recipe import Recipe
from preprocessing.storage import as_path
from serve.transport import free_port

CLIENTS = 32
"""Concurrent clients that saturate the service: two batches of the ensemble."""
MANY = f", {CLIENTS} clients"
CHAIN = "empty chain, 1 client"
TINY = Recipe(size=64)
TINY_BACKBONE = "test_byobnet"
"""No hand is looked for, and the smallest picture goes through a network that timm keeps for its own tests."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_throughput", description=__doc__)
    parser.add_argument("--registry", help="registry whose champion is measured (default: a sample made now)")
    parser.add_argument("--image", help="radiograph that is sent (default: a drawn hand)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--tiny", action="store_true", help="the fast way beside the plain one, on a tiny model")
    mode.add_argument("--empty", action="store_true", help="one client alone, and the same of an empty chain")
    mode.add_argument("--litserve", metavar="PYTHON", help="interpreter that has LitServe, to stand beside")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn (default 5)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.registry is None:
            print("making a sample registry", flush=True)
        registry = options.registry or str(
            publish_sample(Path(folder), recipe=TINY, backbone=TINY_BACKBONE, num_trials=1)
            if options.tiny
            else publish_sample(Path(folder))
        )
        image = Path(options.image).read_bytes() if options.image else phantom_png(64 if options.tiny else 640)
        request = post("/v1/score?sex=male", image)
        with contextlib.ExitStack() as stack:
            if options.tiny:
                runs, figures = _tiny(stack, registry, request), _tiny_figures
            elif options.empty:
                runs, figures = _alone(registry, image, request), _alone_figures
            else:
                runs, figures = _all(stack, registry, image, options.litserve), _all_figures
            rows = _turns(runs, options.turns, options.seconds)
    print(json.dumps(figures(rows) | _about(rows, len(image))))
    return 0


Run = Callable[[float], Turn]
Rows = dict[str, list[Turn]]


def _all(stack: contextlib.ExitStack, registry: str, image: bytes, litserve: str | None) -> dict[str, Run]:
    runs = _loops(Registry(as_path(registry)).resolve("champion"), image)
    print("starting the service", flush=True)
    request = post("/v1/score?sex=male", image)
    runs |= _clients("service", stack.enter_context(running_service(registry)).port, request)
    rivals = [("starlette", sys.executable, request)]
    if litserve:
        rivals.append(("litserve", litserve, post_form("/v1/score?sex=male", image)))  # it takes no bare file
    for name, interpreter, words in rivals:
        rival = stack.enter_context(running_rival(name, registry, free_port("127.0.0.1"), interpreter))
        with rival.turn():
            of_rival = _clients(name, rival.port, words)
        runs |= {turn: _in_turn(rival, run) for turn, run in of_rival.items()}
    return runs


def _alone(registry: str, image: bytes, request: bytes) -> dict[str, Run]:
    bundle = Registry(as_path(registry)).resolve("champion")
    runs, recipe = _loops(bundle, image), bundle.recipe
    busy_ms = min(run(2.0).quantile_ms(0.5) for run in runs.values())
    told = ["--busy-ms", f"{busy_ms:.2f}", "--views", str(len(recipe.views)), "--size", str(recipe.size)]
    return runs | {
        "service, 1 client": _bind(_started_turn, lambda: running_service(registry), request),
        CHAIN: _bind(_started_turn, lambda: running_chain(free_port("127.0.0.1"), *told), request),
    }


def _started_turn(start: Callable[[], AbstractContextManager[Running]], request: bytes, seconds: float) -> Turn:
    with start() as server:
        closed_loop(server.port, request, CLIENTS, 2.0)  # warm
        return closed_loop(server.port, request, 1, seconds)


def _loops(bundle: Bundle, image: bytes) -> dict[str, Run]:
    runs = dict[str, Run]()
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)  # a predictor runs as many networks side by side as torch has threads then
        name = f"loop, {threads} thread{'s' if threads > 1 else ''}"
        runs[name] = _bind(_loop_turn, Predictor(bundle), image, threads)
    return runs


def _tiny(stack: contextlib.ExitStack, registry: str, request: bytes) -> dict[str, Run]:
    print("starting both services", flush=True)
    fast = stack.enter_context(running_service(registry)).port
    plain = stack.enter_context(running_service(registry, "--plain")).port
    return _clients("fast", fast, request) | _clients("plain", plain, request)


def _clients(name: str, port: int, request: bytes) -> dict[str, Run]:
    if (status := Client(port, request).ask()) != 200:
        raise RuntimeError(f"{name} answers the image with status {status}: there is nothing to measure.")
    closed_loop(port, request, CLIENTS, 2.0)  # warm
    return {
        f"{name}, 1 client": _bind(closed_loop, port, request, 1),
        f"{name}, {CLIENTS} clients": _bind(closed_loop, port, request, CLIENTS),
    }


def _in_turn(rival: Rival, run: Run) -> Run:
    def turn(seconds: float) -> Turn:
        with rival.turn():
            return run(seconds)

    return turn


def _bind(function: Callable[..., Turn], *arguments: object) -> Run:
    return lambda seconds: function(*arguments, seconds)


def _turns(runs: dict[str, Run], turns: int, seconds: float) -> Rows:
    rows: Rows = {}
    for turn in range(turns):
        print(f"turn {turn + 1} of {turns}", flush=True)
        for name, run in runs.items():
            rows.setdefault(name, []).append(run(seconds))
    print(f"\n{'':22}{'images/s':>10}{'of turns':>16}{'p50 ms':>10}{'p99 ms':>10}{'answers':>10}{'failed':>8}")
    for name, row in rows.items():
        rates = [turn.per_second for turn in row]
        spread = f"{min(rates):.1f} to {max(rates):.1f}"
        numbers = f"{statistics.median(rates):10.1f}{spread:>16}{_p50(row):10.1f}{_quantile(row, 0.99):10.1f}"
        print(f"{name:22}{numbers}{sum(len(t.latencies) for t in row):10}{sum(t.failed for t in row):8}")
    return rows


def _tiny_figures(rows: Rows) -> dict[str, object]:
    rates = _rates(rows)
    figures = {f"{name}_per_second": rates[name + MANY] for name in ("fast", "plain")}
    figures |= {f"{name}_p50_ms": _p50(rows[f"{name}, 1 client"]) for name in ("fast", "plain")}
    ratio = figures["fast_per_second"] / figures["plain_per_second"]
    return {"name": "serve_throughput_tiny", "ratio": round(ratio, 2)} | _rounded(figures)


def _alone_figures(rows: Rows) -> dict[str, object]:
    p50, loop = {name: _p50(turns) for name, turns in rows.items()}, _p50(rows[_faster_loop(rows)])
    figures = {
        "p50_ms_loop": loop,
        "p50_ms_above_loop": p50["service, 1 client"] - loop,
        "p50_ms_above_loop_empty_chain": p50[CHAIN] - loop,
    }
    return {"name": "serve_throughput_empty"} | _rounded(figures)


def _all_figures(rows: Rows) -> dict[str, object]:
    rates, loop = _rates(rows), _faster_loop(rows)
    figures = {
        "served_per_second": rates["service" + MANY],
        "loop_per_second": rates[loop],
        "p50_ms_one_client": _p50(rows["service, 1 client"]),
        "p50_ms_loop": _p50(rows[loop]),
        "p50_ms_above_loop": _p50(rows["service, 1 client"]) - _p50(rows[loop]),
        "p99_ms_loaded": _quantile(rows["service" + MANY], 0.99),
    }
    figures |= {f"{name}_per_second": rates[name + MANY] for name in ("starlette", "litserve") if name + MANY in rates}
    ratio = rates["service" + MANY] / rates[loop]
    return {"name": "serve_throughput", "ratio": round(ratio, 3)} | _rounded(figures)


def _about(rows: Rows, num_bytes: int) -> dict[str, object]:
    return {
        "failed": sum(turn.failed for turns in rows.values() for turn in turns),
        "n": sum(len(turn.latencies) for turns in rows.values() for turn in turns),
        "image_bytes": num_bytes,
        "clients": CLIENTS,
        "machine": f"{os.cpu_count()} x {platform.machine()}, load {os.getloadavg()[0]:.1f}",
    }


def _rates(rows: Rows) -> dict[str, float]:
    return {name: statistics.median(turn.per_second for turn in turns) for name, turns in rows.items()}


def _faster_loop(rows: Rows) -> str:
    return max((name for name in rows if name.startswith("loop")), key=_rates(rows).__getitem__)


def _loop_turn(predictor: Predictor, image: bytes, threads: int, seconds: float) -> Turn:
    torch.set_num_threads(threads)
    predictor.score(image, "male")
    turn = Turn(seconds)
    start = now = time.perf_counter()
    while now - start < seconds:
        predictor.score(image, "male")
        turn.latencies.append(-now + (now := time.perf_counter()))
        turn.codes[200] += 1
    turn.seconds = now - start
    return turn


def _p50(turns: list[Turn]) -> float:
    return _quantile(turns, 0.5)


def _quantile(turns: list[Turn], share: float) -> float:
    return statistics.median(turn.quantile_ms(share) for turn in turns)


def _rounded(figures: dict[str, float]) -> dict[str, object]:
    return {name: round(value, 2) for name, value in figures.items()}


def phantom_png(height: int) -> bytes:
    """A drawn hand of ten years, so many pixels high."""
    drawn = draw_phantom(120.0, "male", np.random.default_rng(0), height=max(height, 640))
    image = drawn.image if height >= 640 else cv2.resize(drawn.image, (height, height), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", image)[1].tobytes()


if __name__ == "__main__":
    raise SystemExit(main())
