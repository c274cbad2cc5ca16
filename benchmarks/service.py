"""A real server in a process of its own, for benchmarks and tests."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    process: subprocess.Popen[str]
    lines: list[str]
    """What it printed so far."""

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self.url.rpartition(":")[2])


@contextmanager
def running_service(registry: str | Path, *options: str, start_within_s: float = 180.0) -> Iterator[Running]:
    """``python -m serve REGISTRY --port 0 --open`` until the block ends, then SIGTERM.

    Raises:
        RuntimeError: It did not start in time; the message holds what it printed.
    """
    words = ["serve", str(registry), "--port", "0", "--open", *options]
    with _running(words, start_within_s) as running:
        yield running


@contextmanager
def running_chain(port: int, *options: str) -> Iterator[Running]:
    """``python -m benchmarks.empty_chain PORT`` until the block ends; errors as of `running_service`."""
    with _running(["benchmarks.empty_chain", str(port), *options], 180.0) as running:
        yield running


@contextmanager
def _running(words: list[str], start_within_s: float) -> Iterator[Running]:
    command = [sys.executable, "-m", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
    )
    lines: list[str] = []
    found: Queue[str | None] = Queue()
    reader = Thread(target=_read, args=(process, lines, found), daemon=True)
    reader.start()
    try:
        try:
            url = found.get(timeout=start_within_s)
        except Empty:
            url = None
        if url is None:
            raise RuntimeError(f"{words[0]} did not start within {start_within_s:.0f} s:\n" + "\n".join(lines))
        yield Running(url, process, lines)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        reader.join(10)


def _read(process: "subprocess.Popen[str]", lines: list[str], found: "Queue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        if match := re.search(r"ready at (http://\S+)", line):
            found.put(match[1])
    found.put(None)
