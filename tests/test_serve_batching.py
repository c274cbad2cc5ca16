"""Batches formed by load."""

import asyncio
import threading

import pytest

from serve.batching import Batcher


def test_a_lone_item_is_computed_at_once_and_what_arrives_meanwhile_together() -> None:
    sizes: list[int] = []
    may_go_on = threading.Event()

    def compute(items: list[int]) -> list[int]:
        sizes.append(len(items))
        assert may_go_on.wait(10)
        return [2 * item for item in items]

    async def work() -> list[int]:
        batcher = Batcher(compute, 4)
        tasks = [asyncio.create_task(batcher(0))]
        while not sizes:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(batcher(item)) for item in range(1, 8)]
        await asyncio.sleep(0.01)
        may_go_on.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(work()) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert sizes == [1, 4, 3]


def test_an_item_that_fails_does_so_alone() -> None:
    async def work() -> list[object]:
        batcher = Batcher(lambda items: [1 / item for item in items], 8)
        return await asyncio.gather(*(batcher(item) for item in (1, 2, 0, 4)), return_exceptions=True)

    first, second, third, fourth = asyncio.run(work())
    assert (first, second, fourth) == (1, 0.5, 0.25)
    assert isinstance(third, ZeroDivisionError)


def test_who_gave_up_costs_nothing() -> None:
    computed: list[int] = []
    may_go_on = threading.Event()

    def compute(items: list[int]) -> list[int]:
        assert may_go_on.wait(10)
        computed.extend(items)
        return items

    async def work() -> None:
        batcher = Batcher(compute, 1)
        first = asyncio.create_task(batcher(1))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batcher(2)
        may_go_on.set()
        await asyncio.gather(first, batcher(3))

    asyncio.run(work())
    assert computed == [1, 3]


def test_the_loop_goes_on_while_a_batch_is_computed() -> None:
    may_go_on = threading.Event()

    def compute(items: list[int]) -> list[int]:
        assert may_go_on.wait(10)
        return items

    async def work() -> int:
        batcher = Batcher(compute, 1)
        task = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.01)
        assert not task.done()
        may_go_on.set()
        return await task

    assert asyncio.run(work()) == 1
