"""The cohort: every case with its fold and its prepared pixels, in one self-describing folder.

cohort/cases.parquet           one row a case
cohort/pixels.npy              (N, V, S, S) uint8, one picture a view; row i belongs to row i of the table
cohort/quality.parquet         one row a case and finding: what was repaired, and what to be wary of
cohort/rejected.csv            what could not be used, and why
cohort/notes.csv               what was used all the same, and what is odd about it
cohort/segmenter.safetensors   the weights that found the hand, where the recipe names any
cohort/cohort.json             recipe, counts and hashes; written last

Shape letters: N cases, V views, S side of the model input.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from preprocessing.quality import Finding
from preprocessing.recipe import SEGMENTER, Recipe, check_weights
from preprocessing.source import problem_table
from preprocessing.storage import (
    AnyPath,
    StorageError,
    as_path,
    canonical_hash,
    fetch,
    read_json,
    sha256_file,
)

MARKER = "cohort.json"
FORMAT = "carpal-cohort-3"
"""Says that the hash covers every column of the cases; cohorts of a format before are read, too."""
_FORMATS_BEFORE = ("", "carpal-cohort-1", "carpal-cohort-2")
_COLUMNS_BEFORE = ["case_id", "is_male", "bone_age_months", "fold", "is_test"]
"""What their hash covers."""
FILES = ("cases.parquet", "pixels.npy", "quality.parquet", "rejected.csv", "notes.csv", SEGMENTER, MARKER)
"""Names of all that a cohort may hold."""


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort, opened for reading; the pixels stay on disk until they are touched."""

    cases: pd.DataFrame
    """The columns of `preprocessing.source.Source.cases`, fold (-1: locked test) and is_test; sorted by case_id."""
    pixels: np.memmap
    """``(N, V, S, S)`` uint8; `view` gives the pictures of one view."""
    recipe: Recipe
    hash: str
    """64 hex digits of the cases with all that is known of them, their folds, the pixels and the recipe."""
    num_folds: int
    source: str
    """The labelled folder that the cohort was prepared from."""
    quality: pd.DataFrame
    """case_id, and the fields of a `Finding`; one row a case and finding."""
    segmenter: Path | None = None
    """Weights that found the hand, local; None where the recipe names none."""
    num_refused: int | None = None
    """Labelled pictures that a service would refuse, too; None where it was prepared before they were counted."""
    format: str = FORMAT
    """Says what the hash covers; empty where the cohort does not tell."""

    @classmethod
    def load(cls, path: str | Path | AnyPath) -> "Cohort":
        """Open a cohort, local or remote (then copied to this machine once).

        Raises:
            StorageError: No complete cohort is there, a file is cut short, the files do not belong together, or another
                release made it.
        """
        folder = fetch(as_path(path), MARKER)
        about = read_json(folder / MARKER)
        format = about.get("format", "")
        if format not in (FORMAT, *_FORMATS_BEFORE):
            raise StorageError(
                f"{folder} has the format {format!r} and was made by another release; this one reads up to {FORMAT}. "
                "Use that one, or prepare it again."
            )
        with _whole(folder / "cases.parquet") as file:
            cases = pd.read_parquet(file)
        with _whole(folder / "pixels.npy") as file:
            pixels = np.load(file, mmap_mode="r")
        if len(cases) != len(pixels) or len(cases) != about["num_cases"]:
            raise StorageError(
                f"{folder} holds {len(cases)} cases, {len(pixels)} pictures and promises {about['num_cases']}. "
                "Prepare it again."
            )
        recipe = Recipe.from_dict(about["recipe"])
        if pixels.shape[1:] != (len(recipe.views), recipe.size, recipe.size):
            raise StorageError(
                f"{folder}: pictures of {pixels.shape[1:]} are not what its recipe makes. Prepare it again."
            )
        segmenter = folder / SEGMENTER if recipe.segmenter else None
        with _whole(folder / "quality.parquet") as file:
            quality = pd.read_parquet(file)
        return cls(
            cases,
            pixels,
            recipe,
            hash=about["hash"],
            num_folds=about["num_folds"],
            source=about["source"],
            quality=quality,
            segmenter=segmenter,
            num_refused=about.get("num_refused"),
            format=format,
        )

    def verify(self) -> None:
        """Check every byte against the cohort's hash, at the start of what relies on its folds and its locked test.

        Raises:
            StorageError: Cases, folds, pixels or the segmenter were changed since it was prepared.
        """
        check_weights(self.recipe, self.segmenter)
        found = cohort_hash(self.cases, Path(str(self.pixels.filename)), self.recipe, format=self.format)
        if found != self.hash:
            raise StorageError(
                f"The cohort's content hash must be {self.hash[:12]}..., got {found[:12]}...: its cases, folds or "
                "pixels were changed after it was prepared. Restore it, or prepare it again."
            )

    def view(self, name: str) -> np.ndarray:
        """The pictures of one view, ``(N, S, S)`` uint8, still on disk.

        Raises:
            StorageError: The cohort has no such view.
        """
        if name not in self.recipe.views:
            raise StorageError(
                f"The cohort has the views {', '.join(self.recipe.views)}, not {name!r}. Prepare one that has it."
            )
        return self.pixels[:, self.recipe.views.index(name)]

    def notes(self) -> pd.DataFrame:
        """As `preprocessing.source.Source.notes` had them when it was prepared; empty where they were not kept."""
        path = Path(str(self.pixels.filename)).parent / "notes.csv"
        return pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else problem_table([])

    def findings(self) -> dict[str, tuple[Finding, ...]]:
        """What was noticed about cases, by case id; the others are not in it."""
        found: dict[str, tuple[Finding, ...]] = {}
        findings = self.quality.drop(columns="case_id").itertuples(index=False, name=None)
        for case_id, values in zip(self.quality["case_id"], findings, strict=True):
            found[case_id] = (*found.get(case_id, ()), Finding(*values))
        return found

    def train_rows(self, fold: int | None) -> np.ndarray:
        """Row numbers that a model of `fold` may learn from: neither its own fold nor the locked test.

        None leaves no fold out: every case outside the locked test.
        """
        is_other = True if fold is None else self.cases["fold"] != fold
        return np.flatnonzero(is_other & ~self.cases["is_test"])

    def fold_rows(self, fold: int) -> np.ndarray:
        """Row numbers of `fold`, which its model predicts."""
        return np.flatnonzero(self.cases["fold"] == fold)

    def test_rows(self) -> np.ndarray:
        """Row numbers of the locked test split. Search and selection never call this."""
        return np.flatnonzero(self.cases["is_test"])


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """Read a file of the cohort in here: NumPy and Arrow each say in a way of their own that it is cut short."""
    try:
        yield file
    except (ValueError, EOFError) as error:
        raise StorageError(f"{file} must be whole, and is not ({error}). Restore it, or prepare it again.") from None


def quality_table(findings: Iterable[tuple[str, Finding]]) -> pd.DataFrame:
    """Case ids with what was noticed about them, as the table that `Cohort.quality` holds."""
    rows = [{"case_id": case_id, **asdict(finding)} for case_id, finding in findings]
    types = {"case_id": str} | {field.name: field.type for field in fields(Finding)}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def cohort_hash(cases: pd.DataFrame, pixels_file: Path, recipe: Recipe, *, format: str = FORMAT) -> str:
    """Content hash: the same cases, folds, pixels and recipe give the same 64 hex digits on any machine.

    Args:
        cases: As a reader of ``cases.parquet`` finds them. Where their pictures lay, and the order of the columns, do
            not count.
        pixels_file: ``pixels.npy``.
        recipe: What made it.
        format: Of the cohort.
    """
    columns = list(cases.columns.difference(["file"])) if format == FORMAT else _COLUMNS_BEFORE
    content: dict[str, Any] = {
        "cases": cases[columns].to_csv(index=False),
        "pixels": sha256_file(pixels_file),
        "recipe": recipe.hash,
    }
    return canonical_hash(content)
