"""That few reports wait, and that an act waits for none for long."""

import asyncio
import threading
from typing import Any

import pytest

from serve import reports
from serve.problems import Problem
from serve.reports import Reports


def test_one_report_is_read_at_a_time_and_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, under_way, most = threading.Event(), [0], [0]

    def report() -> int:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        assert may_go_on.wait(60)
        under_way[0] -= 1
        return 1

    async def work() -> None:
        one = Reports()
        asked = [asyncio.ensure_future(one.read(report)) for _ in range(reports.MOST)]
        await asyncio.sleep(0.05)
        with pytest.raises(Problem) as caught:
            await one.read(report)
        assert (caught.value.status, caught.value.code) == (503, "overloaded")
        may_go_on.set()
        assert await asyncio.gather(*asked) == [1] * reports.MOST

    asyncio.run(work())
    assert most == [1]


def test_an_act_waits_for_its_report_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "ACT_WAIT_S", 0.05)
    may_go_on = threading.Event()
    monkeypatch.setattr(reports, "data_of_act", lambda *_: may_go_on.wait(60))

    async def work() -> dict[str, Any]:
        found = await Reports().data_of_act(None, {})  # type: ignore[arg-type]
        may_go_on.set()
        return found

    assert asyncio.run(work()) == {"why": "by hand", "report": None, "no_report": "It was not read within 0.05 s."}
