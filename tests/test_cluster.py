"""A cluster for real: ``ray up`` on three hosts of one machine, the README's page of commands, and hosts that die.

The hosts are namespaces (see tests/cluster_hosts.py); the cluster file is deploy/cluster-onprem.yaml with other
addresses and without the installation. Tests go in the order of the page; each brings the
cluster into the state that it needs.
"""

import json
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.trial import all_outcomes
from tests.cluster_hosts import Hosts, Running, Said, missing
from tests.conftest import ROOT, plain_recipe, write_source
from tests.test_search_faults import assert_accounted_for_once, fold_files

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

OPERATOR, HEAD, WORKERS = 0, 1, (2, 3)
BUSY = r"ray::(?!IDLE|Dashboard|RuntimeEnv|JobSupervisor)"
"""Name of a worker of Ray that does something."""
TRIAL = "--space tests.spaces_of_tests:tiny --concurrent 2"


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

    def write_file(self) -> None:
        """deploy/cluster-onprem.yaml for these hosts."""
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
            "export PYTHONPATH=/root/carpal OMP_NUM_THREADS=1 TINY_IMAGES=480",
        ]
        written["setup_commands"] = [f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} > ~/.bashrc"]
        # these hosts share the machine's memory and have no way to the internet, by which Ray finds its address
        more = "--node-ip-address=$(hostname -I | cut -d' ' -f1) --object-store-memory=150000000"
        for key, cores in (("head_start_ray_commands", ""), ("worker_start_ray_commands", " --num-cpus=1")):
            written[key] = [re.sub(r"(ray start\b)", rf"\1 {more}{cores}", command) for command in written[key]]
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

    def up(self) -> float:
        """``ray up``, and wait until every host that is on has joined; returns the seconds."""
        begin = time.monotonic()
        if not self._environment:
            self.type("mkdir -p ~/.ray")
            self._environment = self.line("export RAY_AUTH_MODE") + "; "
        self.type("ray up -y")
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

    def search(self, name: str, trials: int, more: str = "") -> Any:
        """The page's search of another name and size, as a context."""
        return self.job(
            "ray job submit -- python -m search run",
            ("/study", f"/{name}"),
            ("--trials 200", f"--trials {trials}"),
            ("--concurrent 8 --gpus-per-trial 1", f"{TRIAL} {more}"),
        )


def _num_nodes(active: str) -> int:
    return sum(int(count) for count in re.findall(r"^\s*(\d+) local\.cluster\.node", active, re.MULTILINE))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three hosts with Ray on them, a tunnel to the dashboard, and a prepared source; all gone afterwards."""
    if why := missing():
        pytest.skip(why)
    hosts = Hosts(1 + 1 + len(WORKERS))
    try:
        hosts.make()
        made = Cluster(hosts)
        made.write_file()
        write_source(hosts.store / "rsna", 240)
        shutil.copy(next((hosts.store / "rsna").rglob("*.png")), hosts.store / "hand.png")
        plain_recipe(hosts.store)
        print(f"\nray up until three nodes are there: {made.up():.0f} s")
        with tunnel(made):
            yield made
    finally:
        hosts.remove()


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


def hosts_of_trials(study: Path) -> dict[str, list[int]]:
    """Which host reported last on each trial, by its address in Tune's log."""
    found: dict[str, list[int]] = {}
    for path in sorted(study.glob("tune/trial_*/result.json")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found.setdefault(str(lines[-1]["node_ip"]), []).append(int(path.parent.name.removeprefix("trial_")))
    return found


def assert_nothing_was_trained_twice(study: Path, before: dict[str, int], num_trials: int) -> None:
    """No trial is lost, none is doubled, and no fold that was finished has been written again."""
    assert_accounted_for_once(study, num_trials)
    after = fold_files(study)
    assert {file: after[file] for file in before} == before
    assert {outcome["state"] for outcome in all_outcomes(study)} <= {"complete", "stopped"}


def test_only_whoever_has_the_token_gets_an_answer(cluster: Cluster) -> None:
    get = (
        "import httpx2, sys; headers = {'Authorization': 'Bearer ' + word for word in sys.argv[1:]}; "
        "print(httpx2.get('http://127.0.0.1:8265/api/jobs/', headers=headers).status_code)"
    )
    assert cluster.hosts.run(OPERATOR, f"python -c {shlex.quote(get)}").text.strip() == "401"
    assert cluster.hosts.run(OPERATOR, f"python -c {shlex.quote(get)} $(cat ~/.ray/auth_token)").text.strip() == "200"
    # from another host, the dashboard is not there at all
    assert cluster.hosts.run(2, f"exec 3<>/dev/tcp/{cluster.hosts.address(HEAD)}/8265", check=False).returncode


def test_prepare_is_spread_over_the_workers(cluster: Cluster) -> None:
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen.update(cluster.hosts.running_now(BUSY))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        recipe = f"--size 64 --folds 3 --recipe {cluster.hosts.store}/plain.json"
        cluster.type("ray job submit -- python -m preprocessing", ("--size 512 --folds 5", recipe))
    finally:
        done.set()
        watcher.join()
    assert (cluster.hosts.store / "cohort" / "cohort.json").exists()
    assert set(WORKERS) <= seen


def test_a_search_is_spread_over_the_workers(cluster: Cluster) -> None:
    with cluster.search("study", 4) as job:
        job.wait()
    assert_accounted_for_once(cluster.study("study"), 4)
    assert set(hosts_of_trials(cluster.study("study"))) == {cluster.hosts.address(number) for number in WORKERS}


def test_a_worker_that_dies_loses_no_trial(cluster: Cluster) -> None:
    study = cluster.study("worker")
    with cluster.search("worker", 8) as job:
        wait_for_folds(study, 2, job)
        cluster.hosts.kill(WORKERS[1])
        before = fold_files(study)
        wait_for_folds(study, len(before) + 3, job)  # the other one goes on alone
        cluster.hosts.start(WORKERS[1])
        job.wait()
    assert_nothing_was_trained_twice(study, before, 8)


def test_a_network_that_is_cut_for_a_minute_loses_no_trial(cluster: Cluster) -> None:
    cluster.wait_for_nodes(3)
    study = cluster.study("network")
    with cluster.search("network", 6) as job:
        wait_for_folds(study, 2, job)
        cluster.hosts.plug(WORKERS[0], is_in=False)
        before = fold_files(study)
        try:
            time.sleep(60)
        finally:
            cluster.hosts.plug(WORKERS[0], is_in=True)
        job.wait()
    assert_nothing_was_trained_twice(study, before, 6)


def test_the_ensemble_is_built_deployed_and_asked(cluster: Cluster) -> None:
    cluster.wait_for_nodes(3)
    cluster.type("ray job submit -- python -m ensemble build")
    settings = (ROOT / "deploy" / "serve.yaml").read_text()
    settings = settings.replace("s3://YOUR-BUCKET/carpal", str(cluster.hosts.store))
    settings = settings.replace("cpus: 8, gpus: 1, market: on-demand", "cpus: 2, replicas: 2")
    settings = re.sub(r"&ledger postgresql\S+YOUR-DATABASE/carpal", '&ledger ""', settings)  # SQLite in the registry
    settings = settings.replace("ledger: *ledger", "ledger: *ledger, open: true")
    (cluster.hosts.store / "serve.yaml").write_text(settings)
    cluster.type(
        "ray exec cluster.yaml 'serve deploy", ("carpal/deploy/serve.yaml", f"{cluster.hosts.store}/serve.yaml")
    )
    with cluster.job("ray exec cluster.yaml --port-forward"):
        said = cluster.type("python -m serve.ask", ("hand.png", f"{cluster.hosts.store}/hand.png"))
        assert "months" in said.text
    cluster.hosts.run(HEAD, "RAY_AUTH_MODE=token serve shutdown -y")


def test_a_head_that_dies_is_replaced_and_the_study_goes_on(cluster: Cluster) -> None:
    study = cluster.study("head")
    with cluster.search("head", 6) as job:
        wait_for_folds(study, 3, job)
        cluster.hosts.kill(HEAD)
        assert job.process.wait(120) != 0
    time.sleep(30)  # the workers' Ray ends without its head
    before = fold_files(study)
    cluster.hosts.start(HEAD)
    cluster.up()
    with tunnel(cluster):
        options = ("--concurrent 8 --gpus-per-trial 1", "--concurrent 2")
        with cluster.job("ray job submit -- python -m search resume", ("/study", "/head"), options) as job:
            job.wait()
    assert_nothing_was_trained_twice(study, before, 6)


def test_ray_down_ends_the_head_and_every_command_of_the_page_was_typed(cluster: Cluster) -> None:
    cluster.type("ray down")
    assert "raylet" not in cluster.hosts.run(HEAD, "ps -eo comm").text
    assert set(page()) == cluster.typed
