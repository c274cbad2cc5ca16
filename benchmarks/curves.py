"""Learning curves for benchmarks of the search itself: drawn from a random model, or read from a study's records."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from preprocessing.storage import as_path
from search.progress import read_measurements, share_done
from search.screen import read_screen
from search.space import TrialConfig
from search.train import MEASURE_AT
from search.trial import all_outcomes, read_fold, read_study, trial_folder


@dataclass(frozen=True)
class FoldCurve:
    """One fold of one trial, trained to its end."""

    shares: tuple[float, ...]
    """Of the training, ascending; the last is 1."""
    mae_months: tuple[float, ...]
    """Measured there."""
    seconds: float
    """That the whole fold trains."""


@dataclass(frozen=True)
class TrialCurves:
    """All folds of one trial, also those that a search would not train."""

    folds: tuple[FoldCurve, ...]
    screen_months: float | None = None
    """Measured by the short training of fold 0 (see search/screen.py); None: there is none."""
    fails_in: int | None = None
    """Fold in whose beginning its loss becomes infinite; None: it does not fail."""


CurvesOf = Callable[[int, TrialConfig], TrialCurves]
"""From a trial's number and configuration to what it will measure."""

START_MONTHS = 33.0
"""Error of the median predictor, where every curve begins."""
FOLD_SECONDS = 180.0
"""Median of a fold: what `search.spaces.cpu` states for one core."""


def drawn(num_folds: int, seed: int) -> CurvesOf:
    """Curves from a random model, the same for a trial's number whoever asks.

    A trial's level is 9 months + Gamma(2, 1) + 2 (log10(learning rate / 3e-3))^2, so that the sampler has something to
    learn. A fold's final error is the level + a fold's own difficulty N(0, 0.4) + seed noise N(0, 0.5). The way there
    falls from `START_MONTHS` as exp(-r s), s the share of the training and r uniform in 3..6, with noise N(0, 1) at
    every measurement but the last, which alone sees all cases of the fold. The short training ends 4 months above fold
    0 with noise N(0, 1.6): a rank correlation of 0.7, as measured (search/screen.py). A trial's folds take a log-normal
    time with median `FOLD_SECONDS` and sigma 0.4, the same for each of them. Two trials in a hundred fail. The figures
    are chosen near those of small networks on a thousand radiographs, not fitted.
    """
    difficulty = np.random.default_rng([seed, 1]).normal(0, 0.4, num_folds)

    def curves_of(number: int, config: TrialConfig) -> TrialCurves:
        rng = np.random.default_rng([seed, 2, number])
        level = 9 + rng.gamma(2, 1) + 2 * np.log10(config.learning_rate / 3e-3) ** 2
        rate, seconds = rng.uniform(3, 6), FOLD_SECONDS * rng.lognormal(0, 0.4)
        fails_in = int(rng.integers(num_folds)) if rng.random() < 0.02 else None
        share = np.array(MEASURE_AT)
        way = (np.exp(-rate * share) - np.exp(-rate)) / (1 - np.exp(-rate))
        folds = []
        for fold in range(num_folds):
            final = max(1.0, level + difficulty[fold] + rng.normal(0, 0.5))
            mae = final + (START_MONTHS - final) * way + rng.normal(0, 1, len(share)) * (share < 1)
            folds.append(FoldCurve(MEASURE_AT, tuple(mae.tolist()), float(seconds)))
        return TrialCurves(tuple(folds), folds[0].mae_months[-1] + 4 + rng.normal(0, 1.6), fails_in)

    return curves_of


def recorded(study: str, seed: int) -> CurvesOf:
    """Curves of a real study; each simulated trial takes those of a recorded one, drawn with replacement.

    What a recorded trial was stopped before is filled in: an unfinished fold ends, and a missing fold passes, with the
    last error that was measured, that of the short training where no fold was begun. A trial without a short training
    takes the error of its fold 0 for it. A fold without a recorded time takes the mean of those that have one. Trials
    that the short training stopped count like all others, for with good ones alone a race would have nothing to stop.

    Raises:
        ValueError: The study has no finished fold.
    """
    folder, num_folds = as_path(study), read_study(study)["num_folds"]
    known: list[float] = []
    found: list[tuple[float, list[tuple[tuple[float, ...], tuple[float, ...], float | None]]]] = []
    for outcome in all_outcomes(folder):
        of_trial, config = trial_folder(folder, outcome["number"]), TrialConfig.from_dict(outcome["config"])
        folds: list[tuple[tuple[float, ...], tuple[float, ...], float | None]] = []
        for fold in range(num_folds):
            if not (points := read_measurements(of_trial, fold)):
                break
            shares = [share_done(config, point.epoch, point.images_seen) for point in points]
            maes = [point.mae_months for point in points]
            record = read_fold(of_trial, fold)
            seconds = record["run"]["seconds"] if record and "run" in record else None
            known += [] if seconds is None else [seconds]
            if record:
                shares[-1] = 1.0  # whole batches may end a little before the bound
            missing = [share for share in MEASURE_AT if share > shares[-1] + 1e-9]
            folds.append(((*shares, *missing), (*maes, *([maes[-1]] * len(missing))), seconds))
        screen = read_screen(of_trial)
        ends = [*([screen.mae_months] if screen else []), *(maes[-1] for _, maes, _ in folds)]
        if ends:
            folds += [(MEASURE_AT, (ends[-1],) * len(MEASURE_AT), None)] * (num_folds - len(folds))
            found.append((ends[0], folds))
    if not known:
        raise ValueError(f"{study} has no finished fold whose time is recorded. Let a trial finish one first.")
    mean = sum(known) / len(known)
    trials = [
        TrialCurves(
            tuple(FoldCurve(shares, maes, mean if time is None else time) for shares, maes, time in folds), screen
        )
        for screen, folds in found
    ]
    return lambda number, config: trials[int(np.random.default_rng([seed, number]).integers(len(trials)))]
