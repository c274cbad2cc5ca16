"""Prepare a cohort: standardise every picture, draw test split and folds once, write the folder.

It may be interrupted at any time, by ``kill -9`` too: repeated with the same source and recipe, it goes on.
"""

import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from preprocessing.cohort import FILES, FORMAT, MARKER, cohort_hash, quality_table
from preprocessing.duplicates import MAX_DISTANCE, Grouping, group_cases
from preprocessing.folds import assign, check_split
from preprocessing.limits import read_limited
from preprocessing.quality import Finding
from preprocessing.radiograph import RadiographError
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.sources import Source, problem, problem_table
from preprocessing.staging import PIXELS, Chunk, PrepareError, Staging, open_staging
from preprocessing.standardize import Reader, Reading
from preprocessing.storage import AnyPath, as_path, is_local, write_json

CHUNK = 32
"""Files a task: large enough that handing it over costs little, small enough that progress moves."""

NEAR_DUPLICATE = "near_duplicate"
"""Code of the finding that tells of a cohort, not of a picture."""

ChunkResult = list[Reading | RadiographError]
ChunkMap = Callable[[Callable[[list[str]], ChunkResult], list[list[str]]], Iterator[ChunkResult]]


def read_chunk(files: list[str], *, folder: AnyPath, reader: Reader) -> ChunkResult:
    """Standardise some files of a folder.

    Returns:
        For each file its reading, or the error that says why there is none.
    """
    results: ChunkResult = []
    for file in files:
        try:
            results.append(reader.read(read_limited(folder / file)))
        except RadiographError as error:
            results.append(error)
        except OSError as error:
            results.append(RadiographError("unreadable", f"The file cannot be opened ({type(error).__name__})."))
    return results


def thread_map(
    function: Callable[[list[str]], ChunkResult], chunks: list[list[str]], *, num_workers: int | None = None
) -> Iterator[ChunkResult]:
    """Run chunks on the cores of this machine, results in order; decoding, resizing and networks release the lock.

    A few chunks a core are under way, so that finished pixels do not pile up in memory.

    Args:
        function: What to run.
        chunks: Its arguments.
        num_workers: Threads; None takes one a core that this process may use.
    """
    num_workers = num_workers or num_cores()
    waiting: deque[Future[ChunkResult]] = deque()
    pool = ThreadPoolExecutor(num_workers, "prepare", initializer=single_thread)
    try:
        for chunk in chunks:
            waiting.append(pool.submit(function, chunk))
            if len(waiting) >= 3 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def single_thread() -> None:
    """Keep OpenCV and torch from dividing a picture among threads, where each thread has a picture of its own."""
    cv2.setNumThreads(1)
    if torch := sys.modules.get("torch"):  # loaded only where a recipe needs a network
        torch.set_num_threads(1)


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
    """Write a cohort folder; the result does not depend on how the chunks were run, nor on interruptions.

    Args:
        source: The labelled folder. Cases that have the same word in its column ``patient`` stay together.
        out: Where the cohort goes: a new or empty folder, local or remote; or a remote one whose upload was cut short.
        recipe: How pictures are standardised.
        num_folds: Folds of the cross-validation.
        test_fraction: Share of the cases that is locked away.
        seed: Of the split.
        progress: Called with the number of files done, at first with that of an interrupted run.
        chunk_map: Runs `read_chunk` over lists of files: threads here, or Ray tasks.
        weights: The segmenter that the recipe names, if it names one.

    Returns:
        The table of rejected rows and files, also written as ``rejected.csv``.

    Raises:
        PrepareError: `out` is not empty, no picture can be used, another process prepares it, or it was begun with
            another source or recipe.
        StorageError: `weights` are not those that the recipe names.
    """
    target = as_path(out)
    if target.exists() and not (target.is_dir() and _is_free(target)):
        raise PrepareError(f"{target} exists and is not empty. Name a new folder; a cohort is never overwritten.")
    check_split(len(source.cases), num_folds, test_fraction)
    reader = Reader(recipe, weights)
    with open_staging(target, source, recipe) as staging:
        _read_all(source, staging, reader, progress, chunk_map)
        staging.finish()
        rejected = _write_tables(source, staging, reader, num_folds, test_fraction, seed)
        staging.publish(target, MARKER)
    return rejected


def _is_free(folder: AnyPath) -> bool:
    """Whether a cohort may be written there: it holds nothing, or what an upload left that was cut short."""
    names = {path.name for path in folder.iterdir()}
    return not names or (not is_local(folder) and MARKER not in names and names <= set(FILES))


def _read_all(
    source: Source, staging: Staging, reader: Reader, progress: Callable[[int], None], chunk_map: ChunkMap
) -> None:
    """Read what an earlier run has not: results come in order, so it is the rest."""
    files, labels = source.paths, stated(source.cases)
    row = sum(chunk.num_files for chunk in staging.chunks)
    progress(row)
    chunks = [files[i : i + CHUNK] for i in range(row, len(files), CHUNK)]
    for results in chunk_map(partial(read_chunk, folder=source.folder, reader=reader), chunks):
        chunk, pictures = Chunk(len(results)), []
        for result in results:
            if isinstance(result, RadiographError):
                chunk.problems.append((row, result.code, str(result)))
            else:
                pictures.append(result.pixels)
                chunk.kept.append(row)
                chunk.hashes.append(result.fingerprint.hex())
                chunk.findings += [(row, asdict(finding)) for finding in result.warnings(**labels[row])]
            row += 1
        staging.append(chunk, pictures)
        progress(row)


def _write_tables(
    source: Source, staging: Staging, reader: Reader, num_folds: int, test_fraction: float, seed: int
) -> pd.DataFrame:
    recipe, folder = reader.recipe, staging.folder
    case_ids, files = source.cases["case_id"].tolist(), source.cases["file"].tolist()
    problems = [
        problem(case_ids[row], files[row], code, detail)
        for chunk in staging.chunks
        for row, code, detail in chunk.problems
    ]
    rejected = pd.concat([source.problems, problem_table(problems)], ignore_index=True)
    kept = [row for chunk in staging.chunks for row in chunk.kept]
    if not kept:
        raise PrepareError(
            f"None of the {len(files)} labelled pictures of {source.folder} can be used; first reason: "
            f"{rejected['detail'].iloc[0] if len(rejected) else 'the CSV has no row'}"
        )
    cases = source.cases.iloc[kept].reset_index(drop=True)
    hashes = [bytes.fromhex(digits) for chunk in staging.chunks for digits in chunk.hashes]
    patients = cases["patient"].tolist() if "patient" in cases else [""] * len(cases)
    grouping = group_cases(hashes, patients)
    fold, is_test = assign(cases, grouping.group, num_folds=num_folds, test_fraction=test_fraction, seed=seed)
    cases = cases.assign(group=grouping.group, fold=fold, is_test=is_test)
    noticed = [(case_ids[row], Finding(**values)) for chunk in staging.chunks for row, values in chunk.findings]
    noticed += _near_duplicates(cases, grouping)
    cases.to_parquet(folder / "cases.parquet", index=False)
    rejected.to_csv(folder / "rejected.csv", index=False)
    quality_table(noticed).to_parquet(folder / "quality.parquet", index=False)
    if reader.weights:
        shutil.copyfile(reader.weights, folder / SEGMENTER)
    source.notes.to_csv(folder / "notes.csv", index=False)
    about = {
        "format": FORMAT,
        "hash": cohort_hash(pd.read_parquet(folder / "cases.parquet"), folder / PIXELS, recipe),
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "source": str(source.folder),
        "num_cases": len(cases),
        "num_groups": int(cases["group"].nunique()),
        "num_rejected": len(rejected),
        "num_refused": len(problems),
        "num_folds": num_folds,
        "test_fraction": test_fraction,
        "seed": seed,
    }
    write_json(folder / MARKER, about)
    return rejected


def stated(cases: pd.DataFrame) -> list[dict[str, Any]]:
    """What the labels say of each child, as `Reading.warnings` compares it with a header; a left hand unless told."""
    ages = cases.get("chronological_age_months", pd.Series(np.nan, cases.index))
    sides = cases.get("side", pd.Series("", cases.index))
    return [
        {"sex": sex, "chronological_age_months": None if np.isnan(age) else float(age), "laterality": side or "left"}
        for sex, age, side in zip(cases["sex"], ages, sides, strict=True)
    ]


def _near_duplicates(cases: pd.DataFrame, grouping: Grouping) -> list[tuple[str, Finding]]:
    """A finding for each case whose picture is nearly that of another one."""
    found = []
    for case_id, group, distance in zip(cases["case_id"], grouping.group, grouping.distance, strict=True):
        if distance <= MAX_DISTANCE:
            sentence = (
                f"Closely resembles the picture of another case ({distance} of 256 bits differ): "
                f"to be safe, all cases of group {group} share a fold."
            )
            found.append((case_id, Finding(NEAR_DUPLICATE, "warned", float(distance), MAX_DISTANCE, sentence)))
    return found
