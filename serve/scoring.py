"""From a query to an answer that is in the ledger: what one image goes through, alone or in a batch."""

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from serve import logs
from serve.arms import Arms
from serve.books import Books
from serve.database import LedgerDownError
from serve.entries import Answered, Entry, Explained, new_id
from serve.keys import Caller
from serve.ledger import fingerprint
from serve.problems import Problem
from serve.protocol import Query

MAX_KEYED = 1000
"""Answers under idempotency keys that a gateway remembers by itself; some 10 MB."""


@dataclass(frozen=True)
class Given:
    """An answer as it goes to the caller."""

    answer: dict[str, Any]
    created_s: float
    """When it was stored, Unix seconds."""
    is_repeated: bool = False
    """Whether it was given before, under the same idempotency key."""


class Scoring:
    """Scores, and keeps what it scored.

    Args:
        arms: The versions.
        books: Where answers are stored.
    """

    def __init__(self, arms: Arms, books: Books) -> None:
        self._arms, self._books = arms, books
        self._asking: dict[tuple[str, str], asyncio.Event] = {}
        """Idempotency keys whose first request is under way."""
        self._keyed: OrderedDict[tuple[str, str], Mapping[str, Any]] = OrderedDict()
        """Rows of answers that were given under an idempotency key."""

    async def give(self, query: Query, caller: Caller, request_id: str, idempotency_key: str | None) -> Given:
        """Answer a query, or repeat the answer that its idempotency key got first.

        Raises:
            RadiographError: The bytes hold no usable picture.
            Problem: Nobody can answer, the answer cannot be stored, or the idempotency key was another query's.
        """
        image_sha256 = hashlib.sha256(query.data).hexdigest()
        asked = fingerprint(image_sha256, {**query.options(), "subject": query.subject})
        if idempotency_key is None:
            return await self._new(query, caller, request_id, None, image_sha256, asked)
        async with self._alone(caller.key_id, idempotency_key):
            if repeated := await self._repeated(caller, idempotency_key, asked):
                return repeated
            return await self._new(query, caller, request_id, idempotency_key, image_sha256, asked)

    async def _new(
        self,
        query: Query,
        caller: Caller,
        request_id: str,
        idempotency_key: str | None,
        image_sha256: str,
        asked: str,
    ) -> Given:
        prediction_id = new_id()
        unit = query.subject or prediction_id
        scored = await self._arms.score(query, unit, request_id)
        ids = {"image_sha256": image_sha256, "prediction_id": prediction_id, "request_id": request_id}
        answer = {**scored.outcome.answer, **ids}
        beside: list[Entry] = []
        if scored.outcome.heatmap is not None:
            answer["heatmap"] = {**answer["heatmap"], "href": f"/v1/predictions/{prediction_id}/heatmap.png"}
            beside.append(Explained(prediction_id=prediction_id, png=scored.outcome.heatmap))
        stored = Answered(
            id=prediction_id,
            request_id=request_id,
            key_id=caller.key_id,
            idempotency_key=idempotency_key,
            fingerprint=asked,
            subject=self._books.ledger.pseudonym(query.subject) if query.subject else None,
            sex=None if query.sex == "unknown" else query.sex,
            version=answer["version"],  # what the ensemble holds, whatever its application is called
            bone_age_months=answer["bone_age_months"],
            answer=answer,
            latency_ms=scored.latency_ms,
            routing_version=scored.routing_version,
            experiment=scored.experiment.name if scored.experiment else None,
            arm=scored.arm,
            share=scored.experiment.share if scored.experiment else None,
        )
        await self._books.keep_image(prediction_id, query.data)
        await self._arms.record(stored, *beside)
        if idempotency_key:
            first = await self._repeated(caller, idempotency_key, asked)
            if first and first.answer["prediction_id"] != prediction_id:
                return first  # another gateway was asked the same meanwhile, and was faster
            self._remember(stored)
        logs.note(prediction_id=prediction_id)
        self._arms.shadow(query, scored, stored, unit)
        return Given(answer, stored.created_s)

    async def _repeated(self, caller: Caller, idempotency_key: str, asked: str) -> Given | None:
        """The first answer under this key, if there was one."""
        first = await self._in_ledger(caller, idempotency_key) or self._keyed.get((caller.key_id, idempotency_key))
        if first is None:
            return None
        if first["fingerprint"] != asked:
            sentence = "This Idempotency-Key was used for another image or other parameters. Take a new one."
            raise Problem("idempotency_conflict", sentence)
        return Given(first["answer"], first["created_s"], is_repeated=True)

    async def _in_ledger(self, caller: Caller, idempotency_key: str) -> Mapping[str, Any] | None:
        try:
            return await self._books.look_up(self._books.ledger.repeated, caller.key_id, idempotency_key)
        except LedgerDownError:
            return None  # scoring goes on; of two answers to a repetition both are kept, and the first one counts

    def _remember(self, stored: Answered) -> None:
        """The last ones are known without the ledger, which may be away or not have them yet; it has the last word."""
        self._keyed[stored.key_id, stored.idempotency_key or ""] = vars(stored)
        if len(self._keyed) > MAX_KEYED:
            self._keyed.popitem(last=False)

    @contextlib.asynccontextmanager
    async def _alone(self, key_id: str, idempotency_key: str) -> AsyncIterator[None]:
        """Of several requests with one key at the same time, the first is answered before the others look."""
        key = (key_id, idempotency_key)
        while event := self._asking.get(key):
            await event.wait()
        self._asking[key] = event = asyncio.Event()
        try:
            yield
        finally:
            del self._asking[key]
            event.set()
