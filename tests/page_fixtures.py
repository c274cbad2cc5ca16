"""A gateway with pages before a scorer that answers at once, and the browser that looks at it."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from serve.books import Books
from serve.database import Database
from serve.gateway import Gateway
from serve.keys import Keys
from serve.protocol import Outcome, Query
from serve.routing import Routing
from tests.hostile_uploads import PNG

A, B = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb"
VERSIONS = [{"version": version, "aliases": [], "recipe": "0" * 64, "members": 3} for version in (A, B)]
HEAT_MAP = {
    "method": "integrated_gradients",
    "unit": "months for each 64th of the view",
    "reach_months": 1.25,
    "view": "crop",
    "share": 1.0,
    "side": 128,
    "matrix": [1.0, 0.0, 0.0, 1.0, 8.0, 16.0],
    "picture": {"width": 120, "height": 160},
}


def answer_of(query: Query, version: str = A, months: float = 126.0) -> dict[str, Any]:
    """What a version answers, in full, as `serve.protocol.answer` makes it."""
    share_M = np.exp(-0.5 * ((np.arange(240) - months) / 9) ** 2)
    intervals = {"80": [months - 10, months + 10], "90": [months - 14, months + 14], "95": [months - 18, months + 18]}
    by_sex = {
        sex: {"bone_age_months": months + shift, "intervals": intervals, "probability": 0.5}
        for sex, shift in (("female", -6), ("male", 6))
        if query.sex == "unknown"
    }
    chronology = {
        "chronological_age_months": query.chronological_age_months,
        "difference_months": months - (query.chronological_age_months or 0),
        "sd_months": 11.0,
        "sds": (months - (query.chronological_age_months or 0)) / 11.0,
        "status": "advanced",
        "borderline": True,
        "source": "a table",
    }
    return {
        "bone_age_months": months,
        "bone_age": "10 years 6 months",
        "spread_months": 2.5,
        "intervals": intervals,
        "by_sex": by_sex,
        "male_probability": 0.7,
        "chronology": None if query.chronological_age_months is None else chronology,
        "profile": query.profile,
        "distribution": [float(share) for share in share_M / share_M.sum()],
        "warnings": [{"code": "framed", "message": "Edges of <a frame> lie beside the hand."}],
        "version": version,
        "recipe": "0" * 64,
        "bundle": "1" * 64,
        "cohort": "2" * 64,
    }


class Version:
    """A bundle version without a model."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def score(self, query: Query) -> Outcome:
        answer = answer_of(query, self.name, 126.0 if self.name == A else 120.0)
        return Outcome(answer | {"heatmap": HEAT_MAP}, heatmap=PNG) if query.explain else Outcome(answer)

    async def version(self) -> str:
        return self.name


class Site:
    """A gateway with two versions and a ledger."""

    def __init__(self, folder: Path, *, is_open: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        url = f"sqlite:///{folder}/ledger.db"
        self.database = Database(url)
        Routing(self.database).begin(A)
        self.keys = Keys(self.database, "me")
        self.books = Books(url, folder / "spool", is_open=is_open)
        self.app = Gateway(Version, VERSIONS, self.books).app()


@contextlib.contextmanager
def listening(site: Site) -> Iterator[str]:
    """The site behind a real server on loopback; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(site.app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < end, "the server did not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
    site.books.close()
