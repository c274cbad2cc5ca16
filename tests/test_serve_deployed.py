"""``serve deploy`` for real: a declared service loads a challenger; a changed version takes over without downtime."""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml

from benchmarks.sample import publish_challenger, publish_sample
from ensemble.registry import Registry
from preprocessing.environment import FOR_PROCESSES
from serve.admin import main as command
from serve.boundary import FOR_PROCESSES as FOR_SERVICE
from serve.transport import free_port
from tests.conftest import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(900)]


@dataclass
class Cluster:
    """A Ray of its own, to which files are deployed."""

    folder: Path
    port: int
    dashboard: int
    environment: dict[str, str]
    codes: Counter[int] = field(default_factory=Counter)

    def deploy(self, **changes: Any) -> None:
        """Deploy the shipped file with this registry, port and size, for this machine alone."""
        declared = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())
        declared["http_options"] |= {"host": "127.0.0.1", "port": self.port}
        registry = str(self.folder / "registry")
        for application in declared["applications"]:
            application["args"] = {"registry": registry, "ledger": ""}
        keeper, gateway = declared["applications"]
        keeper["args"] |= {"cpus": 2, **changes}
        gateway["args"]["open"] = True
        path = self.folder / "serve.yaml"
        path.write_text(yaml.safe_dump(declared))
        program = Path(sys.executable).with_name("serve")
        address = f"http://127.0.0.1:{self.dashboard}"
        subprocess.run([program, "deploy", str(path), "-a", address], check=True, env=self.environment, cwd=self.folder)

    def version(self) -> str | None:
        """The version that scores one radiograph; None while nothing answers."""
        hand = next((self.folder / "hands").glob("*/*.png")).read_bytes()
        try:
            answer = httpx2.post(
                f"http://127.0.0.1:{self.port}/v1/score?sex=male", content=hand, timeout=60, trust_env=False
            )
        except httpx2.HTTPError:
            self.codes[0] += 1
            return None
        self.codes[answer.status_code] += 1
        return str(answer.json()["version"]) if answer.status_code == 200 else None


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("declared")
    publish_sample(folder)
    port = free_port("127.0.0.1")
    ray_port = free_port("127.0.0.1", port)
    dashboard = free_port("127.0.0.1", port, ray_port)
    environment = {**os.environ, **FOR_PROCESSES, **FOR_SERVICE, "PYTHONPATH": str(ROOT)}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment["RAY_raylet_start_wait_time_s"] = "300"  # a busy machine is no failure
    environment.pop("CARPAL_LEDGER", None)
    start = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2"]
    ports = [f"--port={ray_port}", f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1"]
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen(
            [*start, *ports], env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: _answers(dashboard, environment["RAY_AUTH_TOKEN"]))
        yield Cluster(folder, port, dashboard, environment)
    finally:
        family = psutil.Process(head.pid).children(recursive=True)
        head.send_signal(signal.SIGTERM)
        psutil.wait_procs([psutil.Process(head.pid), *family], 30)
        for process in family:
            if process.is_running():
                process.kill()


def wait_for(condition: Callable[[], object], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.3)


def _answers(dashboard: int, token: str) -> bool:
    url, headers = f"http://127.0.0.1:{dashboard}/api/serve/applications/", {"Authorization": f"Bearer {token}"}
    try:
        return httpx2.get(url, headers=headers, timeout=10, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def test_a_declared_service_loads_a_challenger_and_changes_its_version_without_downtime(cluster: Cluster) -> None:
    cluster.deploy()
    wait_for(cluster.version)
    registry = str(cluster.folder / "registry")
    champion, challenger = Registry(registry).version_of("champion"), publish_challenger(cluster.folder)
    assert cluster.version() == champion
    cluster.codes.clear()
    is_over = threading.Event()

    def send() -> None:
        while not is_over.is_set():
            cluster.version()

    sending = threading.Thread(target=send)
    sending.start()
    try:
        # a challenger that has just started is slow, and is not to be thrown out for it
        bounds = ["max_latency_ratio=1000", "max_disagreement=1", "max_error_rate=1"]
        assert command(["experiment", "start", registry, "declared", challenger, "--policy", *bounds]) == 0
        url = f"http://127.0.0.1:{cluster.port}/v1/experiments/declared"
        found = lambda: httpx2.get(url, timeout=60, trust_env=False).json()  # noqa: E731
        wait_for(lambda: found()["arms"]["challenger"]["answered"] > 5)
        assert command(["experiment", "stop", registry, "declared"]) == 0
        cluster.deploy(version=challenger)
        wait_for(lambda: cluster.version() == challenger)
        cluster.deploy(version=champion)
        wait_for(lambda: cluster.version() == champion)
    finally:
        is_over.set()
        sending.join()
    assert set(cluster.codes) == {200}, cluster.codes
