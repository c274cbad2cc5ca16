"""Requests in number: closed-loop clients and an open-loop stream, cheap enough to leave the cores to the server."""

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import numpy as np


@dataclass
class Turn:
    """What one stretch of requests gave."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    """Of the answers, in seconds."""
    refusals: list[float] = field(default_factory=list)
    """Of the refusals with 503, in seconds."""
    codes: Counter[int] = field(default_factory=Counter)
    """By status; 0 where the connection broke."""

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    @property
    def failed(self) -> int:
        """Requests that were not answered."""
        return self.codes.total() - self.codes[200]

    def quantile_ms(self, share: float, *, of_refusals: bool = False) -> float:
        """Latency that this share stays below."""
        values = self.refusals if of_refusals else self.latencies
        return 1000 * float(np.quantile(values or [np.nan], share))


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port, self._request = port, request
        self._socket: socket.socket | None = None

    def ask(self) -> int:
        """Status of one request; 0 where the connection broke."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=90)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(self._request)
            return self._answer(self._socket)
        except (OSError, ValueError):
            self.close()
            return 0

    def close(self) -> None:
        """End the connection."""
        if self._socket:
            self._socket.close()
        self._socket = None

    def _answer(self, connection: socket.socket) -> int:
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            if not (piece := connection.recv(65536)):
                raise ConnectionError
            received += piece
        head = received[:end].lower()
        found = re.search(rb"content-length: *(\d+)", head)
        missing = end + 4 + (int(found[1]) if found else 0) - len(received)
        while missing > 0:
            if not (piece := connection.recv(65536)):
                raise ConnectionError
            missing -= len(piece)
        if b"connection: close" in head:
            self.close()
        return int(received[9:12])


def post(path: str, body: bytes, head: str = "") -> bytes:
    """A request, ready to be sent; further lines of its head end with CRLF."""
    lines = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(body)}\r\n\r\n"
    return lines.encode() + body


def post_form(path: str, image: bytes) -> bytes:
    """A request that carries an image as the field ``file`` of a form."""
    field = b'--part\r\nContent-Disposition: form-data; name="file"; filename="hand"\r\n\r\n'
    return post(path, field + image + b"\r\n--part--\r\n", "Content-Type: multipart/form-data; boundary=part\r\n")


def closed_loop(port: int, request: bytes, num_clients: int, seconds: float) -> Turn:
    """Clients that ask again as soon as they are answered."""
    start = time.perf_counter()
    turn = Turn(seconds)

    def run() -> None:
        client = Client(port, request)
        while (sent := time.perf_counter()) - start < seconds:
            _note(turn, client.ask(), time.perf_counter() - sent)
        client.close()

    _together(run, num_clients)
    turn.seconds = time.perf_counter() - start
    return turn


def open_loop(port: int, request: bytes, per_second: float, seconds: float, num_clients: int = 512) -> Turn:
    """Requests at a steady rate, whatever becomes of those before; latency counts from when one was due."""
    start = time.perf_counter() + 0.2
    turn = Turn(seconds)
    due: SimpleQueue[float] = SimpleQueue()
    for number in range(int(per_second * seconds)):
        due.put(start + number / per_second)

    def run() -> None:
        client = Client(port, request)
        while True:
            try:
                at = due.get_nowait()
            except Empty:
                client.close()
                return
            time.sleep(max(0.0, at - time.perf_counter()))
            _note(turn, client.ask(), time.perf_counter() - at)

    _together(run, num_clients)
    turn.seconds = time.perf_counter() - start
    return turn


def _note(turn: Turn, status: int, took: float) -> None:
    turn.codes[status] += 1
    if status == 200:
        turn.latencies.append(took)
    elif status == 503:
        turn.refusals.append(took)


def _together(run: Callable[[], None], num_threads: int) -> None:
    threads = [threading.Thread(target=run) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
