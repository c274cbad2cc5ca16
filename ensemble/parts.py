"""A table that grows part by part and may be interrupted: finished parts stay, and become one file at the end.

.OUT.parquet.parts/plan.json                      what is scored by which bundle
.OUT.parquet.parts/000000000-000000032.parquet    rows of the inputs 0 to 31; there when it is complete
OUT.parquet                                       all rows in the order of the inputs; then the parts go

The parts are hidden: beside the radiographs they would be files of the folder that is scored.
"""

import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ensemble.conformal import LEVELS, SEXES
from preprocessing.storage import AnyPath, is_local, read_json, remote, write_atomic, write_json

_PART = re.compile(r"([0-9]{9})-([0-9]{9})\.parquet")
ENDS = tuple(f"{end}_{level}" for level in LEVELS for end in ("low", "high"))
BY_SEX = tuple(f"if_{sex}_{name}" for sex in SEXES for name in ("months", *ENDS))
"""Of the answers for a girl and for a boy, where the sex is unknown."""
SCHEMA = pa.schema(
    [
        ("case_id", pa.string()),
        ("file", pa.string()),
        ("sex", pa.string()),
        ("sex_from", pa.string()),
        ("predicted_months", pa.float64()),
        *[(name, pa.float64()) for name in ENDS],
        ("spread_months", pa.float64()),
        ("male_probability", pa.float64()),
        *[(name, pa.float64()) for name in BY_SEX],
        ("chronological_age_months", pa.float64()),
        ("sds", pa.float64()),
        ("status", pa.string()),
        ("norms", pa.string()),
        ("distribution", pa.list_(pa.float32())),
        ("findings", pa.string()),
        ("warnings", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("version", pa.string()),
        ("profile", pa.string()),
    ]
)
"""One row an input: ``predicted_months`` and what belongs to it, or a ``reason``; never both, never neither.

Where the sex is unknown the answer is a mixture, beside the probability of a boy and both answers that it is made of,
``if_female_months``, ``if_female_low_80``, ... Where the chronological age is given, ``sds`` and ``status`` say by
``norms`` where the answer lies beside it (`ensemble.chronology`); null of an unknown sex and beyond the norms' ages."""


class PartsError(ValueError):
    """The parts there belong to another run, or do not make a whole."""


class Parts:
    """The unfinished table beside its final place: on this machine, a shared disk or an object store."""

    def __init__(self, out: AnyPath, plan: dict[str, Any]) -> None:
        """Begin, or go on where an earlier run of the same plan stopped.

        Args:
            out: The table's final place.
            plan: What is scored by what, as JSON values.

        Raises:
            PartsError: The parts there are of another plan.
        """
        self.out = out
        self.folder = out.with_name(f".{out.name}.parts")
        if is_local(out):
            self.folder.mkdir(parents=True, exist_ok=True)
        place, plan = self.folder / "plan.json", plan | {"columns": SCHEMA.names}  # parts of another release lack some
        if place.exists() and (found := read_json(place)) != plan:
            other = ", ".join(sorted(key for key in {*plan, *found} if plan.get(key) != found.get(key)))
            raise PartsError(
                f"{self.folder} holds parts of another run (its {other} differs). Remove it to begin anew, or name "
                "another output."
            )
        write_json(place, plan)

    def missing(self, total: int) -> list[tuple[int, int]]:
        """Ranges of inputs that have no row yet, in order."""
        gaps, at = [], 0
        for start, stop, _ in self._finished():
            if start > at:
                gaps.append((at, start))
            at = max(at, stop)
        return [*gaps, (at, total)] if at < total else gaps

    def finish(self, total: int) -> dict[str, int]:
        """Make one table of all parts, a part at a time, and count its rows by reason; the empty one are answers.

        Raises:
            PartsError: An input has no row.
        """
        if gaps := self.missing(total):
            raise PartsError(f"{self.folder}: inputs {gaps[0][0]} to {gaps[0][1] - 1} have no row. Run it again.")
        counts: dict[str, int] = {}
        with tempfile.TemporaryDirectory(dir=self.folder if is_local(self.out) else None) as name:
            whole = Path(name) / "whole.parquet"
            with pq.ParquetWriter(whole, SCHEMA, compression="zstd") as writer:
                at = 0
                for start, stop, place in self._finished():
                    if stop <= at:
                        continue
                    table = pq.read_table(io.BytesIO(place.read_bytes())).slice(at - start)
                    for reason in table["reason"].to_pylist():
                        counts[reason or ""] = counts.get(reason or "", 0) + 1
                    writer.write_table(table)
                    at = stop
            if is_local(self.out):
                whole.replace(self.out)
            else:
                remote(self.out).fs.put_file(str(whole), remote(self.out).path)
        if is_local(self.folder):
            shutil.rmtree(self.folder)
        else:
            remote(self.folder).fs.rm(remote(self.folder).path, recursive=True)
        return counts

    def _finished(self) -> Iterator[tuple[int, int, AnyPath]]:
        if not is_local(self.folder):
            remote(self.folder).fs.invalidate_cache()  # a listing may be remembered from before the others wrote
        for place in sorted(self.folder.iterdir()):
            if match := _PART.fullmatch(place.name):
                yield int(match[1]), int(match[2]), place


def write_part(folder: AnyPath, start: int, rows: list[dict[str, Any]]) -> None:
    """Write the rows of the inputs from `start` on; visible when all of them are written."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer, compression="zstd")
    write_atomic(folder / f"{start:09d}-{start + len(rows):09d}.parquet", buffer.getvalue())
