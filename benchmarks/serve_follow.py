"""How soon a gateway follows what another one changed: ``python -m benchmarks.serve_follow``.

Two gateways' books on one ledger, SQLite and PostgreSQL. Through the first an experiment is started, promoted and taken
back; the time counts from before the act until the routing by which the second would answer is that of the act.
"""

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from serve.books import FOLLOW_S, Books
from serve.database import Database
from serve.lifecycle import Lifecycle
from serve.routing import Routing, RoutingState
from tests.postgres_server import PostgresServer

A, B = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_follow", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="of three acts each, on each database (default 50)")
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {"name": "serve_follow"}
    postgres = PostgresServer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for kind, url in (("sqlite", f"sqlite:///{folder}/ledger.db"), ("postgresql", postgres.url)):
                result[kind] = measure(url, Path(folder), options.rounds)
                print(f"{kind:12}" + "".join(f"{name} {value:6}  " for name, value in result[kind].items()))
    finally:
        postgres.remove()
    print(json.dumps(result | {"machine": f"{os.cpu_count()} x {platform.machine()}, load {os.getloadavg()[0]:.1f}"}))
    return 0


def measure(url: str, folder: Path, rounds: int) -> dict[str, float]:
    """Seconds of all acts."""
    database = Database(url)
    Routing(database).begin(A)
    one, other = (Books(url, folder / name, is_open=True) for name in ("one", "other"))
    acts, found = Lifecycle(one.ledger.database, "benchmark"), []
    for number in range(rounds):
        name = f"round-{number}"
        for act in (partial(acts.start, name, B), partial(acts.promote, name, {}), partial(acts.rollback, name, {})):
            time.sleep(random.uniform(0, FOLLOW_S))  # else each act would follow upon a reading
            found.append(_seconds(act, other))
    for books in (one, other):
        books.close()
    database.close()
    return {
        "n": len(found),
        "median_s": round(statistics.median(found), 3),
        "p99_s": round(statistics.quantiles(found, n=100, method="inclusive")[98], 3),
        "slowest_s": round(max(found), 3),
    }


def _seconds(act: Callable[[], RoutingState], other: Books) -> float:
    begin = time.perf_counter()
    version = act().version
    while other.state.version < version:
        time.sleep(0.001)
    return time.perf_counter() - begin


if __name__ == "__main__":
    raise SystemExit(main())
