"""Prepare a cohort: standardise every picture, draw test split and folds once, write the folder."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from preprocessing.cohort import MARKER, cohort_hash, quality_table
from preprocessing.folds import assign, check_split, near_duplicate_groups
from preprocessing.radiograph import RadiographError
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.sources import Source, problem, problem_table
from preprocessing.standardize import Reader, Reading
from preprocessing.storage import AnyPath, as_path, is_local, remote, write_json

CHUNK = 32
"""Files a task: large enough that handing it over costs little, small enough that progress moves."""

ChunkResult = list[Reading | RadiographError]
ChunkMap = Callable[[Callable[[list[str]], ChunkResult], list[list[str]]], Iterator[ChunkResult]]


class PrepareError(ValueError):
    """The cohort cannot be written as asked."""


def read_chunk(files: list[str], *, folder: AnyPath, reader: Reader) -> ChunkResult:
    """Standardise some files of a folder.

    Returns:
        For each file its reading, or the error that says why there is none.
    """
    results: ChunkResult = []
    for file in files:
        try:
            results.append(reader.read((folder / file).read_bytes()))
        except RadiographError as error:
            results.append(error)
        except OSError as error:
            results.append(RadiographError("unreadable", f"The file cannot be opened ({type(error).__name__})."))
    return results


def thread_map(function: Callable[[list[str]], ChunkResult], chunks: list[list[str]]) -> Iterator[ChunkResult]:
    """Run chunks on all cores of this machine, results in order; decoding and resizing release the lock."""
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(function, chunks)


def prepare(
    source: Source,
    out: str | Path | AnyPath,
    recipe: Recipe,
    *,
    num_folds: int,
    test_fraction: float,
    seed: int,
    progress: Callable[[int], None],
    chunk_map: ChunkMap = thread_map,
    weights: Path | None = None,
) -> pd.DataFrame:
    """Write a cohort folder; the result does not depend on how the chunks were run.

    Args:
        source: The labelled folder.
        out: Where the cohort goes: a new or empty folder, local or remote.
        recipe: How pictures are standardised.
        num_folds: Folds of the cross-validation.
        test_fraction: Share of the cases that is locked away.
        seed: Of the split.
        progress: Called with the number of files done.
        chunk_map: Runs `read_chunk` over lists of files: threads here, or Ray tasks.
        weights: The segmenter that the recipe names, if it names one.

    Returns:
        The table of rejected rows and files, also written as ``rejected.csv``.

    Raises:
        PrepareError: `out` is not empty, or no picture can be used.
        StorageError: `weights` are not those that the recipe names.
    """
    target = as_path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PrepareError(f"{target} exists and is not empty. Name a new folder; a cohort is never overwritten.")
    check_split(len(source.cases), num_folds, test_fraction)
    reader = Reader(recipe, weights)
    staging = _staging_folder(target)
    try:
        rejected = _write(source, staging, reader, num_folds, test_fraction, seed, progress, chunk_map)
        _publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return rejected


def _staging_folder(target: AnyPath) -> Path:
    if not is_local(target):
        return Path(tempfile.mkdtemp(prefix="carpal-cohort-"))
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))


def _write(
    source: Source,
    folder: Path,
    reader: Reader,
    num_folds: int,
    test_fraction: float,
    seed: int,
    progress: Callable[[int], None],
    chunk_map: ChunkMap,
) -> pd.DataFrame:
    recipe = reader.recipe
    files, case_ids = source.cases["file"].tolist(), source.cases["case_id"].tolist()
    sexes, paths = source.cases["sex"].tolist(), source.paths
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    # Accepted pictures are written one behind the other and the file is cut to their number at the end,
    # so that memory does not grow with the cohort.
    raw = folder / "pixels.raw"
    kept: list[int] = []
    problems, noticed = [], []
    with raw.open("wb") as sink:
        row = 0
        for results in chunk_map(partial(read_chunk, folder=source.folder, reader=reader), chunks):
            for result in results:
                if isinstance(result, RadiographError):
                    problems.append(problem(case_ids[row], files[row], result.code, str(result)))
                else:
                    sink.write(result.pixels.tobytes())
                    kept.append(row)
                    noticed += [(case_ids[row], finding) for finding in result.warnings(sex=sexes[row])]
                row += 1
            progress(row)
    rejected = pd.concat([source.problems, problem_table(problems)], ignore_index=True)
    if not kept:
        raise PrepareError(
            f"None of the {len(files)} labelled pictures of {source.folder} can be used; first reason: "
            f"{rejected['detail'].iloc[0] if len(rejected) else 'the CSV has no row'}"
        )
    cases = source.cases.iloc[kept].reset_index(drop=True)
    shape = (len(kept), len(recipe.views), recipe.size, recipe.size)
    pixels = np.memmap(raw, np.uint8, "r", shape=shape)
    fold, is_test = assign(
        cases, near_duplicate_groups(pixels[:, 0]), num_folds=num_folds, test_fraction=test_fraction, seed=seed
    )
    cases = cases.assign(fold=fold, is_test=is_test)
    np.save(folder / "pixels.npy", pixels)
    del pixels
    raw.unlink()
    cases.to_parquet(folder / "cases.parquet", index=False)
    rejected.to_csv(folder / "rejected.csv", index=False)
    quality_table(noticed).to_parquet(folder / "quality.parquet", index=False)
    if reader.weights:
        shutil.copyfile(reader.weights, folder / SEGMENTER)
    source.notes.to_csv(folder / "notes.csv", index=False)
    about = {
        "format": "carpal-cohort-2",
        "hash": cohort_hash(cases, folder / "pixels.npy", recipe),
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "source": str(source.folder),
        "num_cases": len(cases),
        "num_rejected": len(rejected),
        "num_folds": num_folds,
        "test_fraction": test_fraction,
        "seed": seed,
    }
    write_json(folder / MARKER, about)
    return rejected


def _publish(staging: Path, target: AnyPath) -> None:
    """Make the finished folder visible: at once when local, marker last otherwise."""
    if is_local(target):
        staging.chmod(0o755)
        if target.exists():
            target.rmdir()  # empty, checked before; a file that came in the meantime makes this fail
        staging.rename(target)
        return
    for name in sorted((path.name for path in staging.iterdir()), key=lambda name: name == MARKER):
        there = remote(target / name)
        there.fs.put_file(str(staging / name), there.path)
