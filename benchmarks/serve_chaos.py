"""What of the service may change or die under load: ``python -m benchmarks.serve_chaos``.

A real service with two versions and a PostgreSQL ledger answers mixed traffic while, one after the other, a planned
change is made, a process is killed by SIGKILL, or the database restarts or hangs. Each request is sent once, and when
it fails, again with its own Idempotency-Key; it counts as failed if the first attempt failed, and as unanswered if all
did. At the end every accepted prediction is looked for in the ledger.
"""

import argparse
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import sqlalchemy as sa

from benchmarks.mixed_load import Sent, Traffic
from benchmarks.sample import publish_challenger, publish_sample
from benchmarks.service import Running, running_service
from ensemble.registry import CHAMPION, Registry
from preprocessing.storage import as_path
from serve import tables
from serve.admin import main as command
from serve.database import Database
from serve.routing import Routing
from tests.postgres_server import PostgresServer

CALM_S = 5.0
"""Of load before each change; the rest of a row's time follows it."""
RECOVER_S = 120.0
"""Within which the service must be itself again before the next row."""


@dataclass(frozen=True)
class Row:
    """What one change did."""

    name: str
    is_planned: bool
    requests: int
    failed: int
    """First attempts that were not answered with 2xx."""
    in_flight: int
    """Of these, under way at the change or sent within a second after it; the others failed before it or later."""
    unanswered: int
    """Also not when sent again."""
    slowest_s: float
    """Of all requests, with their retries."""
    whole_after_s: float
    """From the change to the end of the last request that took over a second, with its retries; 0 where none did."""


class Site:
    """A service under test, and what can be done to it."""

    def __init__(self, service: Running, registry: Path, ledger: str, postgres: PostgresServer, other: str) -> None:
        self.service, self._registry, self._ledger = service, str(registry), ledger
        self._postgres, self._other = postgres, other
        self._database = Database(ledger)

    def changes(self) -> list[tuple[str, bool, Callable[[], None]]]:
        """Name, whether it is planned, and how it is made."""
        first = self._champion()
        return [
            ("new champion beside the old one, then the old one retired", True, self._update),
            ("a split started, and its share changed", True, self._split),
            ("kill -9 of a preprocess replica", False, lambda: self._kill("Preprocess", self._other)),
            ("kill -9 of the champion's ensemble replica", False, lambda: self._kill("Ensemble", self._other)),
            ("kill -9 of the challenger's ensemble replica", False, lambda: self._kill("Ensemble", first)),
            ("kill -9 of a gateway replica", False, lambda: self._kill("HttpGateway", "")),
            ("kill -9 of the proxy", False, lambda: self._kill("Proxy", "")),
            ("kill -9 of Serve's controller", False, lambda: self._kill("ServeController", "")),
            ("database away for 5 s", True, self._restart_database),
            ("database stands still for 15 s", True, self._halt_database),
            ("kill -9 of a gateway replica while the database is away", False, self._lose_both),
        ]

    def wait(self) -> None:
        """Until everything that should run does.

        Raises:
            RuntimeError: It does not in `RECOVER_S`.
        """
        end = time.monotonic() + RECOVER_S
        while not self._is_whole():
            if time.monotonic() > end:
                raise RuntimeError(f"Not whole after {RECOVER_S:.0f} s:\n" + "\n".join(self.service.lines[-20:]))
            time.sleep(0.5)

    def stored(self) -> set[str]:
        """Ids of all predictions in the ledger."""
        with self._database.read() as connection:
            return set(connection.execute(sa.select(tables.predictions.c.id)).scalars())

    def _is_whole(self) -> bool:
        ready = Traffic.ask(self.service.port, "GET", "/readyz")
        if not ready or ready.get("status") != "ready" or ready["ledger"]["status"] != "up":
            return False
        parts = [(part, version) for version in self._versions() for part in ("Preprocess", "Ensemble")]
        return all(self._processes(part, version) for part, version in [("HttpGateway", ""), *parts])

    def _versions(self) -> tuple[str, ...]:
        state = Routing(self._database).current()
        assert state is not None
        return state.bundles()

    def _champion(self) -> str:
        return self._versions()[0]

    def _update(self) -> None:
        before = self._champion()
        self._command("add", self._other, "--champion")
        self._command("retire", before)

    def _split(self) -> None:
        other = next(row["version"] for row in Registry(self._registry).versions() if row["version"] != self._other)
        self._command("experiment", "start", "chaos", other, "--mode", "split", "--share", "0.2")
        end = time.monotonic() + 60
        while not self._processes("Ensemble", other) and time.monotonic() < end:
            time.sleep(0.5)
        time.sleep(3)
        self._command("experiment", "share", "chaos", "0.6")

    def _command(self, *words: str) -> None:
        area = 2 if words[0] == "experiment" else 1
        if command([*words[:area], self._registry, *words[area:], "--ledger", self._ledger]):
            raise RuntimeError(f"The command failed: serve {' '.join(words)}")

    def _kill(self, part: str, version: str) -> None:
        found = self._processes(part, version)
        if not found:
            raise RuntimeError(f"There is no process of {part} {version}.")
        found[0].kill()

    def _processes(self, part: str, version: str) -> list[psutil.Process]:
        """Of this service alone; the proxy is HAProxy's own process where there is one."""
        family = psutil.Process(self.service.process.pid).children(recursive=True)
        if part == "Proxy" and (found := [each for each in family if each.name() == "haproxy"]):
            return found
        return [each for each in family if part in _title(each) and version in _title(each)]

    def _lose_both(self) -> None:
        self._postgres.stop()
        try:
            self._kill("HttpGateway", "")
            time.sleep(20)  # the next one starts meanwhile, and answers
        finally:
            self._postgres.start()

    def _halt_database(self) -> None:
        with self._postgres.standing_still():
            time.sleep(15)

    def _restart_database(self) -> None:
        self._postgres.stop()
        time.sleep(5)
        self._postgres.start()


def main(arguments: list[str] | None = None) -> int:
    """Run the table, print it, print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_chaos", description=__doc__)
    parser.add_argument("--folder", help="with a registry of two versions, as benchmarks.sample makes them")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load a row (default 60)")
    parser.add_argument("--clients", type=int, default=4, help="that send one request after the other (default 4)")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(options.folder or folder)
        if options.folder is None:
            print("making two versions", flush=True)
            publish_sample(place)
            publish_challenger(place)
        result = run(place, options.seconds, options.clients, options.only)
    print(json.dumps(result))
    return 0


def run(place: Path, seconds: float, clients: int, only: str) -> dict[str, Any]:
    """Every row against one service; the figures of the JSON line."""
    registry = Registry(as_path(str(place / "registry")))
    champion = registry.version_of(CHAMPION)
    other = next(str(row["version"]) for row in registry.versions() if row["version"] != champion)
    images = [path.read_bytes() for path in sorted((place / "hands").glob("*/*.png"))]
    postgres = PostgresServer()
    rows: list[Row] = []
    accepted: set[str] = set()
    try:
        ledger = postgres.new_database("chaos")
        with running_service(place / "registry", "--ledger", ledger, start_within_s=600.0) as service:
            site = Site(service, place / "registry", ledger, postgres, other)
            for name, is_planned, change in site.changes():
                if only in name or name.startswith(("new champion", "a split")):
                    site.wait()
                    traffic = Traffic(site.service.port, images, clients)
                    row, sent = disturbed(traffic, name, change, seconds, is_planned=is_planned)
                    print(line(row), flush=True)
                    rows.append(row)
                    accepted |= {each.prediction_id for each in sent if each.prediction_id}
            lost = len(accepted - site.stored())
    finally:
        postgres.remove()
    print(f"{len(accepted):,} predictions accepted, {lost} of them not in the ledger")
    return {
        "name": "serve_chaos",
        "lost": lost,
        "failed_planned": sum(row.failed for row in rows if row.is_planned),
        "failed_killed": sum(row.failed for row in rows if not row.is_planned),
        "failed_after": sum(row.failed - row.in_flight for row in rows),
        "requests": sum(row.requests for row in rows),
        "unanswered": sum(row.unanswered for row in rows),
        "accepted": len(accepted),
        "seconds_a_row": seconds,
        "machine": f"{os.cpu_count()} x {platform.machine()}, load {os.getloadavg()[0]:.1f}",
        "rows": [vars(row) for row in rows],
    }


def disturbed(
    traffic: Traffic, name: str, change: Callable[[], None], seconds: float, *, is_planned: bool = False
) -> tuple[Row, list[Sent]]:
    """Make a change under load, after `CALM_S` of it.

    Args:
        traffic: The load.
        name: Of the change.
        change: Makes it.
        seconds: Of load in all.
        is_planned: Whether it is no accident.
    """
    changed: list[float] = []

    def make() -> None:
        time.sleep(CALM_S)
        changed.append(time.monotonic())
        change()

    changing = threading.Thread(target=make)
    changing.start()
    sent = traffic.run(seconds, changing)
    (begun,) = changed
    failed = [each for each in sent if not each.is_answered]
    late = [each.settled for each in sent if each.settled > begun and each.settled - each.begun > 1.0]
    return Row(
        name,
        is_planned,
        len(sent),
        len(failed),
        sum(begun - each.seconds <= each.begun <= begun + 1.0 for each in failed),
        sum(not each.is_answered_at_last for each in sent),
        round(max(each.settled - each.begun for each in sent), 3),
        round(max(late, default=begun) - begun, 1),
    ), sent


def line(row: Row) -> str:
    """One row of the table."""
    return (
        f"{row.name:60} {row.requests:6,} requests  {row.failed:4} failed, {row.in_flight:4} in flight, "
        f"{row.unanswered} unanswered  slowest {row.slowest_s:5.1f} s  whole after {row.whole_after_s:5.1f} s"
    )


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).replace("ray::", "")
    except psutil.Error:
        return ""


if __name__ == "__main__":
    raise SystemExit(main())
