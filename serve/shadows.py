"""What a challenger in the shadow says about images that the champion has answered; nobody waits for it.

A few images are scored at a time, and only while the champion is not busy. The others wait, each with a copy of its
bytes that no request under way accounts for any more (`serve.limits`): they have a bound of their own, in images and in
bytes, and what finds no room is left out and counted. So a slow challenger costs pairs of the experiment, never memory
without end and never an answer.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable
from dataclasses import replace

from serve import logs
from serve.books import Books
from serve.entries import Answered, Shadowed
from serve.experiment import Experiment
from serve.metrics import Metrics
from serve.problems import Problem
from serve.protocol import Query
from serve.versions import SCORE_TIMEOUT_S, Versions, code_of

MAX_SHADOWS = 32
"""Images that wait for a challenger or are scored by it."""
MAX_SHADOW_BYTES = 256 * 1024 * 1024
"""Of these images together, encoded: a quarter of what requests may hold, and more than any one image has."""
SHADOWS_AT_ONCE = 2
PAUSE_S = 0.05
"""Between two looks at whether the champion is busy."""


class Shadows:
    """Images on their way to a challenger; for one event loop.

    Args:
        versions: Asks the challenger.
        books: Where its answers are stored; says whether the experiment still runs.
        metrics: Counts what is left out.
        is_busy: Whether the champion has so many requests that no shadow may begin.
        failed: Writes down what an arm of an experiment failed: arm, code and request id.
    """

    def __init__(
        self,
        versions: Versions,
        books: Books,
        metrics: Metrics,
        *,
        is_busy: Callable[[], bool],
        failed: Callable[[Experiment, str, str, str], Awaitable[None]],
    ) -> None:
        self._versions, self._books, self._metrics = versions, books, metrics
        self._is_busy, self._failed = is_busy, failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(SHADOWS_AT_ONCE)
        self._bytes = 0

    def begin(self, query: Query, experiment: Experiment, stored: Answered) -> None:
        """Let the challenger score the image of a stored answer, where there is room for it; returns at once."""
        if len(self._tasks) >= MAX_SHADOWS:
            self._metrics.left_out("places")
        elif self._bytes + len(query.data) > MAX_SHADOW_BYTES:
            self._metrics.left_out("bytes")
        else:
            self._bytes += len(query.data)
            # outside of the request: Serve would cancel what is asked in it when its client goes
            shadow = self._shadow(query, experiment, stored)
            task = asyncio.create_task(shadow, context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(lambda ended: self._end(ended, len(query.data)))

    async def drain(self, seconds: float) -> None:
        """Let those under way end, for so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def _end(self, task: asyncio.Task[None], num_bytes: int) -> None:
        self._tasks.discard(task)
        self._bytes -= num_bytes
        if not task.cancelled() and (error := task.exception()):  # nobody awaits it
            logs.failure(error, doing="a shadow")

    async def _shadow(self, query: Query, experiment: Experiment, stored: Answered) -> None:
        async with self._places:
            while self._is_busy():
                await asyncio.sleep(PAUSE_S)
            if self._books.state.experiment != experiment:
                return
            for _ in range(2):  # it may fall asleep when it was just about to be asked
                if experiment.challenger in self._versions.asleep:
                    await self._versions.wake(experiment.challenger)
                if experiment.challenger not in self._versions.ready:
                    break
                with logs.request(stored.request_id):
                    is_over = await self._score(query, experiment, stored)
                if is_over:
                    return
            self._metrics.left_out("away")

    async def _score(self, query: Query, experiment: Experiment, stored: Answered) -> bool:
        """Whether something came of it, an answer or a failure; not so where the challenger turns out to sleep."""
        try:
            asked = replace(query, explain=False)  # nobody looks at a shadow's heat map
            outcome, latency_ms = await self._versions.ask(asked, experiment.challenger, "shadow", SCORE_TIMEOUT_S)
        except Exception as error:  # nobody waits for it: whatever it is, it is written down
            if experiment.challenger in self._versions.asleep:
                return False
            await self._failed(experiment, "challenger", code_of(error), stored.request_id)
            return True
        entry = Shadowed(
            prediction_id=stored.id,
            version=experiment.challenger,
            bone_age_months=outcome.answer["bone_age_months"],
            answer=outcome.answer,
            latency_ms=latency_ms,
        )
        with contextlib.suppress(Problem):  # a full spool: the answer itself could be stored, its shadow not
            await self._books.store(entry)
        return True
