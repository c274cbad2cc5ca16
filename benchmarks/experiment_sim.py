"""Whether a watched experiment tells equals apart, and a better challenger: ``python -m benchmarks.experiment_sim``.

Simulates experiments whose difference is looked at, and acted on, after every single reading, with the statistics that
the service uses (`serve.differences`, `serve.confidence`, the default `Policy`). A/A experiments compare equals: every
decision is false. The others compare a challenger whose mean absolute error is lower by a known gain. An ordinary 95 %
interval (mean ± 1.96 standard errors), watched and acted on in the same way, stands beside it.

Errors are drawn, both arms alike: normal, mean absolute error 6 months, correlation 0.85 between the arms on one image.
``--study`` takes real ones instead: the out-of-fold errors of a study's best and of its median trial, cases drawn with
replacement. Equals are then made by handing the two trials to the arms by a coin for each case, and the gain is what
the two differ by.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from preprocessing.charts import ACCENT, GREY, WARM, empty, plain, png
from preprocessing.storage import as_path
from search.trial import all_outcomes, trial_folder
from serve.confidence import log_capital
from serve.differences import paired, weighted
from serve.experiment import Policy
from serve.readings import Units

MAE_MONTHS = 6.0
CORRELATION = 0.85
Errors = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
"""From a number of cases to the signed errors of the champion and of the challenger, in months."""


def drawn(gain_months: float) -> Errors:
    """Normal errors; the challenger's mean absolute error is lower by the gain."""
    scale = MAE_MONTHS * np.sqrt(np.pi / 2)

    def errors(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        shared, *own = rng.normal(0, scale, (3, count))
        arms = [np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * noise for noise in own]
        return arms[0], arms[1] * (1 - gain_months / MAE_MONTHS)

    return errors


def recorded(study: str, *, equal: bool) -> tuple[Errors, float]:
    """Errors of a study's best and median trial, and the gain between them in months.

    Raises:
        ValueError: The study has fewer than three complete trials.
    """
    tables = {
        outcome["number"]: pd.read_parquet(trial_folder(as_path(study), outcome["number"]) / "oof.parquet")
        for outcome in all_outcomes(study)
        if outcome["state"] == "complete"
    }
    if len(tables) < 3:
        raise ValueError(f"{study} has {len(tables)} complete trials, and three are needed. Search longer.")
    errors = [
        (table["predicted_months"] - table["bone_age_months"]).to_numpy()
        for table in (table.sort_values("case_id") for table in tables.values())
    ]
    ranked = sorted(errors, key=lambda error: float(np.abs(error).mean()))
    best, median = ranked[0], ranked[len(ranked) // 2]

    def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        cases = rng.integers(len(best), size=count)
        swap = rng.random(count) < 0.5 if equal else np.zeros(count, bool)
        return np.where(swap, best[cases], median[cases]), np.where(swap, median[cases], best[cases])

    return draw, 0.0 if equal else float(np.abs(median).mean() - np.abs(best).mean())


def experiment(errors: Errors, mode: str, readings: int, seed: int) -> Units:
    """One simulated experiment, all its readings in order; a canary's share grows twice."""
    rng = np.random.default_rng([seed, readings])
    champion, challenger = errors(rng, readings)
    share = {"shadow": [1.0], "split": [0.5], "canary": [0.05, 0.2, 0.5]}[mode]
    share_U = np.repeat(share, -(-readings // len(share)))[:readings]
    is_challenger_U = (rng.random(readings) < share_U) & (mode != "shadow")
    reference_U = np.full(readings, 120.0)
    hidden = np.nan if mode != "shadow" else 0.0  # each subject of a split shows one arm only
    return Units(
        reference_U,
        reference_U + champion + np.where(is_challenger_U, hidden, 0.0),
        reference_U + challenger + np.where(is_challenger_U, 0.0, hidden),
        is_challenger_U,
        share_U,
        np.full(readings, "male"),
    )


def decided_at(units: Units, mode: str, policy: Policy) -> int:
    """Readings after which the policy's statistics promote or roll back; more than there are: never."""
    z_U, bound_U = paired(units) if mode == "shadow" else weighted(units)
    capital_U = np.maximum(*(log_capital(z_U, bound_U, side=side) for side in (1.0, -1.0)))
    return _first(capital_U > np.log(2 / policy.alpha), policy)


def naively_decided_at(units: Units, mode: str, policy: Policy) -> int:
    """The same for an ordinary 95 % interval that is watched."""
    z_U, _ = paired(units) if mode == "shadow" else weighted(units)
    count_U = np.arange(1, len(z_U) + 1)
    mean_U = np.cumsum(z_U) / count_U
    variance_U = np.maximum(np.cumsum(np.square(z_U)) / count_U - np.square(mean_U), 1e-12)
    return _first(np.abs(mean_U) > 1.96 * np.sqrt(variance_U / count_U), policy)


def _first(is_decided_U: np.ndarray, policy: Policy) -> int:
    found = np.flatnonzero(is_decided_U[policy.min_references - 1 :])
    return int(found[0]) + policy.min_references if len(found) else len(is_decided_U) + 1


def measure(name: str, errors: Errors, gain: float, mode: str, options: argparse.Namespace) -> dict[str, Any]:
    """Decisions of many experiments of one kind."""
    policy = Policy()
    runs = [experiment(errors, mode, options.readings, seed) for seed in range(options.experiments)]
    at = np.array([decided_at(units, mode, policy) for units in runs])
    naive = np.array([naively_decided_at(units, mode, policy) for units in runs])
    share = float((at <= options.readings).mean())
    return {
        "name": name,
        "mode": mode,
        "gain_months": round(gain, 3),
        "decided": share,
        "half_decided_at": int(np.median(at)) if share > 0.5 else None,
        "naive_decided": float((naive <= options.readings).mean()),
        "at": np.sort(at),
        "naive_at": np.sort(naive),
    }


def draw(rows: list[dict[str, Any]], readings: int, path: Path) -> None:
    """Share of experiments decided, against readings: equals on the left, a better challenger on the right."""
    figure = empty(9.6, 3.9)
    for column, equal in enumerate((True, False), 1):
        axes = plain(figure.add_subplot(1, 2, column))
        for row in rows:
            if (row["gain_months"] == 0) is not equal:
                continue
            style = {"shadow": "-", "split": "--", "canary": ":"}[row["mode"]]
            x = np.arange(readings + 1)
            y = np.searchsorted(row["at"], x, side="right") / len(row["at"])
            axes.plot(x, 100 * y, color=ACCENT, linestyle=style, label=row["name"])
            if equal:
                y = np.searchsorted(row["naive_at"], x, side="right") / len(row["naive_at"])
                axes.plot(x, 100 * y, color=WARM, linestyle=style, label=f"{row['mode']}, ordinary")
        if equal:
            axes.axhline(5, color=GREY, linewidth=1)
        axes.set(xlabel="readings", ylabel="experiments decided, %", ylim=(0, 70 if equal else 102))
        place = {"loc": "upper left", "ncols": 2} if equal else {"loc": "center right", "bbox_to_anchor": (1, 0.55)}
        axes.legend(frameon=False, fontsize=8, **place)
    path.write_bytes(png(figure))


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print the table, print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiment_sim", description=__doc__)
    parser.add_argument("--experiments", type=int, default=500, help="of each kind (default 500)")
    parser.add_argument("--readings", type=int, default=2000, help="each experiment's end (default 2000)")
    parser.add_argument("--gain", type=float, default=0.5, help="of the drawn challenger, in months (default 0.5)")
    parser.add_argument("--study", help="take the errors of this study's best and median trial")
    parser.add_argument("--out", type=Path, help="draw both curves into this PNG")
    options = parser.parse_args(arguments)
    kinds: list[tuple[Errors, float]] = (
        [recorded(options.study, equal=True), recorded(options.study, equal=False)]
        if options.study
        else [(drawn(0.0), 0.0), (drawn(options.gain), options.gain)]
    )
    rows = [
        measure(f"{mode}, {'equals' if gain == 0 else f'{gain:.2f} months better'}", errors, gain, mode, options)
        for errors, gain in kinds
        for mode in ("shadow", "split", "canary")
    ]
    print(f"{'':32}{'decided':>9}{'half by':>9}{'ordinary interval':>19}")
    for row in rows:
        half = "-" if row["half_decided_at"] is None else f"{row['half_decided_at']:,}"
        print(f"{row['name']:32}{row['decided']:9.1%}{half:>9}{row['naive_decided']:19.1%}")
    if options.out:
        draw(rows, options.readings, options.out)
    curves = ("at", "naive_at")
    told = [{name: value for name, value in row.items() if name not in curves} for row in rows]
    print(json.dumps({"experiments": options.experiments, "readings": options.readings, "rows": told}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
