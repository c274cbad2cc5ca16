"""What Ray Serve starts in place of HAProxy: closes the configuration that Serve wrote, then becomes HAProxy.

Serve's own template (read on Ray 2.60) listens with its statistics and metrics on every interface, logs every URL,
hence every subject, to a syslog port, lets everybody steer it over its socket, waits for ever for a request's head and
answers its own errors as text of status 500. None of it can be set, but the binary can, by
``RAY_SERVE_HAPROXY_BINARY_PATH``: `serve.transport` names this file there. It runs by itself, on the standard library.
"""

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

_DROPPED = re.compile(
    r"\s*(log(-format-sd)? |log$|no log$|option (httplog|log-health-checks)|errorfile |http-request set-)"
)
"""Lines about logs and error files; variables are set for logs alone."""
_OWN_PORTS = re.compile(r"(frontend prometheus|listen stats)\b")
"""Sections with ports of their own; Serve itself asks over the socket."""
WATCH_S = 1.0


class ConfigurationError(ValueError):
    """The configuration is not the one that this release of Ray writes."""


def closed(configuration: str, defaults: str, address: str, frontend: str = "") -> str:
    """Serve's configuration without what is open in it.

    Args:
        configuration: As Serve wrote it, or as this function returned it.
        defaults: Lines for the section ``defaults``: time limits and errors in our own form.
        address: To listen at, as HAProxy writes it; Serve's replicas listen on loopback alone.
        frontend: Lines for the section that takes requests, once there is a gateway.

    Raises:
        ConfigurationError: A line that must be changed is not there.
    """
    if defaults in configuration:
        return configuration
    kept: list[str] = []
    is_kept, section = True, ""
    changed: set[str] = set()
    for line in configuration.splitlines():
        if line[:1].strip():
            section, is_kept = line.strip(), not _OWN_PORTS.match(line)
        if not is_kept or not line.strip() or line.lstrip().startswith("#") or _DROPPED.match(line):
            continue
        if "stats socket" in line:
            line = line.replace("mode 666", "mode 600")
            changed.add("socket" if "mode 600" in line else "")
        if section == "frontend http_frontend" and line.strip().startswith("bind "):
            line = f"    bind {address}"
            changed.add("bind")
        if section == "backend default_backend" and "return status 404" in line:
            line = "    http-request deny deny_status 503"  # no gateway yet
            changed.add("default")
        kept.append(line)
        if section == "global" and line.strip().startswith("maxconn "):
            kept.append("    no strict-limits")  # it wants two files for each; those that only wait need one
        if section == "frontend http_frontend" and line.lstrip().startswith("bind "):
            kept.append("    http-after-response set-status 503 if { status 502 }")  # both: the gateway is not there
            if "backend http-gateway\n" in configuration:
                kept.append(frontend)
        if section == "defaults" and line.strip() == "mode http":
            kept.append(defaults)
            changed.add("defaults")
    if changed != {"socket", "bind", "default", "defaults"}:
        raise ConfigurationError("Ray Serve writes another HAProxy configuration than 2.60 did. Serve with --plain.")
    return "\n".join(kept) + "\n"


def workers(configuration: Path) -> list[int]:
    """Process ids of the HAProxies that work by this configuration."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(configuration) in words and words[0] != os.fsencode(sys.executable):
                found.append(int(entry.name))
    return sorted(found)


def watch(raylet: int, configuration: Path) -> None:
    """Wait for the end of Ray on this machine, then end what worked by this configuration.

    HAProxy must outlive the process that started it, else every fault of that one is a gap in the service; but not
    Ray itself.
    """
    while parent_of(raylet) is not None:
        time.sleep(WATCH_S)
    for pid in workers(configuration):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def parent_of(pid: int) -> int | None:
    """The parent of a process; None where it is gone."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


def main(arguments: list[str]) -> None:
    """``BINARY FOLDER`` and then HAProxy's own arguments; does not return."""
    binary, folder, *given = arguments
    configuration = Path(given[given.index("-f") + 1])
    given_lines = [Path(folder, name).read_text() for name in ("defaults.cfg", "address", "frontend.cfg")]
    text = closed(configuration.read_text(), *given_lines)
    configuration.write_text(text)
    if "-sf" not in given:  # the first one; or its starter was lost, and this one takes over from it without a gap
        if old := workers(configuration):
            (control,) = re.findall(r"stats socket (\S+)", text)
            given += ["-sf", *map(str, old), "-x", control]
        elif (raylet := parent_of(os.getppid())) is not None:
            _beside(lambda: watch(raylet, configuration))
    os.execv(binary, [binary, *given])


def _beside(work: Callable[[], None]) -> None:
    """Do it in a process that is nobody's child."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    os.setsid()
    if not os.fork():
        work()
    os._exit(0)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError) as error:
        sys.exit(f"haproxy: {error}")
