"""Replicas that come and go by what is asked, for real: more of each tier under load, none of an idle challenger."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from benchmarks.sample import publish_challenger, publish_sample
from benchmarks.service import Running, running_service
from ensemble.registry import Registry
from serve.admin import main as command

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(600)]

CPUS = 8
"""That Ray is told of, so that two replicas of the ensemble fit, however few this machine has."""
CLIENTS = 96
SLEEP_S = 3.0


class Site:
    """A running service with a champion, and one more version in its registry."""

    def __init__(self, folder: Path, service: Running, challenger: str) -> None:
        self.registry, self.challenger, self._service = str(folder / "registry"), challenger, service
        self.champion = Registry(folder / "registry").version_of("champion")
        self.hand = next((folder / "hands").glob("*/*.png")).read_bytes()
        self.client = httpx2.Client(
            base_url=service.url, timeout=60, trust_env=False, limits=httpx2.Limits(max_connections=CLIENTS)
        )

    def score(self) -> Any:
        return self.client.post("/v1/score?sex=male", content=self.hand)

    def replicas(self, version: str) -> Counter[str]:
        """Those of each tier that are up, by the names of their processes."""
        found = Counter[str]()
        for process in psutil.Process(self._service.process.pid).children(recursive=True):
            try:
                name = process.cmdline()[0].partition("ray::ServeReplica:")[2]
            except (psutil.Error, IndexError):
                continue  # some only help for a moment
            if name.startswith(f"{version}:") and "initialize" not in name:
                found[re.split(r"[:.]", name)[1]] += 1  # behind it may be the method that is being run
        return found

    def status(self, version: str) -> str | None:
        rows = {row["version"]: row["status"] for row in self.client.get("/v1/versions").json()["versions"]}
        return rows.get(version)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("scaling")
    publish_sample(folder, backbone="resnet18")  # reading a file takes less than its forward pass: both tiers queue
    challenger = publish_challenger(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", f'{{"CPU": {CPUS}}}')
        with running_service(folder / "registry", "--sleep", str(SLEEP_S / 60), start_within_s=400) as service:
            yield Site(folder, service, challenger)


def wait_for(condition: Callable[[], object], seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_challenger_gives_its_replicas_back_and_wakes_for_the_next_shadow(site: Site) -> None:
    assert command(["experiment", "start", site.registry, "sleepy", site.challenger]) == 0
    wait_for(lambda: site.status(site.challenger) == "asleep")
    wait_for(lambda: not site.replicas(site.challenger))
    answer = site.score().json()
    assert answer["version"] == site.champion
    shadow = f"/v1/predictions/{answer['prediction_id']}"
    wait_for(lambda: site.client.get(shadow).json()["shadow"])
    assert set(site.replicas(site.challenger)) == {"Preprocess", "Ensemble"}
    assert command(["experiment", "stop", site.registry, "sleepy"]) == 0


def test_a_second_replica_of_each_tier_comes_up_under_load(site: Site) -> None:
    assert site.replicas(site.champion) == {"Preprocess": 1, "Ensemble": 1}
    is_over = threading.Event()

    def send() -> None:
        while not is_over.is_set():
            if site.score().status_code == 503:  # no place is left, and it says to ask again
                time.sleep(0.2)

    threads = [threading.Thread(target=send) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: min(site.replicas(site.champion)[tier] for tier in ("Preprocess", "Ensemble")) > 1)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
