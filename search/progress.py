"""How far a trial has come, as its folder tells it: what the stopping rules judge, before and after a restart.

trials/0007/fold_0.measured.json   measurements of a fold that is not finished, written as they come
"""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from preprocessing.storage import AnyPath, read_json, write_json
from search.fold_files import finished_folds, read_fold
from search.screen import read_screen
from search.space import TrialConfig
from search.train import Measurement
from search.trial import FoldReport

SCREEN = -1
"""Stands for the short training where image passes are counted by fold."""
TOLERANCE = 0.02
"""Shares of a training that differ by no more count as the same: measurements fall on whole batches."""


@dataclass(frozen=True)
class Progress:
    """What is known of one trial."""

    number: int
    curve: tuple[tuple[float, float], ...] = ()
    """Of fold 0: share of the training done, ascending within 0..1, and the error measured there, in months."""
    fold_mae_months: tuple[float, ...] = ()
    """Error of each finished fold."""
    is_complete: bool = False
    """Whether it has ended with all its folds."""
    case_errors: tuple[np.ndarray, ...] = ()
    """For each finished fold ``(N,)`` float64 absolute errors, in months, in the cohort's order; where rules ask."""
    screen_months: float | None = None
    """Error that its short training ended with, in months; None where there was none yet."""

    @property
    def mae_months(self) -> float:
        """Mean over the finished folds, in months; infinite before the first."""
        return float(np.mean(self.fold_mae_months)) if self.fold_mae_months else float("inf")

    def measured_at(self, share: float) -> float | None:
        """Error of fold 0 at a share of its training, in months, between measurements by interpolation.

        Returns:
            None where it has not come so far, or was not measured so early.
        """
        if not self.curve or not self.curve[0][0] - TOLERANCE <= share <= self.curve[-1][0] + TOLERANCE:
            return None
        shares, errors = zip(*self.curve, strict=True)
        return float(np.interp(share, shares, errors))


def share_done(config: TrialConfig, epoch: float, images_seen: int) -> float:
    """Share of a fold's training that is behind it, within 0..1: its end is the bound that it meets first."""
    return min(1.0, max(epoch / config.epochs, images_seen / config.max_images_seen))


def keep_measurement(folder: AnyPath, report: FoldReport) -> None:
    """Put a running fold's measurement on disk, so that it survives whatever stops the trial in mid-fold.

    A fold that is trained again, or from a checkpoint on, replaces what it had measured from there on. A finished
    fold has its measurements in ``fold_k.json`` alone.
    """
    path = folder / f"fold_{report.fold}.measured.json"
    if report.replayed or report.is_screen:
        return
    if report.fold_finished:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return
    earlier = [item for item in _measured(folder, report.fold) if item["images_seen"] < report.measurement.images_seen]
    write_json(path, {"fold": report.fold, "history": [*earlier, asdict(report.measurement)]})


def read_measurements(folder: AnyPath, fold: int) -> list[Measurement]:
    """Measurements of a fold, finished or not, in order; empty where there are none."""
    done = read_fold(folder, fold)
    return [Measurement(**item) for item in (done["history"] if done else _measured(folder, fold))]


def read_progress(
    folder: AnyPath, number: int, config: TrialConfig, num_folds: int, *, with_cases: bool = False
) -> tuple[Progress, dict[int, int]]:
    """Read how far a trial has come.

    Args:
        folder: The trial's folder.
        number: Its number.
        config: Its configuration.
        num_folds: Folds of a complete trial.
        with_cases: Whether to read the errors of single cases too.

    Returns:
        Its progress, and the images that each fold has seen, by fold; those of the short training as fold `SCREEN`.
    """
    maes = maes_in_order(folder, num_folds)
    images = {
        fold: history[-1].images_seen for fold in range(num_folds) if (history := read_measurements(folder, fold))
    }
    screen = read_screen(folder)
    if screen:
        images[SCREEN] = screen.images_seen
    is_complete = False
    if (folder / "outcome.json").exists():
        outcome = read_json(folder / "outcome.json")
        is_complete, maes = outcome["state"] == "complete", tuple(outcome["fold_mae_months"])
    first = read_measurements(folder, 0)
    curve = tuple((share_done(config, item.epoch, item.images_seen), item.mae_months) for item in first)
    errors = tuple(read_case_errors(folder, fold) for fold in range(len(maes))) if with_cases else ()
    return Progress(number, curve, maes, is_complete, errors, screen.mae_months if screen else None), images


def maes_in_order(folder: AnyPath, num_folds: int) -> tuple[float, ...]:
    """Errors of the finished folds up to the first that is not: later ones wait for their turn to be judged."""
    found = finished_folds(folder, num_folds)
    return tuple(found[fold]["mae_months"] for fold in itertools.takewhile(found.__contains__, range(num_folds)))


def read_case_errors(folder: AnyPath, fold: int) -> np.ndarray:
    """``(N,)`` float64 absolute out-of-fold errors of a finished fold, in months, in the cohort's order."""
    with (folder / f"fold_{fold}.parquet").open("rb") as file:
        table = pd.read_parquet(file, columns=["bone_age_months", "predicted_months"])
    return np.abs((table["predicted_months"] - table["bone_age_months"]).to_numpy(np.float64))


def best_complete(trials: Sequence[Progress], count: int) -> list[Progress]:
    """The complete trials with the lowest error, best first, `count` of them or as many as there are."""
    return sorted((trial for trial in trials if trial.is_complete), key=lambda trial: (trial.mae_months, trial.number))[
        :count
    ]


def _measured(folder: AnyPath, fold: int) -> list[dict[str, Any]]:
    path = folder / f"fold_{fold}.measured.json"
    return read_json(path)["history"] if path.exists() else []
