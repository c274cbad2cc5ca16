"""The cluster of tests/test_cluster.py: its hosts, its file, and the README's commands as an operator types them."""

import contextlib
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster_hosts import Hosts, Running, Said
from tests.conftest import ROOT
from tests.test_search_faults import fold_files

OPERATOR, HEAD, WORKERS = 0, 1, (2, 3)
TRAINS = r"ray::ImplicitFunc"
"""Name of one that has trials."""
ON_GPUS, AT_A_TIME = "--concurrent 8 --gpus-per-trial 1", "--concurrent 2"


def page() -> list[str]:
    """The commands of the README that are run here."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "ray up -y" in block]
    return [re.sub(r"\s+#.*$", "", line) for line in block.splitlines()]


class Cluster:
    """The hosts, the cluster's file, and the README's commands as the operator types them."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.file = hosts.base / "cluster.yaml"
        self.typed: set[str] = set()
        self._environment = ""

    def write_file(self, *, plain: bool = False) -> None:
        """deploy/cluster-onprem.yaml for these hosts; as it stands answers go the fast way."""
        written = yaml.safe_load((ROOT / "deploy" / "cluster-onprem.yaml").read_text())
        written["metadata"] = {"storage": str(self.hosts.store)}
        written["provider"] |= {
            "head_ip": self.hosts.address(HEAD),
            "worker_ips": [self.hosts.address(number) for number in WORKERS],
        }
        written["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.hosts.key)}
        # the interpreter is lent to the hosts, so nothing is installed; the code is what file_mounts brought
        lines = [
            "export RAY_AUTH_MODE=token",
            f"export PATH={Path(sys.executable).parent}:$PATH",
            "export PYTHONPATH=/root/carpal OMP_NUM_THREADS=1 TINY_IMAGES=960",
        ]
        written["setup_commands"] = [f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} > ~/.bashrc"]
        # these hosts share the machine's memory and have no way to the internet, by which Ray finds its address
        more = "--node-ip-address=$(hostname -I | cut -d' ' -f1) --object-store-memory=150000000"
        for key, cores in (("head_start_ray_commands", ""), ("worker_start_ray_commands", " --num-cpus=1")):
            commands = [re.sub(r"(ray start\b)", rf"\1 {more}{cores}", command) for command in written[key]]
            written[key] = [re.sub(r"^eval .*?; ", "", command) if plain else command for command in commands]
        self.file.write_text(yaml.safe_dump(written, width=10_000))
        home = self.hosts.base / f"host{OPERATOR}" / "root"
        (home / ".bashrc").write_text(f"export PATH={Path(sys.executable).parent}:$PATH\ncd {ROOT}\n")

    def line(self, starts: str, *edits: tuple[str, str]) -> str:
        """The one line of the page that begins so, for this cluster and this store."""
        (found,) = [line for line in page() if line.startswith(starts)]
        self.typed.add(found)
        for old, new in (("s3://YOUR-BUCKET/carpal", str(self.hosts.store)), ("cluster.yaml", str(self.file)), *edits):
            found = found.replace(old, new)
        return found.removesuffix(" &")

    def type(self, starts: str, *edits: tuple[str, str], check: bool = True, timeout: float = 400) -> Said:
        """Type it on the operator's machine."""
        return self.hosts.run(OPERATOR, self._environment + self.line(starts, *edits), check=check, timeout=timeout)

    def job(self, starts: str, *edits: tuple[str, str]) -> Any:
        """Type a line that takes a while; a context."""
        return self.hosts.running(OPERATOR, self._environment + self.line(starts, *edits))

    def up(self, *, wait: bool = True) -> float:
        """``ray up``, and wait until every host that is on has joined; returns the seconds."""
        begin = time.monotonic()
        if not self._environment:
            self.type("mkdir -p ~/.ray")
            self._environment = self.line("export RAY_AUTH_MODE") + "; "
        self.type("ray up -y")
        if wait:
            self.wait_for_nodes(1 + sum(self.hosts.is_on(number) for number in WORKERS))
        return time.monotonic() - begin

    def wait_for_nodes(self, count: int, timeout: float = 180) -> None:
        """Wait until so many nodes are in ``ray status``."""
        deadline = time.monotonic() + timeout
        while True:
            said = self.type("ray exec cluster.yaml 'ray status'", check=False).text
            active = said.partition("Active:")[2].partition("Pending:")[0]
            if _num_nodes(active) == count:
                return
            assert time.monotonic() < deadline, said
            time.sleep(2)

    def study(self, name: str) -> Path:
        """A study's folder on the shared storage."""
        return self.hosts.store / name

    def search(self, study: Path, trials: int) -> Any:
        """The page's search of another place and size, as a context."""
        return self.job(
            "ray job submit -- python -m search run",
            ("$STORE/study", str(study)),
            ("--trials 200", f"--trials {trials}"),
            (ON_GPUS, f"--space tests.spaces_of_tests:tiny {AT_A_TIME}"),
        )

    def resume(self, study: Path) -> Any:
        """The page's resume of such a search, as a context."""
        return self.job("ray job submit -- python -m search resume", ("$STORE/study", str(study)), (ON_GPUS, AT_A_TIME))

    def hosts_of_tasks(self, name: str) -> set[int]:
        """Hosts on which tasks of such a name have ended, by Ray's own account."""
        tasks, nodes = (
            json.loads(self.hosts.run(HEAD, f"ray list {what} --format json --limit 10000 2> /dev/null").text)
            for what in ("tasks --filter state=FINISHED", "nodes")
        )
        number_of = {self.hosts.address(number): number for number in (HEAD, *WORKERS)}
        host_of = {node["node_id"]: number_of[node["node_ip"]] for node in nodes}
        return {host_of[task["node_id"]] for task in tasks if re.match(name, task["name"]) and task["node_id"]}

    def declare_service(self) -> None:
        """Declare the service as the page does, open to these hosts' own network: a replica of each tier a worker."""
        settings = (ROOT / "deploy" / "serve.yaml").read_text()
        settings = settings.replace("s3://YOUR-BUCKET/carpal", str(self.hosts.store))
        settings = settings.replace("cpus: 8, gpus: 1", "cpus: 2, replicas: 2")
        settings = re.sub(
            r"&ledger postgresql\S+YOUR-DATABASE/carpal", '&ledger ""', settings
        )  # SQLite in the registry
        settings = settings.replace("ledger: *ledger", "ledger: *ledger, replicas: 2, open: true, open_to_others: true")
        (self.hosts.store / "serve.yaml").write_text(settings)
        self.type("ray exec cluster.yaml 'serve deploy", ("carpal/deploy/serve.yaml", f"{self.hosts.store}/serve.yaml"))


@contextlib.contextmanager
def cluster_of_hosts() -> Iterator[Cluster]:
    """The hosts, switched on, and the cluster's file; no Ray runs yet, and whatever does in the end is gone."""
    hosts = Hosts(1 + 1 + len(WORKERS))
    try:
        hosts.make()
        cluster = Cluster(hosts)
        cluster.write_file()
        yield cluster
    finally:
        hosts.remove()


def _num_nodes(active: str) -> int:
    return sum(int(count) for count in re.findall(r"^\s*(\d+) local\.cluster\.node", active, re.MULTILINE))


class tunnel:
    """``ray dashboard``, opened again where the head has been lost."""

    def __init__(self, cluster: Cluster) -> None:
        self._context = cluster.job("ray dashboard")
        self._cluster = cluster

    def __enter__(self) -> None:
        self._running: Running = self._context.__enter__()
        wait_until(
            lambda: self._cluster.hosts.run(OPERATOR, "exec 3<>/dev/tcp/127.0.0.1/8265", check=False).returncode == 0,
            60,
            self._running.said,
        )

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)


def wait_until(is_so: Callable[[], bool], timeout: float, say: Callable[[], object] = str) -> None:
    """Wait until something is so, and say what was said where it never is."""
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, say()
        time.sleep(0.2)


def wait_for_folds(study: Path, count: int, job: Running) -> None:
    """Wait until so many folds of a study are finished, while its job runs."""

    def is_so() -> bool:
        assert job.process.poll() is None, job.said()
        return len(fold_files(study)) >= count

    wait_until(is_so, 240, job.said)
