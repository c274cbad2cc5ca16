"""The versions that a gateway can ask: which of them answer, and what asking one of them comes to.

Scoring changes nothing, so the champion is asked once more when its replica was lost under the request. A challenger is
not: it is dropped, whoever waits for it stops waiting, and it gets no traffic until it has answered again.
"""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from preprocessing.radiograph import RadiographError
from serve import logs
from serve.metrics import Metrics
from serve.problems import Problem
from serve.protocol import Outcome, Query
from serve.uploads import BODY_TIMEOUT_S

SCORE_TIMEOUT_S = 30.0
CHALLENGER_TIMEOUT_S = 10.0
"""A challenger of a split that takes longer has failed, and the champion still has its own time."""
ANSWER_TIMEOUT_S = BODY_TIMEOUT_S + CHALLENGER_TIMEOUT_S + SCORE_TIMEOUT_S
"""Of all that an answer may wait for; those of a batch share it."""
WAKE_TIMEOUT_S = 120.0
"""A version that sleeps starts its replicas and loads its bundle within this time."""
READY_TIMEOUT_S = 5.0
"""A version that does not say its name within this time does not answer."""
CHALLENGERS = ("challenger", "shadow")
"""Arms of which no caller's answer depends."""


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


class Versions:
    """The versions behind a gateway.

    Args:
        scorer_of: From a version to its scorer; asked once a version.
        metrics: Counts what comes of asking.
    """

    def __init__(self, scorer_of: Callable[[str], Scorer], metrics: Metrics) -> None:
        self._scorer_of, self._metrics = scorer_of, metrics
        self._scorers: dict[str, Scorer] = {}
        self._waiting: dict[str, set[asyncio.Future[Outcome]]] = {}
        """Of a challenger: what must not wait for it once it is dropped."""
        self._waking: dict[str, asyncio.Task[bool]] = {}
        self._woken: set[str] = set()
        """That have answered since they were last said to be asleep."""
        self.ready: set[str] = set()
        """That have shown that they answer."""
        self.asleep: frozenset[str] = frozenset()
        """That have no replicas until they are asked."""

    async def look(self, named: Iterable[str], champion: str, asleep: frozenset[str] = frozenset()) -> None:
        """Find out which versions answer: those that are not ready, and those for which requests wait.

        Args:
            named: By the routing.
            champion: Which is not dropped: there is none to take its place.
            asleep: Versions that are said to have no replicas. To look at one would wake it; a champion is woken.
        """
        kept = {*named, champion}
        self._woken &= asleep
        self.asleep = asleep - self._woken - {champion}
        for version in self.ready & self.asleep:
            self.drop(version)
        self.ready &= kept
        waited_for = {version for version, scorings in self._waiting.items() if scorings}
        asked = ((kept - self.ready) | waited_for) - self.asleep
        # side by side: one that hangs must not keep another from being found
        await asyncio.gather(*(self._look_at(version, champion) for version in asked))
        await asyncio.gather(*(self._expect(version) for version in self.ready - self._metrics.drift.versions))
        for version in set(self._scorers) - kept:
            del self._scorers[version]

    def drop(self, version: str) -> None:
        """No traffic for a version until it answers again, and nobody waits for it."""
        self.ready.discard(version)
        for scoring in self._waiting.get(version, ()):
            scoring.cancel()

    def wake(self, version: str) -> "asyncio.Task[bool]":
        """Ask a version that sleeps, so that it starts its replicas; the task says whether it is ready then."""
        if version not in self._waking:
            # outside of the request that was first to need it: Serve would cancel this call too when its client goes
            waking = asyncio.create_task(self._wake(version), context=contextvars.Context())
            self._waking[version] = waking
            self._waking[version].add_done_callback(lambda _: self._waking.pop(version))
        return self._waking[version]

    async def name_of(self, version: str, seconds: float | None = None) -> str:
        """What a version's ensemble says that it is, within `READY_TIMEOUT_S` or the time given.

        Raises:
            Problem: It does not answer.
        """
        seconds = READY_TIMEOUT_S if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._scorer(version).version()
        except TimeoutError:
            raise Problem("unavailable", f"The ensemble did not answer within {seconds:.0f} s.") from None

    async def ask(self, query: Query, version: str, arm: str, seconds: float) -> tuple[Outcome, float]:
        """An outcome, and the milliseconds that it took; whatever comes of it is counted.

        Args:
            query: The image.
            version: Whom to ask.
            arm: ``champion``, ``challenger``, ``shadow`` or ``none``.
            seconds: That it may take.

        Raises:
            RadiographError: The bytes hold no usable picture.
            Problem: It does not answer, not in time, or not such a query.
        """
        started = time.perf_counter()
        try:
            asking = self._while_ready if arm in CHALLENGERS else self._twice
            outcome = await _within(asking(query, version), seconds)
        except Exception as error:
            code = code_of(error)
            (self._metrics.refused if refuses(error) else self._metrics.failed)(version, arm, code)
            if arm in CHALLENGERS and code in ("unavailable", "timeout"):
                self.drop(version)
            raise
        took_s = time.perf_counter() - started
        self._metrics.answered(version, arm, query, outcome, took_s)
        if arm != "shadow":  # which is beside the request, and may end before its line is written
            logs.note(version=version, arm=arm, **logs.milliseconds(outcome.timings))
        return outcome, 1000 * took_s

    async def _twice(self, query: Query, version: str) -> Outcome:
        try:
            return await self._scorer(version).score(query)
        except Problem as error:
            if error.code != "unavailable":
                raise
        return await self._scorer(version).score(query)

    async def _while_ready(self, query: Query, version: str) -> Outcome:
        task = asyncio.ensure_future(self._scorer(version).score(query))
        self._waiting.setdefault(version, set()).add(task)
        try:
            await asyncio.wait({task})
            if task.cancelled():
                raise Problem("unavailable", f"The challenger has not answered for {READY_TIMEOUT_S:g} s.")
            return task.result()
        finally:
            task.cancel()
            self._waiting[version].discard(task)

    async def _wake(self, version: str) -> bool:
        try:
            await self.name_of(version, WAKE_TIMEOUT_S)
        except Exception:  # in whatever way: the next request asks it again
            return False
        self._woken.add(version)
        self.asleep -= {version}
        self.ready.add(version)
        return True

    async def _look_at(self, version: str, champion: str) -> None:
        try:
            await self.name_of(version)
        except Exception:  # not there, not yet or not any more, in whatever way
            if version != champion:
                self.drop(version)
        else:
            self.ready.add(version)

    async def _expect(self, version: str) -> None:
        with contextlib.suppress(Exception):  # it counts without them, and is asked again
            async with asyncio.timeout(READY_TIMEOUT_S):
                self._metrics.drift.expect(version, await self._scorer(version).monitors())

    def _scorer(self, version: str) -> Scorer:
        if version not in self._scorers:
            self._scorers[version] = self._scorer_of(version)
        return self._scorers[version]


def code_of(error: Exception) -> str:
    """The code under which what a version raised is written down."""
    return error.code if isinstance(error, Problem | RadiographError) else "internal"


def refuses(error: Exception) -> bool:
    """Whether a version did its work, and found the image or what was asked about it at fault."""
    return isinstance(error, RadiographError) or (isinstance(error, Problem) and error.status < 500)


async def _within(scoring: Awaitable[Outcome], seconds: float) -> Outcome:
    try:
        async with asyncio.timeout(seconds):
            return await scoring
    except TimeoutError:
        raise Problem("timeout", f"Scoring took more than {seconds:.0f} s. Send it again.") from None
