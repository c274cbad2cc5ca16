"""A replica whose thread hangs says so."""

import asyncio
import threading
import time

import pytest

from serve import worker
from serve.worker import Worker


def test_a_thread_that_hangs_is_unhealthy_until_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HANG_S", 0.05)
    one, may_go_on = Worker("one"), threading.Event()

    async def work() -> None:
        one.check()
        task = asyncio.create_task(one.do(may_go_on.wait, 20))
        await asyncio.sleep(0.2)
        with pytest.raises(RuntimeError, match="it hangs"):
            one.check()
        may_go_on.set()
        assert await task
        one.check()

    asyncio.run(work())


def test_work_that_waits_for_its_turn_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HANG_S", 0.3)
    one = Worker("one")

    async def work() -> None:
        tasks = [asyncio.create_task(one.do(time.sleep, 0.05)) for _ in range(10)]
        while not all(task.done() for task in tasks):
            one.check()
            await asyncio.sleep(0.01)

    asyncio.run(work())
