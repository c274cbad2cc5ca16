"""Batches formed by load: what arrives while a batch is computed is the next batch. Plain asyncio, no Ray.

Nobody waits for company: a lone item is computed at once, and the batches grow by themselves as fast as items arrive.
The work runs in a thread of its own, so that the event loop takes requests in and answers health checks meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from serve.worker import Worker

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Computes items in batches, one batch at a time.

    Args:
        compute: From a list of items to their results, in order.
        max_size: Items in a batch.
    """

    def __init__(self, compute: Callable[[list[Item]], list[Result]], max_size: int) -> None:
        self._compute, self._max_size = compute, max_size
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker = Worker("batch")
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """The item's result; an item that fails does so alone, whoever is in its batch."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await future

    def check(self) -> None:
        """As `Worker.check`."""
        self._worker.check()

    async def _run(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._max_size, len(self._waiting)))]
            await self._settle([each for each in batch if not each[1].done()])  # less those whose caller gave up

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        if not batch:
            return
        try:
            results = await self._worker.do(self._compute, [item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                _, future = batch[0]
                if not future.done():
                    future.set_exception(error)
            else:
                for each in batch:
                    await self._settle([each])
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
