"""The report of an experiment: difference in error, agreement, subgroups, latency, errors, and the check of the split.

Every figure comes from the ledger alone, with its n. Only ``difference`` may be acted on at any time; the subgroups
have a confidence sequence each, and with ten of them one may be wrong more easily than the whole.

Agreement is that of Bland and Altman ("Statistical methods for assessing agreement between two methods of clinical
measurement", Lancet 1986): mean difference, and the limits within which 95 % of differences lie if they are normal.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from serve import logs
from serve.assignment import ratio
from serve.confidence import Interval, confidence_sequence
from serve.database import Database, LedgerDownError
from serve.differences import ERROR_BOUND_MONTHS, PAIR_BOUND_MONTHS, paired, weighted
from serve.experiment import Experiment
from serve.observations import Observed, Traffic, observe
from serve.readings import Units
from serve.recent import ARMS

BAND_MONTHS = (0, 60, 120, 180, 240)
"""Bounds of the age bands, by the reading: under 5 years, under 10, under 15, and above."""


def report(database: Database, experiment: Experiment) -> dict[str, Any]:
    """Everything that is known about an experiment now, as plain JSON values; None stands where there is no data."""
    return report_of(experiment, observe(database, experiment))


def report_of(experiment: Experiment, observed: Observed) -> dict[str, Any]:
    """`report`, of what was read already."""
    traffic, units = observed.traffic, observed.units
    is_shadow = experiment.mode == "shadow"
    return {
        "experiment": experiment.to_dict(),
        "as_of_s": time.time(),
        "predictions": len(traffic.months_P),
        "subjects_with_reading": len(units),
        "difference": difference(units, is_shadow=is_shadow, alpha=experiment.policy.alpha),
        "arms": {arm: _arm(traffic, units, arm, experiment) for arm in ARMS},
        "recent": observed.recent,
        "agreement": {
            "challenger_champion": bland_altman(traffic.shadow_months_P, traffic.months_P),
            "champion_reading": bland_altman(units.champion_U, units.reference_U),
            "challenger_reading": bland_altman(units.challenger_U, units.reference_U),
        },
        "subgroups": _subgroups(units, is_shadow=is_shadow, alpha=experiment.policy.alpha),
        "ratio": None if is_shadow else ratio(_subjects(traffic)),
    }


def data_of_act(database: Database, definition: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept with a person's act: the report, or why there is none.

    Args:
        database: The ledger's.
        definition: Of the experiment, as it is stored.
    """
    try:
        found = report(database, Experiment.from_dict(definition))
        json.dumps(found, allow_nan=False)  # PostgreSQL would refuse it, and the act with it
        return {"why": "by hand", "report": found}
    except LedgerDownError as error:  # too large to be read in time, say: a rollback must not wait for figures
        return without_report(str(error))
    except Exception as error:  # nor be held up by what is wrong with them
        return without_report(f"{type(error).__name__} at {logs.places(error)[-1]}: it could not be made.")


def without_report(why: str) -> dict[str, Any]:
    """`data_of_act`, where there is no report."""
    return {"why": "by hand", "report": None, "no_report": why}


def difference(units: Units, *, is_shadow: bool, alpha: float) -> dict[str, Any] | None:
    """Mean absolute error of the champion less that of the challenger, months: positive where the challenger is better.

    Returns:
        ``mean_months``, ``lower_months``, ``upper_months`` of the confidence sequence, ``n``, ``clipped`` (units whose
        error counted less than it was) and ``method``; None without a unit.
    """
    z_U, bound_U = paired(units) if is_shadow else weighted(units)
    if not len(z_U):
        return None
    interval: Interval = confidence_sequence(z_U, bound_U, alpha)
    if is_shadow:
        clipped = int((np.abs(z_U) >= PAIR_BOUND_MONTHS).sum())
    else:
        answered_U = np.where(units.is_challenger_U, units.challenger_U, units.champion_U)
        clipped = int((np.abs(answered_U - units.reference_U) > ERROR_BOUND_MONTHS).sum())
    return {
        "mean_months": interval.mean,
        "lower_months": interval.lower,
        "upper_months": interval.upper,
        "n": interval.n,
        "alpha": alpha,
        "clipped": clipped,
        "method": "paired" if is_shadow else "two groups",
    }


def bland_altman(first: np.ndarray, second: np.ndarray) -> dict[str, Any] | None:
    """Mean of first less second, and the limits of agreement; pairs with a NaN are left out, None below two pairs."""
    gap = first - second
    gap = gap[~np.isnan(gap)]
    if len(gap) < 2:
        return None
    mean, sd = float(gap.mean()), float(gap.std(ddof=1))
    return {
        "mean_months": mean,
        "lower_limit_months": mean - 1.96 * sd,
        "upper_limit_months": mean + 1.96 * sd,
        "n": len(gap),
    }


def _arm(traffic: Traffic, units: Units, arm: str, experiment: Experiment) -> dict[str, Any]:
    months_U = units.champion_U if arm == "champion" else units.challenger_U
    counted_U = ~np.isnan(months_U)
    if experiment.mode == "shadow":  # both on the same images, else a missing one looks like a difference
        counted_U = ~np.isnan(units.champion_U) & ~np.isnan(units.challenger_U)
    error = (months_U - units.reference_U)[counted_U]
    latency = _latencies(traffic, arm)
    answered, failed = len(traffic.answered[arm]), len(traffic.failed[arm])
    return {
        "version": getattr(experiment, arm),
        "answered": answered,
        "failed": failed,
        "error_rate": failed / (answered + failed) if answered + failed else None,
        "latency_ms": _percentiles(latency),
        "mae_months": float(np.abs(error).mean()) if len(error) else None,
        "bias_months": float(error.mean()) if len(error) else None,
        "with_reading": len(error),
    }


def _latencies(traffic: Traffic, arm: str) -> np.ndarray:
    """Of every answer of an arm, in the shadow too, in milliseconds, in the order of the predictions."""
    own_P = np.where(traffic.is_challenger_P == (arm == "challenger"), traffic.latency_ms_P, np.nan)
    both_P = np.where(np.isnan(own_P), traffic.shadow_ms_P, own_P) if arm == "challenger" else own_P
    return both_P[~np.isnan(both_P)]


def _percentiles(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    return {f"p{rank}": float(np.percentile(values, rank)) for rank in (50, 95, 99)}


def _subgroups(units: Units, *, is_shadow: bool, alpha: float) -> list[dict[str, Any]]:
    band_U = np.digitize(units.reference_U, BAND_MONTHS[1:-1])
    found = []
    for sex in ("female", "male", *(["unknown"] if "unknown" in units.sex_U else [])):
        for band, (low, high) in enumerate(pairwise(BAND_MONTHS)):
            inside_U = (units.sex_U == sex) & (band_U == band)
            part = Units(*(values_U[inside_U] for values_U in vars(units).values()))
            row = difference(part, is_shadow=is_shadow, alpha=alpha)
            found.append({"sex": sex, "from_months": low, "below_months": high, "difference": row})
    return found


def _subjects(traffic: Traffic) -> Counter[tuple[str, float]]:
    """As `Assignment.subjects`."""
    first_P = traffic.is_first_P
    arms = np.where(traffic.is_challenger_P[first_P], "challenger", "champion").tolist()
    return Counter(zip(arms, traffic.share_P[first_P].tolist(), strict=True))
