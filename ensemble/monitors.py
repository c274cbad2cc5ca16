"""What a bundle's own evidence looked like, in bins, so that a service can tell when its patients or pictures differ.

``evidence/monitors.json`` holds, for each monitor, the edges of its bins (or their words), the share of the cases in
each, and how many cases those are. Ages and intervals are the out-of-fold answers of the cases outside the locked
test. Where the cohort was at hand when the bundle was built, there are their pictures, too, and how many of all the
pictures that were read were refused: rows without a picture, or without a label, are no traffic. Of a bundle that is
calibrated to a site, all of it is that of the site's own cases, as the bundle answers them.

Shape letters: C cases, V views.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ensemble.bundle import Bundle
from ensemble.calibration import Calibration, parse, variance
from ensemble.conformal import LEVELS
from preprocessing.appearance import NAMES
from preprocessing.storage import read_json

MONITORS_FILE = "evidence/monitors.json"
NUM_BINS = 10
"""Deciles of the evidence: the usual choice for a population stability index."""
LEVEL = 90
"""Percent, of the intervals whose width is watched."""


def of_values(values_C: np.ndarray) -> dict[str, Any]:
    """A monitor of numbers, ``(C,)``, with bins at their deciles; fewer where many values are equal."""
    quantiles = np.quantile(values_C, np.linspace(0, 1, NUM_BINS + 1)[1:-1])
    edges = np.unique(quantiles.round(6))  # the same on any machine, as a bundle's version is a hash of it
    counts = np.bincount(np.searchsorted(edges, values_C, side="right"), minlength=len(edges) + 1)
    return {"edges": [float(edge) for edge in edges], "shares": _shares(counts), "num_cases": len(values_C)}


def of_words(counts: Mapping[str, int]) -> dict[str, Any]:
    """A monitor of words."""
    shares = _shares(np.array(list(counts.values())))
    return {"words": list(counts), "shares": shares, "num_cases": sum(counts.values())}


def of_answers(out_of_fold: Mapping[str, np.ndarray], calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Monitors of what the ensemble answers.

    Args:
        out_of_fold: As `ensemble.combination.Combination.out_of_fold` gives it.
        calibration: That was fitted on it, as the manifest holds it.
    """
    months_C, is_male_C = np.asarray(out_of_fold["months_C"], float), np.asarray(out_of_fold["is_male_C"], bool)
    fitted = parse(dict(calibration))
    assert fitted is not None, "a bundle that is built is calibrated"
    sd_C = np.sqrt(variance(np.asarray(out_of_fold["distribution_CM"], float)))
    _, corrected_C = fitted.corrected(np.asarray(out_of_fold["distribution_CM"], float), months_C, is_male_C)
    return of_corrected(corrected_C, sd_C, is_male_C, fitted)


def of_corrected(
    corrected_C: np.ndarray, sd_C: np.ndarray, is_male_C: np.ndarray, fitted: Calibration
) -> dict[str, Any]:
    """As `of_answers`, of months ``(C,)`` after all corrections; `sd_C` as out of fold."""
    low_C, high_C = fitted.intervals_of(corrected_C, sd_C, is_male_C)[:, LEVELS.index(LEVEL)].T
    return {
        "bone_age_months": of_values(corrected_C),
        "interval_months": of_values(high_C - low_C),
        "sex": of_words({"female": int((~is_male_C).sum()), "male": int(is_male_C.sum())}),
    }


def of_pictures(seen: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Monitors of how pictures look, each as `preprocessing.appearance.appearance` measures it."""
    return {name: of_values(np.array([one[name] for one in seen])) for name in NAMES}


def of_outcomes(num_answered: int, num_refused: int) -> dict[str, Any]:
    """The monitor of what becomes of pictures: those that had a reading, and those that the reader refused."""
    return {"outcome": of_words({"answered": num_answered, "refused": num_refused})}


def read_monitors(bundle: Bundle) -> dict[str, Any]:
    """The monitors of a bundle by name; none where it was built before there were any."""
    if MONITORS_FILE not in bundle.manifest["files"]:
        return {}
    monitors: dict[str, Any] = read_json(bundle.file(MONITORS_FILE))["monitors"]
    return monitors


def _shares(counts: np.ndarray) -> list[float]:
    """Never 0, since an index divides by them: half a case is added to each bin, as it will be to what is observed."""
    return [float(share) for share in (counts + 0.5) / (counts.sum() + 0.5 * len(counts))]
