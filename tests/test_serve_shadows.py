"""What waits for a challenger in the shadow is bounded, and what finds no room is left out and counted. No Ray."""

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serve import logs, shadows
from serve.experiment import Experiment
from serve.metrics import Metrics
from serve.problems import Problem
from serve.protocol import Outcome, Query
from serve.shadows import Shadows
from tests.hostile_uploads import PNG
from tests.ledger_fixtures import answered
from tests.test_serve_gateway_ledger import B, Site, running, wait_for

IN_REQUEST: ContextVar[bool] = ContextVar("in_request", default=False)
"""As Ray Serve marks whatever is asked in a request, to be cancelled with it."""
E = Experiment(name="e", mode="shadow", champion="a", challenger="b", shares=(1.0,), salt="s")


class Held:
    """A challenger that answers when it is told to, and the books beside it."""

    def __init__(self) -> None:
        self.state, self.stored = SimpleNamespace(experiment=E, champion="a", version=1), 0
        self.ready, self.asleep = {"b"}, frozenset[str]()
        self.answers = asyncio.Event()
        self.failure: Exception | None = None
        self.metrics = Metrics(self)  # type: ignore[arg-type]
        self.failures: list[str] = []
        self.asked_in: list[tuple[bool, str]] = []
        self.shadows = Shadows(
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self.metrics,
            is_busy=lambda: False,
            failed=self._failed,
        )

    def status(self) -> Any:
        return SimpleNamespace(is_up=True, spooled_bytes=0, refused=0)

    async def ask(self, query: Query, version: str, arm: str, seconds: float) -> tuple[Outcome, float]:
        self.asked_in.append((IN_REQUEST.get(), logs.request_id()))
        await self.answers.wait()
        if self.failure:
            raise self.failure
        return Outcome({"bone_age_months": 90.0}), 5.0

    async def store(self, entry: object) -> None:
        self.stored += 1

    async def _failed(self, experiment: Experiment, arm: str, code: str, request_id: str) -> None:
        self.failures.append(code)

    def begin(self, *sizes: int) -> None:
        for size in sizes:
            self.shadows.begin(Query(bytes(size), "male"), E, answered())

    def left_out(self, reason: str) -> float:
        found = self.metrics.registry.get_sample_value("carpal_shadows_left_out_total", {"reason": reason})
        return found or 0.0


def test_images_that_wait_hold_so_many_bytes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MAX_SHADOW_BYTES", 100)

    async def run() -> None:
        held = Held()
        held.begin(60, 40, 1)  # the third finds no room, though there are places
        assert (held.left_out("bytes"), held.left_out("places")) == (1, 0)
        held.answers.set()
        await held.shadows.drain(5)
        assert held.stored == 2
        held.begin(100)  # their bytes are free again
        await held.shadows.drain(5)
        assert (held.stored, held.left_out("bytes")) == (3, 1)

    asyncio.run(run())


def test_bytes_are_free_again_whatever_became_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MAX_SHADOW_BYTES", 100)

    async def run() -> None:
        held = Held()
        held.answers.set()
        held.failure = Problem("unavailable", "It is gone.")
        held.begin(100)
        await held.shadows.drain(5)
        held.ready = set()
        held.begin(100)
        await held.shadows.drain(5)
        held.state.experiment = None  # it ended meanwhile
        held.begin(100)
        await held.shadows.drain(5)
        held.begin(100)
        assert (held.failures, held.left_out("away"), held.left_out("bytes")) == (["unavailable"], 1, 0)
        await held.shadows.drain(5)

    asyncio.run(run())


def test_a_shadow_is_no_part_of_its_request_but_of_its_lines_in_the_log() -> None:
    async def run() -> None:
        held = Held()
        held.answers.set()
        IN_REQUEST.set(True)
        held.begin(1)
        await held.shadows.drain(5)
        assert held.asked_in == [(False, answered().request_id)]

    asyncio.run(run())


def test_few_images_wait_however_small_they_are() -> None:
    async def run() -> None:
        held = Held()
        held.begin(*[1] * (shadows.MAX_SHADOWS + 3))
        assert (held.left_out("places"), held.left_out("bytes")) == (3, 0)
        held.answers.set()
        await held.shadows.drain(5)

    asyncio.run(run())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(Site(tmp_path)) as one:
        yield one


def test_a_slow_challenger_costs_shadows_and_no_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MAX_SHADOW_BYTES", 2 * len(PNG))
    site.start()
    site.versions[B].pause_s = 3.0
    assert [site.score().status_code for _ in range(5)] == [200] * 5
    registry = site.gateway.metrics.registry
    assert registry.get_sample_value("carpal_shadows_left_out_total", {"reason": "bytes"}) == 3
    wait_for(lambda: site.found()["arms"]["challenger"]["answered"] == 2)
    assert site.found()["arms"]["champion"]["answered"] == 5
