"""Reading that takes seconds: one at a time in a thread of its own, and few may wait for it.

Those who read a row or two of the ledger, and those who draw radiographs, have threads of their own: six reports at a
time would stop them.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from serve.database import Database
from serve.experiment_report import data_of_act, without_report
from serve.problems import Problem
from serve.worker import BoundedWorker, FullError

MOST = 8
"""Reports that are read and wait."""
WAIT_S = 10.0
"""Nobody waits for longer, if each takes as long as the last one did."""
ACT_WAIT_S = 10.0
"""That an act waits for the report that is kept with it; the database is given half of it."""
T = TypeVar("T")


class Reports:
    """The one reader of a gateway."""

    def __init__(self) -> None:
        self._worker = BoundedWorker("reports", MOST, WAIT_S)

    async def read(self, report: Callable[..., T], *arguments: Any) -> T:
        """What `report` returns, when its turn has come.

        Raises:
            Problem: Too many wait.
        """
        try:
            return await self._worker.do(report, *arguments)
        except FullError:
            sentence = "Other reports are being read. Send it again in some seconds."
            raise Problem("overloaded", sentence, {"retry-after": "5"}) from None

    async def data_of_act(self, database: Database, definition: Mapping[str, Any]) -> dict[str, Any]:
        """`serve.experiment_report.data_of_act`; a rollback does not wait until others have read theirs."""
        try:
            async with asyncio.timeout(ACT_WAIT_S):
                return await self.read(data_of_act, database, definition)
        except TimeoutError:
            return without_report(f"It was not read within {ACT_WAIT_S:g} s.")
        except Problem as error:
            return without_report(error.detail)
