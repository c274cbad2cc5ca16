"""The fast way: Serve's HAProxy configuration closed, and a real HAProxy that works by it before a tiny backend."""

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from benchmarks.serve_connections import half_open
from serve import haproxy, transport
from serve.limits import FULL_HEADER

BINARY = transport.find_binary()
pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no HAProxy on this machine")


RELEASED = threading.Event()


class Backend(BaseHTTPRequestHandler):
    """Answers what it was asked; /hang never answers, and /full says that no place is left."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/hang":
            RELEASED.wait(5)
        self.send_response(503 if self.path == "/full" else 200)
        if self.path == "/full":
            self.send_header(FULL_HEADER, "1")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Gateway(ThreadingHTTPServer):
    """What HAProxy stands before."""

    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # HAProxy gives up on /hang: it is meant to
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@dataclass
class Proxy:
    """A running HAProxy."""

    port: int
    process: "subprocess.Popen[bytes]"
    configuration: Path
    command: list[str]


def written_by_serve(
    folder: Path, port: int, backend: int, num_gateways: int = 1, settings: dict[str, str] | None = None
) -> Path:
    """The configuration that Ray Serve writes for a service with so many gateways; it gives up after 2 s.

    Where settings of a service are given, Serve reads its limits from them, as it does in that service.
    """
    path = folder / "h.cfg"
    names = {"maxconn": "MAXCONN", "nbthread": "NBTHREAD", "timeout_server_s": "TIMEOUT_SERVER_S"}
    names["timeout_client_s"] = "TIMEOUT_CLIENT_S"
    limits = {key: int(settings[f"RAY_SERVE_HAPROXY_{name}"]) for key, name in names.items()} if settings else {}
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        is_head=True,
        socket_path=str(folder / "s"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        **({"timeout_server_s": 2, "timeout_client_s": 2} | limits),
    )
    api = HAProxyApi(config, config_file_path=str(path))
    servers = [ServerConfig(f"gateway{number}", "127.0.0.1", backend) for number in range(num_gateways)]
    api.set_backend_configs({"http-gateway": BackendConfig("http-gateway", "/", servers=servers, app_name="gateway")})
    api._generate_config_file_internal()
    return path


@pytest.fixture(scope="module")
def backend() -> Iterator[int]:
    server = Gateway(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    RELEASED.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(
    tmp_path: Path, backend: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Proxy]:
    """In a hurry, and soon full."""
    monkeypatch.setattr(transport, "HEAD_TIMEOUT_S", 1)
    monkeypatch.setattr(transport, "FULL_MS", 3000)
    monkeypatch.setattr(transport, "MAX_PENDING", 16)
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path))
    with running_proxy(tmp_path, backend, getattr(request, "param", 1)) as running:
        yield running


@pytest.fixture
def real_proxy(tmp_path: Path, backend: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """With every limit of a service."""
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path))
    with running_proxy(tmp_path, backend, is_real=True) as running:
        yield running


@contextlib.contextmanager
def running_proxy(folder: Path, backend: int, num_gateways: int = 1, *, is_real: bool = False) -> Iterator[Proxy]:
    port = transport.free_port("127.0.0.1")
    chosen = transport.choose("127.0.0.1", port, 60, plain=False, is_joined=False)
    path = written_by_serve(folder, port, backend, num_gateways, chosen.settings if is_real else None)
    command = [chosen.settings["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(path), "-dR"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(lambda: answers(port))
    yield Proxy(port, process, path, command)
    for pid in haproxy.workers(path):
        os.kill(pid, signal.SIGKILL)
    process.wait(10)


@pytest.fixture
def files_as_many_as_allowed() -> Iterator[int]:
    """The limit on this process's files, raised to the hard one; that one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield sys.maxsize if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answers(port: int) -> bool:
    try:
        return get(port, "/")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def wait_for(condition: "object", seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def raw(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Everything that comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionError:
            pass
        return received


def test_nothing_but_the_service_listens_and_nothing_is_logged(tmp_path: Path) -> None:
    path = written_by_serve(tmp_path, 8000, 30000)
    open_ones = path.read_text()
    assert "bind :9101" in open_ones  # what this is about
    assert "bind *:8404" in open_ones
    closed = haproxy.closed(open_ones, transport.defaults(), "ipv4@127.0.0.1:8000")
    assert re.findall(r"bind (.*)", closed) == ["ipv4@127.0.0.1:8000"]
    assert not re.findall(r"^\s*(?:log|option httplog).*", closed, re.MULTILINE)
    assert "mode 600" in closed
    assert "666" not in closed


def test_closing_twice_changes_nothing_more(tmp_path: Path) -> None:
    closed = haproxy.closed(written_by_serve(tmp_path, 8000, 30000).read_text(), transport.defaults(), "ipv4@x:1")
    assert haproxy.closed(closed, transport.defaults(), "ipv4@x:1") == closed


def test_another_configuration_than_the_one_known_is_refused() -> None:
    with pytest.raises(haproxy.ConfigurationError, match="--plain"):
        haproxy.closed("global\n    maxconn 1\ndefaults\n    mode http\n", transport.defaults(), "ipv4@127.0.0.1:1")


def test_a_head_that_trickles_in_is_ended_in_time_and_keeps_nobody_waiting(proxy: Proxy) -> None:
    slow = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(200)]
    for connection in slow:
        connection.sendall(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-A: ")
    assert get(proxy.port, "/")[0] == 200
    status = raw(proxy.port, b"GET / HTTP/1.1\r\nHost: x\r\n")
    assert b" 408 " in status.partition(b"\r\n")[0]
    for connection in slow:
        connection.close()


@pytest.mark.slow
def test_ten_thousand_half_open_connections_leave_room_for_a_request(
    real_proxy: Proxy, files_as_many_as_allowed: int
) -> None:
    if files_as_many_as_allowed < 14_200:  # HAProxy keeps 4,096 of its own for other ends
        pytest.skip(f"a process may have {files_as_many_as_allowed:,} files open here, and HAProxy needs 14,200")
    found = half_open(lambda: get(real_proxy.port, "/")[0], real_proxy.port, 10_000)
    assert found["statuses"] == [200]
    assert found["open"] >= 10_000, found


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Many: a\r\n" * 4_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["long header", "long path", "many headers", "name with a space", "TLS"],
)
def test_a_head_out_of_all_proportion_is_refused(proxy: Proxy, head: bytes) -> None:
    assert raw(proxy.port, head).startswith(b"HTTP/1.1 400 ")


def check_problem(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    told, headers, body = answer
    problem = json.loads(body)
    assert (told, problem["status"], problem["code"]) == (status, status, code)
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-request-id"] == problem["request_id"] != ""
    assert headers["x-content-type-options"] == "nosniff"
    assert (status == 503) == ("retry-after" in headers)


def test_a_gateway_that_hangs_is_a_problem(proxy: Proxy) -> None:
    check_problem(get(proxy.port, "/hang"), 504, "timeout")


def test_of_an_onslaught_the_gateway_hears_little(proxy: Proxy) -> None:
    hanging = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(transport.MAX_PENDING + 8)]
    for connection in hanging:
        connection.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
    heard: list[tuple[int, dict[str, str], bytes]] = []

    def is_refused() -> bool:
        heard.append(get(proxy.port, "/v1/score"))
        return heard[-1][0] == 503

    wait_for(is_refused)
    check_problem(heard[-1], 503, "overloaded")
    for connection in hanging:
        connection.close()


def test_a_gateway_without_a_place_is_left_alone_for_a_moment(proxy: Proxy) -> None:
    status, headers, _ = get(proxy.port, "/full")
    assert (status, FULL_HEADER in headers) == (503, False)
    check_problem(get(proxy.port, "/v1/score"), 503, "overloaded")
    assert get(proxy.port, "/healthz")[0] == 200
    wait_for(lambda: get(proxy.port, "/v1/score")[0] == 200)


@pytest.mark.parametrize("proxy", [2], indirect=True)
def test_one_gateway_without_a_place_says_nothing_of_another(proxy: Proxy) -> None:
    assert get(proxy.port, "/full")[0] == 503
    assert [get(proxy.port, "/v1/score")[0] for _ in range(3)] == [200] * 3


def test_a_lost_starter_is_no_gap_the_next_one_takes_over(proxy: Proxy) -> None:
    (first,) = haproxy.workers(proxy.configuration)
    second = subprocess.Popen(proxy.command, stderr=subprocess.DEVNULL)
    wait_for(lambda: haproxy.workers(proxy.configuration) == [second.pid])
    assert first == proxy.process.pid
    assert proxy.process.wait(10) == 0
    assert get(proxy.port, "/")[0] == 200
    second.terminate()
    second.wait(10)


def test_the_end_of_ray_is_the_end_of_what_worked_for_it(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "WATCH_S", 0.05)
    ray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    threading.Thread(target=ray.wait, daemon=True).start()
    haproxy.watch(ray.pid, proxy.configuration)
    assert proxy.process.wait(10) == -signal.SIGKILL


def test_plain_is_chosen_when_asked_for_and_where_there_is_no_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not transport.choose("127.0.0.1", 1, 60, plain=True, is_joined=False).settings
    monkeypatch.setattr(transport, "find_binary", lambda: None)
    chosen = transport.choose("127.0.0.1", 1, 60, plain=False, is_joined=False)
    assert (chosen.name, chosen.settings) == ("plain", {})
    assert "no HAProxy" in chosen.sentence


def test_a_joined_cluster_goes_the_way_that_its_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert transport.choose("127.0.0.1", 1, 60, plain=False, is_joined=True).name == "plain"
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    assert transport.choose("127.0.0.1", 1, 60, plain=False, is_joined=True).name == "fast"


def test_a_free_port_is_neither_taken_nor_one_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", transport.free_port("127.0.0.1")))
        taken.listen()
        first = taken.getsockname()[1]
        monkeypatch.setattr(transport, "PORTS", range(first, first + 20))
        ports = {transport.free_port("127.0.0.1", first + 1) for _ in range(100)}
    assert not ports & {first, first + 1}
    with pytest.raises(OSError, match=r"Nothing can listen at 192\.0\.2\.1"):
        transport.free_port("192.0.2.1")


def test_no_folder_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = transport.choose("127.0.0.1", 8000, 60, plain=False, is_joined=False)
    assert chosen.folder is not None
    assert len(str(chosen.folder / ("n" * 56) / "s.1234567.bak")) < 107  # what a socket's path may have
    chosen.remove()
    assert not chosen.folder.exists()
