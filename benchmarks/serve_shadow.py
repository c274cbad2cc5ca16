"""What a shadow costs the champion's callers: ``python -m benchmarks.serve_shadow``.

A real service holds two versions. Turns with and without a shadow of every image alternate, so that a busy machine
slows both: one client that pauses between its requests, and as many clients as saturate the service.
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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sample import publish_challenger, publish_sample
from benchmarks.service import running_service
from ensemble.registry import CHAMPION, Registry
from preprocessing.storage import as_path
from serve.admin import main as command

SATURATED = 32
PAUSE_S = 0.2
"""Between two requests of the single client: about what a site with one workstation does at its busiest."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_shadow", description=__doc__)
    parser.add_argument("--folder", help="with a registry of two versions, as benchmarks.sample makes them")
    parser.add_argument("--turns", type=int, default=3, help="with and without, each (default 3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each half of a turn (default 8)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(options.folder or folder)
        if options.folder is None:
            publish_sample(place)
            publish_challenger(place)
        result = measure(place, options.turns, options.seconds)
    print(json.dumps(result))
    return 0


def measure(place: Path, turns: int, seconds: float) -> dict[str, Any]:
    """Turns with and without; every figure of the JSON line."""
    path = str(place / "registry")
    registry = Registry(as_path(path))
    champion = registry.version_of(CHAMPION)
    other = next(str(row["version"]) for row in registry.versions() if row["version"] != champion)
    image = sorted((place / "hands").glob("*/*.png"))[0].read_bytes()
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    shadows = 0
    with running_service(path, start_within_s=600.0) as service:
        if command(["add", path, other]):
            raise RuntimeError(f"{other} was not loaded.")
        _half(service.port, image, 4, 0.0, 4.0)  # warm
        for turn in range(2 * turns):
            name = f"turn-{turn}"
            is_shadow = bool(turn % 2)
            if is_shadow:
                words = ["experiment", "start", path, name, other, "--policy", "max_disagreement=1.0"]
                if command([*words, "max_latency_ratio=1000.0", "max_error_rate=1.0"]):
                    raise RuntimeError("The shadow does not start.")
            time.sleep(2.0)  # every gateway follows within that time
            kind = "shadow" if is_shadow else "alone"
            found.setdefault(("one client", kind), []).append(_half(service.port, image, 1, PAUSE_S, seconds))
            found.setdefault(("saturated", kind), []).append(_half(service.port, image, SATURATED, 0.0, seconds))
            if is_shadow:
                report = json.loads(_get(service.port, f"/v1/experiments/{name}"))
                shadows += int(report["arms"]["challenger"]["answered"])
                command(["experiment", "stop", path, name])
    return _report(found, shadows)


def _report(found: dict[tuple[str, str], list[tuple[float, float, float]]], shadows: int) -> dict[str, Any]:
    print(f"\n{'':24}{'answers/s':>10}{'p50 ms':>10}{'p95 ms':>10}")
    medians = {key: [statistics.median(column) for column in zip(*rows, strict=True)] for key, rows in found.items()}
    for (load, kind), (rate, p50, p95) in medians.items():
        print(f"{f'{load}, {kind}':24}{rate:10.1f}{p50:10.1f}{p95:10.1f}")
    one, full = ({kind: medians[load, kind] for kind in ("alone", "shadow")} for load in ("one client", "saturated"))
    return {
        "name": "serve_shadow",
        "p50_ms_added": round(one["shadow"][1] - one["alone"][1], 2),
        "p95_ms_added": round(one["shadow"][2] - one["alone"][2], 2),
        "p50_ms_alone": round(one["alone"][1], 2),
        "saturated_ratio": round(full["shadow"][0] / full["alone"][0], 3),
        "shadows": shadows,
        "machine": f"{os.cpu_count()} x {platform.machine()}, load {os.getloadavg()[0]:.1f}",
    }


def _half(port: int, image: bytes, clients: int, pause_s: float, seconds: float) -> tuple[float, float, float]:
    """Answers a second, and the 50th and 95th percentile in milliseconds.

    Raises:
        RuntimeError: A request was refused, for another reason than load.
    """
    latencies: list[float] = []
    refused: list[bytes] = []
    begin = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (sent := time.perf_counter()) - begin < seconds:
            connection.request("POST", "/v1/score?sex=male", image)
            response = connection.getresponse()
            said = response.read()
            if response.status == 200:
                latencies.append(time.perf_counter() - sent)
            elif response.status != 503:
                refused.append(said)
            time.sleep(pause_s)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        raise RuntimeError(f"{len(refused)} requests were refused: {refused[0]!r}")
    p50, p95 = (1000 * float(value) for value in np.percentile(latencies, [50, 95]))
    return len(latencies) / (time.perf_counter() - begin), p50, p95


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read()


if __name__ == "__main__":
    raise SystemExit(main())
