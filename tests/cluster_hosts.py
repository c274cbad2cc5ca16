"""Hosts of a cluster on one machine: each has its own network, processes, /root, /tmp and SSH server.

A host is a set of Linux namespaces. What runs in it sees no process but its own, so that Ray's ``ray stop``, which ends
processes by name, and a host's sudden death concern that host alone. Needs root, iproute2 and openssh-server.
"""

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import psutil

from tests.conftest import ROOT

BRIDGE = "carpal-br"
SUBNET = "10.213.77"
SMALL_MB = 96
TOOLS = {"ip": "iproute2", "/usr/sbin/sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync"}


def missing() -> str:
    """Why no host can be made here; empty where one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts of one machine need Linux and root"
    absent = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if absent:
        return f"hosts of one machine need the packages {', '.join(absent)}"
    probe = f"{BRIDGE}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    unshared = subprocess.run(["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"])
    return "mounts cannot be made in a namespace here" if unshared.returncode else ""


class Said(NamedTuple):
    """How a command ended, and everything that it said."""

    returncode: int
    text: str


class Hosts:
    """An operator's machine (number 0) and the machines of a cluster (1, the head, and up)."""

    def __init__(self, count: int) -> None:
        self.count = count
        # neither below /root nor /tmp, which every host has for itself; seen by all: the shared storage
        self.base = Path(tempfile.mkdtemp(prefix="carpal-cluster-", dir="/var/tmp"))
        self.store = self.base / "store"
        self.small = self.base / "small"
        """Shared storage that can be filled: `SMALL_MB` of it."""
        self.key = self.base / "key"
        self._servers: dict[int, subprocess.Popen[bytes]] = {}

    def address(self, number: int) -> str:
        """IP address of a host."""
        return f"{SUBNET}.{10 + number}"

    def make(self) -> None:
        """Make the network and all hosts."""
        self._lock = Path(f"/var/tmp/{BRIDGE}.lock").open("w")  # noqa: SIM115  (held until the process ends)
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # the names are every run's
        self._remove_network()  # of a run that was killed
        for left in Path("/var/tmp").glob("carpal-cluster-*"):
            if left != self.base:
                _remove_folders(left)
        self.store.mkdir()
        self.small.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={SMALL_MB}m", "tmpfs", self.small)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "addr", "add", f"{SUBNET}.1/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        Path("/run/sshd").mkdir(exist_ok=True)
        for number in range(self.count):
            self._make_folders(number)
            self._make_network(number)
            self.start(number)

    def start(self, number: int) -> None:
        """Switch a host on and wait until it answers; its disk is as it was, its processes are gone."""
        home = self._home(number)
        binds = "\n".join(
            f"mkdir -p {home}{path} && mount --bind {path} {home}{path}" for path in _needed_below_root_and_tmp()
        )
        script = f"""set -e
            hostname carpal{number}
            mount -t proc proc /proc
            mount -t tmpfs -o size=1g tmpfs /dev/shm
            {binds}
            mount --rbind {home}/root /root
            mount --rbind {home}/tmp /tmp
            exec /usr/sbin/sshd -D -e -f {home}/sshd_config"""
        unshare = [
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ]
        with (home / "log").open("ab") as log:
            self._servers[number] = subprocess.Popen(
                # should this process be killed, so is the host
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    "ip",
                    "netns",
                    "exec",
                    f"carpal{number}",
                    *unshare,
                    "bash",
                    "-c",
                    script,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while self.run(number, "true", check=False).returncode:
            assert self._servers[number].poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.2)

    def kill(self, number: int) -> None:
        """Pull the power cord: every process of the host dies at once, and of no other."""
        server = self._servers.pop(number)
        children = psutil.Process(server.pid).children()
        for child in children:  # the first process of the host's own numbering: with it the kernel ends all others
            child.kill()
        server.kill()
        server.wait()
        psutil.wait_procs(children, timeout=30)

    def is_on(self, number: int) -> bool:
        """Whether it is switched on."""
        return number in self._servers

    def plug(self, number: int, *, is_in: bool) -> None:
        """Put the network cable in or pull it: nothing is told to either side."""
        _run("ip", "link", "set", f"carpal{number}-v", "up" if is_in else "down")

    def run(self, number: int, command: str, *, check: bool = True, timeout: float = 300) -> Said:
        """Run a shell command on a host, as its user would after logging in."""
        with tempfile.TemporaryFile("w+") as out:  # no pipe: a daemon that it starts would keep it open
            ended = subprocess.run(
                self._ssh(number, command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=timeout
            )
            out.seek(0)
            said = Said(ended.returncode, out.read())
        assert not check or said.returncode == 0, f"{command}\n{said.text}"
        return said

    @contextlib.contextmanager
    def running(self, number: int, command: str) -> Iterator["Running"]:
        """A shell command on a host, in the background."""
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(self._ssh(number, command), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            try:
                yield Running(process, out, command)
            finally:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def forwarded(self, number: int, port: int) -> Iterator[int]:
        """A port of this machine that leads to one of a host's loopback."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            here = int(probe.getsockname()[1])
        command = self._ssh(number, "")[:-2]
        process = subprocess.Popen([*command, "-N", "-L", f"127.0.0.1:{here}:127.0.0.1:{port}", self._at(number)])
        try:
            yield here
        finally:
            process.kill()
            process.wait()

    def running_now(self, pattern: str) -> set[int]:
        """Hosts on which a process runs whose name begins so."""
        return {number for number, _ in self._processes(pattern)}

    @contextlib.contextmanager
    def held(self, number: int, pattern: str) -> Iterator[None]:
        """Hold the processes of a host still whose name begins so, as many as there are."""
        held: list[psutil.Process] = []
        try:
            for host, process in self._processes(pattern):
                if host == number:
                    with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                        process.suspend()
                        held.append(process)
            yield
        finally:
            for process in held:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def remove(self) -> None:
        """Remove everything, whatever state it is in."""
        for number in list(self._servers):
            with contextlib.suppress(psutil.Error):
                self.kill(number)
        self._remove_network()
        _remove_folders(self.base)

    def _processes(self, pattern: str) -> Iterator[tuple[int, psutil.Process]]:
        """Each with its host."""
        spaces = {}
        for number, server in self._servers.items():
            with contextlib.suppress(OSError):
                spaces[_network_of(server.pid)] = number
        for process in psutil.process_iter(["cmdline"]):
            if re.match(pattern, "".join(process.info["cmdline"] or ())):
                with contextlib.suppress(OSError):
                    if (space := _network_of(process.pid)) in spaces:
                        yield spaces[space], process

    def _home(self, number: int) -> Path:
        return self.base / f"host{number}"

    def _ssh(self, number: int, command: str) -> list[str]:
        quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        alive = ["-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
        login = f"bash --login -c {shlex.quote('. ~/.bashrc; ' + command)}"
        return ["ssh", "-i", str(self.key), *quiet, *alive, self._at(number), login]

    def _at(self, number: int) -> str:
        return f"root@{self.address(number)}"

    def _make_folders(self, number: int) -> None:
        home = self._home(number)
        for name in ("root/.ssh", "tmp"):
            (home / name).mkdir(parents=True)
        (home / "tmp").chmod(0o1777)
        shutil.copy(f"{self.key}.pub", home / "root" / ".ssh" / "authorized_keys")
        (home / "root" / ".bashrc").write_text("")
        (home / "root" / ".profile").write_text("")
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / "host_key")
        (home / "sshd_config").write_text(
            f"ListenAddress {self.address(number)}\nHostKey {home}/host_key\nUsePAM no\nPidFile none\n"
            "StrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100:30:200\n"
        )

    def _make_network(self, number: int) -> None:
        name, outside = f"carpal{number}", f"carpal{number}-v"
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", outside, "master", BRIDGE, "up")
        _run("ip", "-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _run("ip", "-n", name, "link", "set", device, "up")

    def _remove_network(self) -> None:
        for number in range(self.count):
            _run("ip", "link", "del", f"carpal{number}-v", check=False)
            _run("ip", "netns", "del", f"carpal{number}", check=False)
        _run("ip", "link", "del", BRIDGE, check=False)


class Running:
    """A command in the background."""

    def __init__(self, process: subprocess.Popen[bytes], out: TextIO, command: str) -> None:
        self.process, self._out, self._command = process, out, command

    def said(self) -> str:
        """Everything so far."""
        self._out.seek(0)
        return self._out.read()

    def wait(self, timeout: float = 400) -> str:
        """Wait for its end, which must be one of success, and return what it said."""
        assert self.process.wait(timeout) == 0, f"{self._command}\n{self.said()}"
        return self.said()


def _remove_folders(base: Path) -> None:
    _run("umount", "--lazy", base / "small", check=False)
    assert str(base) not in Path("/proc/mounts").read_text()  # or what a host was lent would go with it
    shutil.rmtree(base, ignore_errors=True)


def _network_of(pid: int) -> str:
    """The network namespace of a process."""
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def _needed_below_root_and_tmp() -> list[str]:
    """The interpreter, its environment and this code, where a host's own /root and /tmp would hide them."""
    paths = {Path(sys.prefix), Path(sys.base_prefix), Path(os.__file__).resolve().parents[2], ROOT}
    hidden = [path for path in paths if path.is_relative_to("/root") or path.is_relative_to("/tmp")]
    return sorted(str(path) for path in hidden)


def _run(*command: object, check: bool = True) -> None:
    words: Sequence[str] = [str(word) for word in command]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert not check or ended.returncode == 0, f"{shlex.join(words)}: {ended.stderr}"
