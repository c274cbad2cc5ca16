"""Which version answers a request, and what happens to the others: experiments and versions that are not there.

The champion's answer never waits for a challenger. In a shadow the challenger is asked when the champion has answered
and its answer is stored (`serve.shadows`). In a split a challenger that
fails is replaced by the champion at once, and what it failed is written down; while requests wait for it, it is asked
whether it still answers, and if it does not, nobody waits for it any longer. An image that it refuses goes to the
champion too, and counts against it where the champion can read it. A version gets traffic when it has shown
that it answers, not when the routing names it: until then the champion before it goes on.

A challenger that sleeps is woken by the first request that it would have had. Nobody waits for it: a shadow is taken up
when it is awake, and in a split the champion answers meanwhile, which the experiment does not count.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from serve import logs
from serve.books import Books
from serve.entries import Answered, Entry, Failed
from serve.experiment import Experiment
from serve.metrics import Metrics
from serve.problems import Problem
from serve.protocol import Outcome, Query
from serve.shadows import Shadows
from serve.versions import CHALLENGER_TIMEOUT_S, SCORE_TIMEOUT_S, Scorer, Versions, code_of, refuses

LOOK_S = 0.5
"""Versions that are named but not there yet are looked for this often, as is one for which requests wait."""
BUSY = 8
"""With so many requests under way, half a batch of the ensemble, no shadow begins: they share a machine's cores."""


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
        self._versions = Versions(scorer_of, metrics)
        self._books, self._metrics = books, metrics
        self._champion = books.state.champion
        self._under_way = 0
        self._shadows = Shadows(
            self._versions, books, metrics, is_busy=lambda: self._under_way >= BUSY, failed=self._failed
        )

    async def look(self) -> None:
        """Find out, for ever, which versions answer; to be run beside the requests."""
        while True:
            state = self._books.state
            await self._versions.look(state.bundles(), self._champion, self._books.asleep - {state.champion})
            if state.champion in self._versions.ready:
                self._champion = state.champion
            await asyncio.sleep(LOOK_S)

    async def version(self) -> str:
        """The version that answers now, asked from its ensemble.

        Raises:
            Problem: It does not answer.
        """
        return await self._versions.name_of(self._answering())

    async def score(self, query: Query, unit: str, request_id: str) -> Scored:
        """Let the version score that this unit meets.

        Args:
            query: The image.
            unit: Whom an experiment counts: the subject, or the request where none was given.
            request_id: For the record of failures.

        Raises:
            RadiographError: The bytes hold no picture that the champion can use.
            Problem: The champion does not answer.
        """
        self._under_way += 1
        try:
            return await self._answer(query, unit, request_id)
        finally:
            self._under_way -= 1

    async def _answer(self, query: Query, unit: str, request_id: str) -> Scored:
        state = self._books.state
        experiment, refusal = state.experiment, ""
        if experiment and experiment.champion == self._answering() and self._is_there(experiment, unit):
            arm = "champion" if experiment.mode == "shadow" else experiment.arm_of(unit)
            try:
                return await self._ask(query, arm, experiment, state.version)
            except Exception as error:
                code, is_refusal = code_of(error), refuses(error)
                if arm == "champion":
                    if not is_refusal:  # else the image is at fault, or asks for what the champion does not have
                        await self._failed(experiment, arm, code, request_id)
                    raise
                if is_refusal:
                    refusal = code  # of another recipe or segmenter, it may be: the champion tells who is at fault
                else:
                    await self._challenger_failed(experiment, code, request_id)
        version = self._answering()
        outcome, latency_ms = await self._versions.ask(query, version, "none", SCORE_TIMEOUT_S)
        if experiment and refusal:
            await self._challenger_failed(experiment, refusal, request_id)
        return Scored(outcome, version, latency_ms, state.version)

    async def record(self, stored: Answered, *beside: Entry) -> None:
        """Return when an answer is safe, with what belongs to it: all of it or nothing.

        Raises:
            Problem: It is not, and cannot be at the moment.
        """
        started = time.perf_counter()
        await self._books.store(stored, *beside)
        self._metrics.recorded(stored.version, stored.arm or "none", time.perf_counter() - started)

    def shadow(self, query: Query, scored: Scored, stored: Answered, unit: str) -> None:
        """Let the challenger of a shadow score beside a stored answer; returns at once."""
        experiment = scored.experiment
        if experiment is None or experiment.mode != "shadow" or experiment.arm_of(unit) != "challenger":
            return
        self._shadows.begin(query, experiment, stored)

    async def drain(self, seconds: float) -> None:
        """Let shadows under way end, for so long."""
        await self._shadows.drain(seconds)

    async def _ask(self, query: Query, arm: str, experiment: Experiment, routing_version: int) -> Scored:
        version = experiment.champion if arm == "champion" else experiment.challenger
        seconds = SCORE_TIMEOUT_S if arm == "champion" else CHALLENGER_TIMEOUT_S
        outcome, latency_ms = await self._versions.ask(query, version, arm, seconds)
        return Scored(outcome, version, latency_ms, routing_version, experiment, arm)

    def _is_there(self, experiment: Experiment, unit: str) -> bool:
        """Whether an experiment counts a request now; a challenger that sleeps is woken, and shadows wait for it."""
        challenger = experiment.challenger
        if challenger in self._versions.asleep and experiment.arm_of(unit) == "challenger":
            self._versions.wake(challenger)
        return challenger in self._versions.ready or (
            experiment.mode == "shadow" and challenger in self._versions.asleep
        )

    async def _challenger_failed(self, experiment: Experiment, code: str, request_id: str) -> None:
        logs.event("challenger_failed", level=logging.WARNING, code=code, version=experiment.challenger)
        if experiment.challenger not in self._versions.asleep:  # it may have fallen asleep meanwhile
            await self._failed(experiment, "challenger", code, request_id)

    async def _failed(self, experiment: Experiment, arm: str, code: str, request_id: str) -> None:
        entry = Failed(
            request_id=request_id,
            version=getattr(experiment, arm),
            code=code,
            experiment=experiment.name,
            arm=arm,
        )
        try:
            await self._books.store(entry)
        except Problem:
            pass  # a full spool, as `/readyz` says
        except Exception as error:  # the champion may be about to answer, or its own error to be told
            logs.failure(error, doing="writing down what an arm failed")

    def _answering(self) -> str:
        champion = self._books.state.champion
        return champion if champion in self._versions.ready else self._champion
