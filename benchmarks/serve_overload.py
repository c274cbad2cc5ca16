"""What becomes of five times too many requests: ``python -m benchmarks.serve_overload``.

The peak is what closed-loop clients get out of the service. Then requests come at five times that rate, whatever
becomes of those before, from one process on the same cores: what it costs to send and refuse them counts against the
service. Memory is that of all the service's processes, before and at its highest.
"""

import argparse
import json
import os
import platform
import tempfile
import threading
from pathlib import Path

import psutil

from benchmarks.load import Turn, closed_loop, open_loop, post
from benchmarks.sample import publish_sample
from benchmarks.serve_throughput import CLIENTS, phantom_png
from benchmarks.service import running_service

FACTOR = 5
"""Of the peak, that is offered."""
REPEATED_S = 5.0
"""Of the peak, measured before and after."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_overload", description=__doc__)
    parser.add_argument("--registry", help="registry whose champion is measured (default: a sample made now)")
    parser.add_argument("--image", help="radiograph that is sent (default: a drawn hand)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of overload (default 30)")
    parser.add_argument("--plain", action="store_true", help="by Serve's own proxy")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        registry = options.registry or str(publish_sample(Path(folder)))
        image = Path(options.image).read_bytes() if options.image else phantom_png(640)
        request = post("/v1/score?sex=male", image)
        with running_service(registry, *(["--plain"] if options.plain else [])) as service:
            memory = Memory(service.process.pid)
            closed_loop(service.port, request, CLIENTS, 3.0)
            before = closed_loop(service.port, request, CLIENTS, REPEATED_S)
            calm = memory.now_mb()
            offered = FACTOR * before.per_second
            memory.watch()
            overload = open_loop(service.port, request, offered, options.seconds)
            highest = memory.highest_mb()
            after = closed_loop(service.port, request, CLIENTS, REPEATED_S)
    rows = {"peak before": before, f"{FACTOR} times as many": overload, "peak after": after}
    print(f"{'':20}{'answers/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'503s':>8}{'503 p99 ms':>12}{'others':>8}")
    for name, turn in rows.items():
        numbers = f"{turn.per_second:10.1f}{turn.quantile_ms(0.5):9.0f}{turn.quantile_ms(0.99):9.0f}"
        refused = f"{turn.codes[503]:8}{turn.quantile_ms(0.99, of_refusals=True):12.1f}"
        print(f"{name:20}{numbers}{refused}{turn.failed - turn.codes[503]:8}")
    print(json.dumps(_report(before, overload, after, offered, calm, highest)))
    return 0


def _report(
    before: Turn, overload: Turn, after: Turn, offered: float, calm_mb: float, highest_mb: float
) -> dict[str, object]:
    peak = max(before.per_second, after.per_second)
    return {
        "name": "serve_overload",
        "goodput": round(overload.per_second / peak, 3),
        "peak_per_second": round(peak, 1),
        "offered_per_second": round(offered, 1),
        "p99_ms_accepted": round(overload.quantile_ms(0.99)),
        "p99_ms_refused": round(overload.quantile_ms(0.99, of_refusals=True), 1),
        "codes": dict(overload.codes),
        "memory_mb_calm": round(calm_mb),
        "memory_mb_highest": round(highest_mb),
        "n": overload.codes.total(),
        "machine": f"{os.cpu_count()} x {platform.machine()}, load {os.getloadavg()[0]:.1f}",
    }


class Memory:
    """Of a process and all that it started: proportional set size, so that what is shared counts once."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._highest = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def now_mb(self) -> float:
        """Megabytes at this moment."""
        total = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue  # it ended meanwhile
        return total / 1e6

    def watch(self) -> None:
        """Look every other second from now on."""
        self._thread.start()

    def highest_mb(self) -> float:
        """The most that was seen."""
        self._done.set()
        self._thread.join()
        return self._highest

    def _watch(self) -> None:
        while not self._done.wait(2.0):
            self._highest = max(self._highest, self.now_mb())


if __name__ == "__main__":
    raise SystemExit(main())
