"""The audit trail over HTTP: every act of an administrator or a policy, newest first.

GET /v1/audit?limit=100&before=ID    `next` of one page is `before` of the one after it
"""

from functools import partial
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve import tables
from serve.books import Books
from serve.database import Database
from serve.moments import moment
from serve.problems import Problem

MAX_LIMIT = 500
"""Acts on a page; an ended experiment's act holds its whole report, some 5 kB."""
MAX_ID = 2**31 - 1
_LIMIT = 100


def acts(database: Database, *, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """Acts with their data, newest first.

    Args:
        database: Of the ledger.
        limit: Of them at most.
        before: Only those that are older than the act of this id.
    """
    table = tables.audit
    query = sa.select(table).order_by(table.c.id.desc()).limit(limit)
    with database.read() as connection:
        rows = connection.execute(query if before is None else query.where(table.c.id < before))
        return [row._asdict() for row in rows]


def audit_routes(books: Books) -> list[Route]:
    """The route, for callers with the role ``admin``."""

    async def audit(request: Request) -> Response:
        books.caller(request, "admin")
        if strange := set(request.query_params) - {"limit", "before"}:
            raise Problem("unknown_parameter", f"The parameters are limit and before, got {len(strange)} others.")
        limit = _number(request, "limit", MAX_LIMIT) or _LIMIT
        before = _number(request, "before", MAX_ID)
        found = await books.ask(partial(acts, books.ledger.database, limit=limit + 1, before=before))
        shown = [
            {
                "id": row["id"],
                "created": moment(row["created_s"]),
                "actor": row["actor"],
                "act": row["act"],
                "detail": row["detail"],
            }
            for row in found[:limit]
        ]
        return JSONResponse({"acts": shown, "next": shown[-1]["id"] if len(found) > limit else None})

    return [Route("/v1/audit", audit, methods=["GET"])]


def _number(request: Request, name: str, most: int) -> int | None:
    given = request.query_params.getlist(name)
    if not given:
        return None
    text = given[0]
    if len(given) > 1 or not (text.isascii() and text.isdecimal() and len(text) < 11 and 1 <= int(text) <= most):
        raise Problem("page_malformed", f"{name} is one whole number from 1 to {most:,}. Send such a one.")
    return int(text)
