"""``serve deploy`` for real: a declared service loads a challenger; a changed version takes over without downtime."""

import contextlib
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

    def deploy(self, *, is_open_to_others: bool = False, **changes: Any) -> None:
        """Deploy the shipped file with this registry, port and size, for this machine alone.

        Args:
            is_open_to_others: An argument of the gateway, so that it is replaced where this one changes.
            changes: Arguments of the keeper.
        """
        declared = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())
        declared["http_options"] |= {"host": "127.0.0.1", "port": self.port}
        registry = str(self.folder / "registry")
        for application in declared["applications"]:
            application["args"] = {"registry": registry, "ledger": ""}
        keeper, gateway = declared["applications"]
        keeper["args"] |= {"cpus": 2, **changes}
        gateway["args"] |= {"open": True, "open_to_others": is_open_to_others}
        path = self.folder / "serve.yaml"
        path.write_text(yaml.safe_dump(declared))
        program = Path(sys.executable).with_name("serve")
        address = f"http://127.0.0.1:{self.dashboard}"
        subprocess.run([program, "deploy", str(path), "-a", address], check=True, env=self.environment, cwd=self.folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers_others(self) -> bool:
        """Whether a gateway that is open to others answers."""
        asked = httpx2.get(f"{self.url}/v1/versions", headers={"host": "elsewhere"}, timeout=60, trust_env=False)
        assert asked.status_code in (200, 421), asked.text  # 421: the gateway that is not
        return asked.status_code == 200

    def applications(self) -> dict[str, Any] | None:
        """What Serve says of each application; None where it does not answer."""
        url = f"http://127.0.0.1:{self.dashboard}/api/serve/applications/"
        headers = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        try:
            asked = httpx2.get(url, headers=headers, timeout=10, trust_env=False)
        except httpx2.HTTPError:
            return None
        return dict(asked.json()["applications"]) if asked.status_code == 200 else None

    def is_deployed(self) -> bool:
        """Whether the gateway is the one that was deployed last; until it is, one before it must be there."""
        told = (self.applications() or {}).get("gateway")
        if told is None or "HttpGateway" not in told["deployments"]:  # while Serve takes the new declaration in
            return False
        replicas = told["deployments"]["HttpGateway"]["replicas"]
        assert "RUNNING" in [each["state"] for each in replicas], replicas
        return bool(told["status"] == "RUNNING")

    def version(self) -> str | None:
        """The version that scores one radiograph; None while nothing answers."""
        hand = next((self.folder / "hands").glob("*/*.png")).read_bytes()
        try:
            answer = httpx2.post(f"{self.url}/v1/score?sex=male", content=hand, timeout=60, trust_env=False)
        except httpx2.HTTPError:
            self.codes[0] += 1
            return None
        self.codes[answer.status_code] += 1
        return str(answer.json()["version"]) if answer.status_code == 200 else None

    @contextlib.contextmanager
    def under_load(self, clients: int = 1) -> Iterator[None]:
        """Radiographs are sent until the block ends, and none may fail."""
        self.codes.clear()
        is_over = threading.Event()

        def send() -> None:
            while not is_over.is_set():
                self.version()

        sending = [threading.Thread(target=send) for _ in range(clients)]
        for each in sending:
            each.start()
        try:
            yield
        finally:
            is_over.set()
            for each in sending:
                each.join()
        assert set(self.codes) == {200}, self.codes


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
    cluster = Cluster(folder, port, dashboard, environment)
    try:
        wait_for(lambda: cluster.applications() is not None)
        yield cluster
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


def test_a_declared_service_loads_a_challenger_and_changes_its_version_without_downtime(cluster: Cluster) -> None:
    cluster.deploy()
    wait_for(cluster.version)
    registry = str(cluster.folder / "registry")
    champion, challenger = Registry(registry).version_of("champion"), publish_challenger(cluster.folder)
    assert cluster.version() == champion
    with cluster.under_load():
        # a challenger that has just started is slow, and is not to be thrown out for it
        bounds = ["max_latency_ratio=1000", "max_disagreement=1", "max_error_rate=1"]
        assert command(["experiment", "start", registry, "declared", challenger, "--policy", *bounds]) == 0
        url = f"{cluster.url}/v1/experiments/declared"
        found = lambda: httpx2.get(url, timeout=60, trust_env=False).json()  # noqa: E731
        wait_for(lambda: found()["arms"]["challenger"]["answered"] > 5)
        assert command(["experiment", "stop", registry, "declared"]) == 0
        cluster.deploy(version=challenger)
        wait_for(lambda: cluster.version() == challenger)
        cluster.deploy(version=champion)
        wait_for(lambda: cluster.version() == champion)


def test_another_gateway_takes_over_without_a_failed_request(cluster: Cluster) -> None:
    cluster.deploy()
    wait_for(cluster.version)
    assert not cluster.answers_others()
    with cluster.under_load(clients=4):
        cluster.deploy(is_open_to_others=True)
        wait_for(lambda: cluster.is_deployed() and cluster.answers_others())
