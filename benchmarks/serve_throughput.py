"""How much of the model's own speed is left behind HTTP: ``python -m benchmarks.serve_throughput``.

The same decode + preprocess + predict runs as a plain loop in one process, and behind the real service on
this machine. Loop and service take turns, so that a busy machine slows both; figures are medians of the turns.
"""

import argparse
import http.client
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.sample import publish_sample
from benchmarks.service import running_service
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from preprocessing.phantom import draw_phantom
from preprocessing.storage import as_path

CLIENTS = 32
"""Concurrent clients that saturate the service: two batches of the ensemble."""


@dataclass(frozen=True)
class Turn:
    """What one stretch of requests gave."""

    per_second: float
    p50_ms: float
    p99_ms: float
    num_answers: int
    num_failed: int


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_throughput", description=__doc__)
    parser.add_argument("--registry", help="registry whose champion is measured (default: a sample made now)")
    parser.add_argument("--full", action="store_true", help="five turns of 20 s instead of three of 5 s")
    options = parser.parse_args(arguments)
    turns, seconds = (5, 20.0) if options.full else (3, 5.0)
    with tempfile.TemporaryDirectory() as folder:
        if options.registry is None:
            print("making a sample registry", flush=True)
        registry = options.registry or str(publish_sample(Path(folder)))
        result = measure(registry, turns, seconds)
    print(json.dumps(result))
    return 0


def measure(registry: str, turns: int, seconds: float) -> dict[str, object]:
    """Loop and service in turns; every figure of the JSON line."""
    image = _phantom_png()
    predictor = Predictor(Registry(as_path(registry)).resolve("champion"))
    rows: dict[str, list[Turn]] = {}
    print("starting the service", flush=True)
    with running_service(registry) as service:
        _serve_turn(service.port, image, CLIENTS, 2.0)
        for turn in range(turns):
            print(f"turn {turn + 1} of {turns}", flush=True)
            for threads in sorted({1, os.cpu_count() or 1}):
                name = f"loop, {threads} thread{'s' if threads > 1 else ''}"
                rows.setdefault(name, []).append(_loop_turn(predictor, image, threads, seconds))
            rows.setdefault("service, 1 client", []).append(_serve_turn(service.port, image, 1, seconds))
            name = f"service, {CLIENTS} clients"
            rows.setdefault(name, []).append(_serve_turn(service.port, image, CLIENTS, seconds))
    return _report(rows, len(image))


def _report(rows: dict[str, list[Turn]], num_bytes: int) -> dict[str, object]:
    print(f"\n{'':22}{'images/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'answers':>10}{'failed':>8}")
    for name, turns in rows.items():
        numbers = [_median(turns, field) for field in ("per_second", "p50_ms", "p99_ms")]
        counts = [sum(turn.num_answers for turn in turns), sum(turn.num_failed for turn in turns)]
        print(f"{name:22}{numbers[0]:10.1f}{numbers[1]:10.1f}{numbers[2]:10.1f}{counts[0]:10}{counts[1]:8}")
    loops = {name: turns for name, turns in rows.items() if name.startswith("loop")}
    loop = max(loops.values(), key=lambda turns: _median(turns, "per_second"))  # the faster loop is the yardstick
    alone, loaded = rows["service, 1 client"], rows[f"service, {CLIENTS} clients"]
    served, plain = _median(loaded, "per_second"), _median(loop, "per_second")
    return {
        "name": "serve_throughput",
        "ratio": round(served / plain, 3),
        "served_per_second": round(served, 1),
        "loop_per_second": round(plain, 1),
        "p50_ms_one_client": round(_median(alone, "p50_ms"), 2),
        "p50_ms_loop": round(_median(loop, "p50_ms"), 2),
        "p50_ms_above_loop": round(_median(alone, "p50_ms") - _median(loop, "p50_ms"), 2),
        "p99_ms_loaded": round(_median(loaded, "p99_ms"), 1),
        "failed": sum(turn.num_failed for turns in rows.values() for turn in turns),
        "n": sum(turn.num_answers for turns in rows.values() for turn in turns),
        "image_bytes": num_bytes,
        "clients": CLIENTS,
        "machine": f"{os.cpu_count()} x {platform.machine()}, load {os.getloadavg()[0]:.1f}",
    }


def _loop_turn(predictor: Predictor, image: bytes, threads: int, seconds: float) -> Turn:
    torch.set_num_threads(threads)
    predictor.score(image, "male")
    latencies = []
    start = now = time.perf_counter()
    while now - start < seconds:
        predictor.score(image, "male")
        latencies.append(-now + (now := time.perf_counter()))
    return _turn(latencies, now - start, 0)


def _serve_turn(port: int, image: bytes, num_clients: int, seconds: float) -> Turn:
    latencies: list[float] = []
    codes: Counter[int] = Counter()
    start = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (sent := time.perf_counter()) - start < seconds:
            connection.request("POST", "/v1/score?sex=male", image)
            response = connection.getresponse()
            response.read()
            codes[response.status] += 1
            if response.status == 200:
                latencies.append(time.perf_counter() - sent)
        connection.close()

    clients = [threading.Thread(target=client) for _ in range(num_clients)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return _turn(latencies, time.perf_counter() - start, codes.total() - codes[200])


def _turn(latencies: list[float], seconds: float, num_failed: int) -> Turn:
    p50, p99 = (float(value) * 1000 for value in np.percentile(latencies or [np.nan], [50, 99]))
    return Turn(len(latencies) / seconds, p50, p99, len(latencies), num_failed)


def _median(turns: list[Turn], field: str) -> float:
    return statistics.median(getattr(turn, field) for turn in turns)


def _phantom_png() -> bytes:
    drawn = draw_phantom(120.0, "male", np.random.default_rng(0), height=640)
    return cv2.imencode(".png", drawn.image)[1].tobytes()


if __name__ == "__main__":
    raise SystemExit(main())
