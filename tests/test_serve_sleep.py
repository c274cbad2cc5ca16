"""Challengers that give their replicas back when nobody asks them: who wakes one, and that no answer waits for it."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serve import arms
from serve.applications import is_asleep
from serve.capacity import Capacity
from serve.releases import Releases
from serve.versions import WAKE_TIMEOUT_S, Versions
from tests.test_serve_gateway_ledger import A, B, Site, Version, running, seen_by, wait_for

LONG_S = 100.0


class Sleeper(Version):
    """A version that, put to sleep, answers nothing until it has been asked and is let awake."""

    def __init__(self, releases: Releases) -> None:
        super().__init__(B, 90.0)
        self._releases, self.woken = releases, 0
        self.sleeps, self.may_wake = False, threading.Event()

    def tell(self) -> None:
        self.pause_s = LONG_S
        self._releases.tell(B, "asleep", {})

    async def version(self) -> str:
        if self.sleeps:
            self.woken += 1
            while not self.may_wake.is_set():
                await asyncio.sleep(0.01)
            self.sleeps, self.pause_s = False, 0.0
            self._releases.tell(B, "ready", None)
        return self.name


class Asleep(Site):
    """A site whose challenger sleeps."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sleeper = Sleeper(Releases(self.database, "service"))
        self.versions[B] = self.sleeper

    def sleep(self) -> None:
        """Put the challenger to sleep, and wait until the gateway has heard of it."""
        self.sleeper.tell()
        self.books.refresh()
        wait_for(lambda: B in seen_by(self.gateway).asleep)
        self.sleeper.sleeps = True  # not before: a gateway that knows no better looks at it, which would wake it


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asleep]:
    monkeypatch.setattr(arms, "LOOK_S", 0.03)
    with running(Asleep(tmp_path)) as one:
        yield one  # type: ignore[misc]


def answered(site: Asleep) -> dict[str, Any]:
    """The answer to a subject of the challenger's, which waits neither for one that sleeps nor until it is given up."""
    subject = site.challenged()
    begin = time.monotonic()
    answer = site.score(subject=subject).json()
    assert time.monotonic() - begin < min(LONG_S, WAKE_TIMEOUT_S) / 2
    return dict(answer)


def test_a_shadow_wakes_its_challenger_and_the_champion_does_not_wait(site: Asleep) -> None:
    site.start()
    site.sleep()
    assert site.sleeper.woken == 0  # it is left alone until it is asked
    answer = answered(site)
    site.sleeper.may_wake.set()
    wait_for(lambda: site.client.get(f"/v1/predictions/{answer['prediction_id']}").json()["shadow"] is not None)
    arm = site.found()["arms"]["challenger"]
    assert (site.sleeper.woken, arm["answered"], arm["failed"]) == (1, 1, 0)


def test_a_challenger_is_woken_for_everybody_and_not_for_the_request_that_came_first() -> None:
    in_request: ContextVar[bool] = ContextVar("in_request", default=False)  # what is asked in one is cancelled with it
    found: list[bool] = []

    class Woken:
        async def version(self) -> str:
            found.append(in_request.get())
            return B

    async def run() -> None:
        versions = Versions(lambda _: Woken(), SimpleNamespace())  # type: ignore[arg-type, return-value]
        in_request.set(True)
        assert await versions.wake(B)

    asyncio.run(run())
    assert found == [False]


def test_in_a_split_the_champion_answers_until_the_challenger_is_awake_and_is_not_counted(site: Asleep) -> None:
    site.start("split", shares=(0.9,))
    site.sleep()
    assert (answered(site)["version"], site.found()["predictions"]) == (A, 0)
    site.sleeper.may_wake.set()
    wait_for(lambda: answered(site)["version"] == B)
    assert site.found()["arms"]["challenger"]["failed"] == 0


def test_one_that_falls_asleep_under_its_request_has_not_failed(site: Asleep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "CHALLENGER_TIMEOUT_S", LONG_S)
    site.start("split", shares=(0.9,))
    site.sleeper.pause_s = LONG_S  # its replicas are gone, and the gateway has not heard of it
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(answered, site)
        wait_for(lambda: site.sleeper.asked == 1)
        site.sleep()
        answer = asked.result()
    assert (answer["version"], site.found()["arms"]["challenger"]["failed"]) == (A, 0)


def test_a_champion_is_woken_before_the_one_before_it_leaves(site: Asleep) -> None:
    releases = Releases(site.database, "me")
    releases.add(B)
    site.sleep()
    releases.crown(B)
    site.books.refresh()
    assert site.score().json()["version"] == A
    site.sleeper.may_wake.set()
    wait_for(lambda: site.score().json()["version"] == B)


def test_only_what_is_told_to_sleep_gives_all_its_replicas_back() -> None:
    awake = Capacity.of({"CPU": 2})
    sleepy = replace(awake, sleep_after_s=90.0)
    assert awake.ensemble_options()["autoscaling_config"]["min_replicas"] == 1
    for options in (sleepy.preprocess_options(), sleepy.ensemble_options()):
        scaling = options["autoscaling_config"]
        assert (scaling["min_replicas"], scaling["initial_replicas"], scaling["downscale_to_zero_delay_s"]) == (
            0,
            1,
            90,
        )


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([{"RUNNING": 1}, {"RUNNING": 2}], False),
        ([{"RUNNING": 1}, {}], True),
        ([{"STARTING": 1}, {"RUNNING": 1}], False),
        ([{"STOPPING": 1}, {"RUNNING": 1}], True),
    ],
)
def test_a_version_sleeps_when_one_of_its_tiers_has_no_replica(states: list[dict[str, int]], expected: bool) -> None:
    deployments = {str(number): SimpleNamespace(replica_states=each) for number, each in enumerate(states)}
    assert is_asleep(SimpleNamespace(deployments=deployments)) is expected  # type: ignore[arg-type]
