"""Which version answers a request, and what happens to the others: experiments and versions that are not there.

The champion's answer never waits for a challenger. In a shadow the challenger is asked when the champion has answered
and its answer is stored; in a split a challenger that fails is replaced by the champion at once, and what it failed is
written down. A version gets traffic when it has shown that it answers, not when the routing names it: until then the
champion before it goes on.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from preprocessing.radiograph import RadiographError
from serve import logs
from serve.books import Books
from serve.experiment import Experiment
from serve.ledger import Answered, Entry, Failed, Shadowed
from serve.metrics import Metrics
from serve.problems import Problem
from serve.protocol import Outcome, Query
from serve.uploads import BODY_TIMEOUT_S

SCORE_TIMEOUT_S = 30.0
CHALLENGER_TIMEOUT_S = 10.0
"""A challenger of a split that takes longer has failed, and the champion still has its own time."""
ANSWER_TIMEOUT_S = BODY_TIMEOUT_S + CHALLENGER_TIMEOUT_S + SCORE_TIMEOUT_S
"""Of all that an answer may wait for."""
READY_TIMEOUT_S = 5.0
LOOK_S = 0.5
"""Versions that are named but not there yet are looked for this often."""
MAX_SHADOWS = 32
"""Images that wait for a challenger in the shadow; more are left out, not queued: memory is finite."""


class Scorer(Protocol):
    """Whatever turns an image into an answer: one version's Serve application, or a predictor right here."""

    async def score(self, query: Query) -> Outcome:
        """Score one image.

        Raises:
            RadiographError: The bytes hold no usable picture.
            Problem: The scorer is overloaded or away, or its bundle cannot answer such a query.
        """

    async def version(self) -> str:
        """The version that the ensemble holds, asked from the ensemble itself."""

    async def monitors(self) -> dict[str, Any]:
        """What the bundle's evidence looked like, for `serve.drift.Drift`; empty where it does not say."""


@dataclass(frozen=True)
class Scored:
    """An answer, and how it came about."""

    outcome: Outcome
    version: str
    latency_ms: float
    routing_version: int
    experiment: Experiment | None = None
    """None also for a request that its experiment does not count."""
    arm: str | None = None


class Arms:
    """The versions behind a gateway.

    Args:
        scorer_of: From a version to its scorer; asked once a version.
        books: Names the versions, and takes down failures and shadows.
        metrics: Counts answers, and what each stage of them took.
    """

    def __init__(self, scorer_of: Callable[[str], Scorer], books: Books, metrics: Metrics) -> None:
        self._scorer_of, self._books, self._metrics = scorer_of, books, metrics
        self._scorers: dict[str, Scorer] = {}
        self._ready: set[str] = set()
        self._champion = books.state.champion
        self._shadows: set[asyncio.Task[None]] = set()

    async def look(self) -> None:
        """Find out, for ever, which versions answer; to be run beside the requests."""
        while True:
            state = self._books.state
            self._ready &= {*state.bundles(), self._champion}
            for version in set(state.bundles()) - self._ready:
                with contextlib.suppress(Exception):  # not there yet, in whatever way
                    async with asyncio.timeout(READY_TIMEOUT_S):
                        await self._scorer(version).version()
                    self._ready.add(version)
            for version in self._ready - self._metrics.drift.versions:
                with contextlib.suppress(Exception):  # it counts without them, and is asked again
                    async with asyncio.timeout(READY_TIMEOUT_S):
                        self._metrics.drift.expect(version, await self._scorer(version).monitors())
            if state.champion in self._ready:
                self._champion = state.champion
            for version in set(self._scorers) - {*state.bundles(), self._champion}:
                del self._scorers[version]
            await asyncio.sleep(LOOK_S)

    async def version(self) -> str:
        """The version that answers now, asked from its ensemble.

        Raises:
            Problem: It does not answer.
        """
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                return await self._scorer(self._answering()).version()
        except TimeoutError:
            raise Problem("unavailable", f"The ensemble did not answer within {READY_TIMEOUT_S:.0f} s.") from None

    async def score(self, query: Query, unit: str, request_id: str) -> Scored:
        """Let the version score that this unit meets.

        Args:
            query: The image.
            unit: Whom an experiment counts: the subject, or the request where none was given.
            request_id: For the record of failures.

        Raises:
            RadiographError: The bytes hold no usable picture.
            Problem: The champion does not answer.
        """
        state = self._books.state
        experiment = state.experiment
        if experiment and experiment.challenger in self._ready and experiment.champion == self._answering():
            arm = "champion" if experiment.mode == "shadow" else experiment.arm_of(unit)
            try:
                return await self._ask(query, arm, experiment, state.version)
            except RadiographError:
                raise  # the image is at fault, with either version
            except Exception as error:
                code = error.code if isinstance(error, Problem) else "internal"
                if arm == "champion" and isinstance(error, Problem) and error.status < 500:
                    raise  # the request is at fault: it asks for what the champion does not have
                await self._failed(experiment, arm, code, request_id)
                if arm == "champion":
                    raise
                logs.event("challenger_failed", level=logging.WARNING, code=code, version=experiment.challenger)
        version = self._answering()
        outcome, latency_ms = await self._measured(query, version, "none", SCORE_TIMEOUT_S)
        return Scored(outcome, version, latency_ms, state.version)

    async def record(self, stored: Answered, *beside: Entry) -> None:
        """Return when an answer is safe, and what belongs to it.

        Raises:
            Problem: It is not, and cannot be at the moment.
        """
        started = time.perf_counter()
        await asyncio.gather(*[self._books.store(entry) for entry in (stored, *beside)])
        self._metrics.recorded(stored.version, stored.arm or "none", time.perf_counter() - started)

    def shadow(self, query: Query, scored: Scored, stored: Answered, unit: str) -> None:
        """Let the challenger of a shadow score beside a stored answer; returns at once."""
        experiment = scored.experiment
        if experiment is None or experiment.mode != "shadow" or experiment.arm_of(unit) != "challenger":
            return
        if len(self._shadows) >= MAX_SHADOWS:
            self._metrics.left_out()
            return
        task = asyncio.create_task(self._shadow(query, experiment, stored))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def drain(self, seconds: float) -> None:
        """Let shadows under way end, for so long."""
        if self._shadows:
            await asyncio.wait(self._shadows, timeout=seconds)

    async def _ask(self, query: Query, arm: str, experiment: Experiment, routing_version: int) -> Scored:
        version = experiment.champion if arm == "champion" else experiment.challenger
        seconds = SCORE_TIMEOUT_S if arm == "champion" else CHALLENGER_TIMEOUT_S
        outcome, latency_ms = await self._measured(query, version, arm, seconds)
        return Scored(outcome, version, latency_ms, routing_version, experiment, arm)

    async def _shadow(self, query: Query, experiment: Experiment, stored: Answered) -> None:
        try:
            # nobody looks at a shadow's heat map
            asked = replace(query, explain=False)
            outcome, latency_ms = await self._measured(asked, experiment.challenger, "shadow", SCORE_TIMEOUT_S)
        except Exception as error:  # nobody waits for it: whatever it is, it is written down
            code = error.code if isinstance(error, Problem | RadiographError) else "internal"
            await self._failed(experiment, "challenger", code, stored.request_id)
            return
        entry = Shadowed(
            prediction_id=stored.id,
            version=experiment.challenger,
            bone_age_months=outcome.answer["bone_age_months"],
            answer=outcome.answer,
            latency_ms=latency_ms,
        )
        with contextlib.suppress(Problem):  # a full spool: the answer itself could be stored, its shadow not
            await self._books.store(entry)

    async def _failed(self, experiment: Experiment, arm: str, code: str, request_id: str) -> None:
        if code == "unavailable" and arm == "challenger":
            self._ready.discard(experiment.challenger)  # no traffic until it answers again
        entry = Failed(
            request_id=request_id,
            version=getattr(experiment, arm),
            code=code,
            experiment=experiment.name,
            arm=arm,
        )
        with contextlib.suppress(Problem):
            await self._books.store(entry)

    async def _measured(self, query: Query, version: str, arm: str, seconds: float) -> tuple[Outcome, float]:
        """An outcome, and the milliseconds that it took; whatever comes of it is counted."""
        started = time.perf_counter()
        try:
            outcome = await self._within(self._scorer(version).score(query), seconds)
        except Exception as error:
            code = error.code if isinstance(error, Problem | RadiographError) else "internal"
            is_refused = isinstance(error, RadiographError) or (isinstance(error, Problem) and error.status < 500)
            (self._metrics.refused if is_refused else self._metrics.failed)(version, arm, code)
            raise
        took_s = time.perf_counter() - started
        self._metrics.answered(version, arm, query, outcome, took_s)
        if arm != "shadow":  # which is beside the request, and may end before its line is written
            logs.note(version=version, arm=arm, **logs.milliseconds(outcome.timings))
        return outcome, 1000 * took_s

    async def _within(self, scoring: Awaitable[Outcome], seconds: float) -> Outcome:
        try:
            async with asyncio.timeout(seconds):
                return await scoring
        except TimeoutError:
            raise Problem("timeout", f"Scoring took more than {seconds:.0f} s. Send it again.") from None

    def _answering(self) -> str:
        champion = self._books.state.champion
        return champion if champion in self._ready else self._champion

    def _scorer(self, version: str) -> Scorer:
        if version not in self._scorers:
            self._scorers[version] = self._scorer_of(version)
        return self._scorers[version]
