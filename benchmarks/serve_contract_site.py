"""A gateway that really decodes, with a curve around the picture's mean in the model's place: for trying a contract."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette

from ensemble.prediction import Prediction
from preprocessing.recipe import Recipe
from preprocessing.standardize import Reader
from serve.books import Books
from serve.database import Database
from serve.gateway import Gateway
from serve.protocol import Outcome, Query, answer
from serve.routing import Routing

CHAMPION, CHALLENGER = "ens-0123456789ab", "ens-ba9876543210"


def _encoded(kind: str) -> bytes:
    y, x = np.mgrid[-1:1:96j, -1:1:80j]
    buffer = io.BytesIO()
    Image.fromarray((255 * np.clip(1 - np.hypot(x, y), 0, 1)).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


IMAGES = [_encoded(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP")]
"""Files that can be scored."""


class Curve:
    """A version that answers with the picture's mean grey level as months."""

    _reader = Reader(Recipe(size=64, views=("full",), align=False, segmenter=""))

    def __init__(self, version: str) -> None:
        self._version = version

    async def score(self, query: Query) -> Outcome:
        months = min(float(self._reader.read(query.data).pixels.mean()), 239.0)
        share_M = np.exp(-0.5 * ((np.arange(240) - months) / 9) ** 2)
        found = Prediction(
            months,
            2.0,
            (share_M / share_M.sum()).astype(np.float32),
            self._version,
            "0" * 64,
            "0" * 64,
            "0" * 64,
            intervals={level: (max(0.0, months - level / 6), months + level / 6) for level in (80, 90, 95)},
            profile=query.profile,
        )
        if query.chronological_age_months is not None:
            found = found.beside(query.chronological_age_months, None if query.sex == "unknown" else query.sex)
        if not query.explain:
            return Outcome(answer(found))
        about = {"method": "none", "unit": "months", "reach_months": 1.0, "view": "full", "share": 1.0, "side": 96}
        placed = {"matrix": [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], "picture": {"width": 80, "height": 96}}
        return Outcome(answer(found) | {"heatmap": about | placed}, heatmap=IMAGES[0])

    async def version(self) -> str:
        return self._version

    async def monitors(self) -> dict[str, Any]:
        return {}


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Starlette]:
    """An open service on a ledger of its own."""
    url = f"sqlite:///{folder}/ledger.db"
    Routing(Database(url)).begin(CHAMPION)
    books = Books(url, folder / "spool", is_open=True)
    try:
        yield Gateway(Curve, [{"version": CHAMPION}, {"version": CHALLENGER}], books).app()
    finally:
        books.close()
