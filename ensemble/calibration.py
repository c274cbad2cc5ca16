"""What turns the mixture of the members into a calibrated answer: corrections of the months, then intervals.

The bundle's manifest holds it under ``calibration``, and that of its fast profile in the profile's own entry, since
one member errs otherwise than all: by the ensemble's 90 % intervals, the fast member of 956 radiographs out of fold
was held in 73 % of cases, by its own in 91 %. Each is ::

    intervals   `ensemble.conformal.Intervals`; how often those of single fold models held out of fold; and as
                ``served`` how far these stray from their mean (`ensemble.ambiguity`), null where that is not known
    bias        `ensemble.correction.Correction` fitted on the out-of-fold predictions, or null: nested validation
                showed no gain
    site        the same for one site, fitted on its own labelled radiographs (`ensemble.site`), or null
    sex         how far a picture tells the sex (`ensemble.sex`)

Shape letters: C cases, B batch, M monthly bins, L levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble import conformal, correction, width
from ensemble.ambiguity import FoldAnswers
from ensemble.conformal import LEVELS, Intervals
from ensemble.correction import NO_CORRECTION, Correction
from ensemble.coverage import coverage
from ensemble.sex import SexReading
from search.months import BIN_MONTHS


class CalibrationError(ValueError):
    """The calibration says something that this release does not know."""


KEYS = {"intervals", "bias", "site", "sex"}
_MEASURED = {"out_of_fold", "served"}
"""Of the intervals, what was measured and is not applied."""
_SITE_KEYS = {"correction", "name", "parent", "evidence"}


@dataclass(frozen=True)
class Calibration:
    """The parsed form."""

    intervals: Intervals
    corrections: tuple[Correction, ...]
    """In the order in which they apply: bias, then site."""
    sex: SexReading

    def corrected(
        self, distribution_BM: np.ndarray, months_B: np.ndarray, is_male_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distributions ``(B, 240)`` and months ``(B,)``, their means, after all corrections."""
        for step in self.corrections:
            months_B = step.months(months_B, is_male_B)
            distribution_BM = _moved(step, distribution_BM, months_B, is_male_B)
        return distribution_BM, months_B

    def intervals_of(self, months_B: np.ndarray, sd_B: np.ndarray, is_male_B: np.ndarray) -> np.ndarray:
        """``(B, 3, 2)`` months, low and high for each of `LEVELS`, of corrected answers; `sd_B` as out of fold."""
        return self.intervals.of(months_B, sd_B, is_male_B)


def _moved(step: Correction, distribution_BM: np.ndarray, months_B: np.ndarray, is_male_B: np.ndarray) -> np.ndarray:
    moved_BM = np.empty(distribution_BM.shape)
    for is_male in (False, True):
        of_sex_B = is_male_B == is_male
        moved_BM[of_sex_B] = step.distribution(distribution_BM[of_sex_B], months_B[of_sex_B], is_male)
    return moved_BM


def of_profile(manifest: Mapping[str, Any], profile: str) -> dict[str, Any] | None:
    """What a manifest holds of a profile; None where nothing was fitted to it.

    A bundle from before fast profiles had calibrations answers ``fast`` without an interval: the ensemble's would be
    too narrow.
    """
    found: dict[str, Any] | None = (
        manifest["calibration"] if profile == "full" else manifest["profiles"][profile].get("calibration")
    )
    return found


def variance(distribution_BM: np.ndarray) -> np.ndarray:
    """Of each distribution, ``(..., 240)`` to ``(...)``, in months squared."""
    grid_M = BIN_MONTHS.astype(np.float64)
    return np.maximum(distribution_BM @ grid_M**2 - (distribution_BM @ grid_M) ** 2, 0)


def fit(oof: Mapping[str, np.ndarray], fold_answers: FoldAnswers | None = None) -> dict[str, Any]:
    """Calibrate what the served ensemble says out of fold.

    Args:
        oof: ``case_id`` (C,), ``actual_C`` and ``months_C`` in months, ``is_male_C`` bool, ``fold_C`` int and
            ``distribution_CM`` (C, 240), the mixture; and ``male_probability_C`` where a member guesses the sex, NaN
            where it cannot.
        fold_answers: Of the fold models whose mean is served, on pictures that none has seen. None: not known, or one
            model is served; then intervals are those of one model, which hold a mean a little too often.

    Returns:
        JSON values, as the manifest holds them; `parse` reads them.

    Raises:
        ValueError: No case, shapes that do not fit, or a number that is not finite.
    """
    actual_C, months_C = np.asarray(oof["actual_C"], float), np.asarray(oof["months_C"], float)
    is_male_C, fold_C = np.asarray(oof["is_male_C"], bool), np.asarray(oof["fold_C"], int)
    distribution_CM = np.asarray(oof["distribution_CM"], float)
    if {len(actual_C)} != {len(values) for values in (months_C, is_male_C, fold_C, distribution_CM)}:
        raise ValueError("Every column of the out-of-fold predictions needs one row a case.")
    trial = correction.nested(actual_C, months_C, is_male_C, fold_C)
    months_C = trial.answered(months_C)
    sd_C = np.sqrt(variance(distribution_CM))  # before any correction, as the predictor gives it
    applied = trial.correction if trial.helps else NO_CORRECTION
    served = None if fold_answers is None else _served(fold_answers, applied)
    ambiguity = served["ambiguity_months2"] if served else 0.0
    rule, crossed_CL2 = conformal.fit(actual_C, months_C, sd_C, is_male_C, fold_C, ambiguity=ambiguity)
    if trial.helps:  # the distribution moves as the answer does
        distribution_CM = _moved(trial.correction, distribution_CM, months_C, is_male_C)
    drawn = width.measured(distribution_CM, months_C, crossed_CL2, actual_C)
    found = coverage(actual_C, crossed_CL2, is_male_C) | {"distribution": drawn}
    return {
        "intervals": rule.to_dict() | {"out_of_fold": found, "served": served},
        "bias": {"correction": trial.correction.to_dict() if trial.helps else None, "evidence": trial.evidence()},
        "site": None,
        "sex": SexReading.fit(is_male_C, oof.get("male_probability_C")).to_dict(),
    }


def _served(fold_answers: FoldAnswers, correction: Correction) -> dict[str, Any]:
    """What is known of the mean of fold models that is served, as a manifest holds it."""
    return {
        "ambiguity_months2": fold_answers.ambiguity(correction.months),
        "pictures": len(fold_answers.is_male_N),
    }


def parse(value: Any) -> Calibration | None:
    """Check and read what a manifest holds; None where nothing was fitted.

    Raises:
        CalibrationError: A key is unknown or missing, or a value cannot be used.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != KEYS:
        found = sorted(value) if isinstance(value, dict) else value
        raise CalibrationError(f"A calibration is null or has exactly the keys {sorted(KEYS)}, got {found}.")
    try:
        return _parse(value)
    except ValueError as error:
        raise CalibrationError(f"The calibration cannot be used: {error}") from None


def _parse(value: dict[str, Any]) -> Calibration:
    corrections = []
    bias, site = value["bias"], value["site"]
    if bias is not None:
        _check_keys("bias", bias, {"correction", "evidence"})
        if bias["correction"] is not None:
            corrections.append(Correction.from_dict(bias["correction"]))
    if site is not None:
        _check_keys("site", site, _SITE_KEYS)
        corrections.append(Correction.from_dict(site["correction"]))
    intervals = value["intervals"]
    if not isinstance(intervals, dict):
        raise ValueError(f"The intervals of a calibration must be an object, got {intervals!r}.")
    rule = Intervals.from_dict({name: item for name, item in intervals.items() if name not in _MEASURED})
    return Calibration(rule, tuple(corrections), SexReading.from_dict(value["sex"]))


def levels_by_name(intervals_L2: np.ndarray) -> dict[int, tuple[float, float]]:
    """One case's ``(3, 2)`` intervals by their level in percent."""
    return {level: (float(low), float(high)) for level, (low, high) in zip(LEVELS, intervals_L2, strict=True)}


def _check_keys(name: str, value: Any, keys: set[str]) -> None:
    if not isinstance(value, dict) or set(value) != keys:
        raise ValueError(f"The {name} of a calibration has exactly the keys {sorted(keys)}, got {value!r:.200}.")
