"""What connections that never become a request cost those that do: ``python -m benchmarks.serve_connections``.

A running service on this machine must score a radiograph while heads trickle in, a letter a second (slow-loris), after
heads out of all proportion, and while thousands of connections have sent half a head. Connections count as open where
a process of the service holds them: those that wait in the kernel's queue do not. The key, where the service asks for
one, is read from ``$CARPAL_KEY``. The last line is JSON.
"""

import argparse
import collections
import contextlib
import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]

from benchmarks.load import Client, post
from benchmarks.sample import service_at
from benchmarks.serve_throughput import phantom_png

Ask = Callable[[], int]
"""A good request on a connection of its own; its status, 0 where there was no answer."""
START = b"POST /v1/score?sex=male HTTP/1.1\r\nHost: localhost\r\nX-A: "
LONGEST_S = 60.0
"""So long heads trickle in, unless the service has ended all before."""
HEADS = {
    "header of 40 kB": START + b"a" * 40_000 + b"\r\n\r\n",
    "header of 8 MB": START + b"a" * 8_000_000 + b"\r\n\r\n",
    "path of 40 kB": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "4,000 headers": START + b"a\r\n" + b"X-Many: a\r\n" * 4_000 + b"\r\n",
}


def half_open(ask: Ask, port: int, count: int) -> dict[str, Any]:
    """Hold so many connections with half a head, ask, and count those that are still held."""
    allow_files(count + 1000)
    begin = time.perf_counter()
    held = [_started(port) for _ in range(count)]
    opened_s = time.perf_counter() - begin
    status, took_s = _timed(ask)
    found = {"connections": count, "open": taken(port), "opened_s": opened_s, "statuses": [status], "slowest_s": took_s}
    for connection in held:
        connection.close()
    return found


def trickling(ask: Ask, port: int, count: int) -> dict[str, Any]:
    """Let so many heads trickle in, and ask once a second until all are ended, or for `LONGEST_S`."""
    held = {connection.fileno(): connection for connection in (_started(port) for _ in range(count))}
    ended: collections.Counter[str] = collections.Counter()
    answers: list[tuple[int, float]] = []
    begin = last = time.perf_counter()
    while held and time.perf_counter() - begin < LONGEST_S:
        for number in _with_news(held):
            ended[_status(held.pop(number))] += 1
            last = time.perf_counter()
        for connection in held.values():
            connection.send(b"a")
        answers.append(_timed(ask))
        time.sleep(max(0.0, 1.0 - answers[-1][1]))
    found = {"connections": count, "ended": dict(ended), "ended_within_s": last - begin, "never_ended": len(held)}
    for connection in held.values():
        connection.close()
    return found | {"statuses": [status for status, _ in answers], "slowest_s": max(took for _, took in answers)}


def oversized(ask: Ask, port: int, count: int) -> dict[str, Any]:
    """Send each of `HEADS` so often, then ask."""
    told = {name: collections.Counter(_sent(port, head) for _ in range(count)) for name, head in HEADS.items()}
    status, took_s = _timed(ask)
    return {"connections": count * len(HEADS), "told": told, "statuses": [status], "slowest_s": took_s}


def allow_files(count: int) -> None:
    """Let this process hold so many files.

    Raises:
        OSError: The hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise OSError(f"A process may have {hard:,} files open here, and {count:,} are needed: see ulimit -Hn.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


def taken(port: int) -> int:
    """Connections to a port of this machine that a process there holds; root or the same user can see them."""
    everything = psutil.net_connections(kind="tcp")
    return len({each.raddr for each in everything if each.laddr.port == port and each.raddr and each.pid})


def _started(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(START)
    return connection


def _sent(port: int, head: bytes) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):  # it is refused before all of it is there
            connection.sendall(head)
        return _status(connection)


def _status(connection: socket.socket) -> str:
    try:
        received = connection.recv(4096)
    except OSError:
        received = b""
    return received[9:12].decode() if received.startswith(b"HTTP/1.1 ") else "closed"


def _with_news(held: dict[int, socket.socket]) -> list[int]:
    poll = select.poll()
    for number in held:
        poll.register(number, select.POLLIN)
    return [number for number, _ in poll.poll(0)]


def _timed(ask: Ask) -> tuple[int, float]:
    begin = time.perf_counter()
    return ask(), time.perf_counter() - begin


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where a radiograph was not scored."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_connections", description=__doc__)
    parser.add_argument("--url", help="of a service on this machine (default: one of a sample is started)")
    parser.add_argument("--plain", action="store_true", help="start it behind Serve's own proxy")
    parser.add_argument("--half-open", type=int, default=10_000, help="connections with half a head (default 10,000)")
    parser.add_argument("--trickling", type=int, default=500, help="heads that trickle in (default 500)")
    parser.add_argument("--oversized", type=int, default=50, help="of each head out of proportion (default 50)")
    options = parser.parse_args(arguments)
    with service_at(options.url, plain=options.plain) as url:
        found = _onslaughts(urlsplit(url).port or 80, options)
    print(json.dumps(found))
    return int(any(status != 200 for each in found.values() for status in each["statuses"]))


def _onslaughts(port: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    key = os.environ.get("CARPAL_KEY", "")
    request = post("/v1/score?sex=male", phantom_png(640), f"Authorization: Bearer {key}\r\n" if key else "")

    def ask() -> int:
        client = Client(port, request)
        try:
            return client.ask()
        finally:
            client.close()

    if ask() != 200:
        raise RuntimeError("The service does not score a good radiograph: what it does under load says nothing.")
    found = dict[str, dict[str, Any]]()
    for name, onslaught, count in (
        ("oversized heads", oversized, options.oversized),
        ("heads that trickle in", trickling, options.trickling),
        ("half-open connections", half_open, options.half_open),
    ):
        found[name] = onslaught(ask, port, count)
        print(f"{name:24}{json.dumps(found[name])}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
