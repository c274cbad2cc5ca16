"""A replica whose thread hangs says so."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from serve import worker
from serve.worker import BoundedWorker, FullError, Worker


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
    now = [0.0]
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one = Worker("one")

    def half_a_limit() -> None:
        now[0] += 0.5 * worker.HANG_S
        one.check()

    async def work() -> None:
        await asyncio.gather(*(one.do(half_a_limit) for _ in range(4)))

    asyncio.run(work())
    assert now[0] == 2 * worker.HANG_S


def test_who_would_be_one_too_many_is_turned_away() -> None:
    one, may_go_on = BoundedWorker("one", 2, 10.0), threading.Event()

    async def work() -> None:
        tasks = [asyncio.create_task(one.do(may_go_on.wait, 20)) for _ in range(2)]
        await asyncio.sleep(0)
        assert one.under_way == 2
        with pytest.raises(FullError):
            await one.do(may_go_on.wait, 20)
        may_go_on.set()
        assert await asyncio.gather(*tasks) == [True, True]
        assert await one.do(may_go_on.wait, 20)
        assert one.under_way == 0

    asyncio.run(work())


def test_who_would_wait_for_long_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one, may_go_on = BoundedWorker("one", 8, 10.0), threading.Event()

    def six_seconds() -> None:
        now[0] += 6.0

    async def work() -> None:
        await one.do(six_seconds)  # alone, so nobody is turned away however long it takes
        tasks = [asyncio.create_task(one.do(may_go_on.wait, 20)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await one.do(may_go_on.wait, 20)  # 12 s
        may_go_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(work())
