"""From a study to a bundle: choose members on the out-of-fold tables, gather the evidence, write the folder.

Shape letters: C cases, T trials, M members.
"""

import contextlib
import importlib.metadata
import platform
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble import calibration
from ensemble.bundle import copy_checked, write_manifest
from ensemble.select import SELECTORS, bias_corrected_mae
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.storage import AnyPath, as_path, canonical_hash
from search.months import BIN_MONTHS, NUM_BINS
from search.space import TrialConfig
from search.trial import FinishedTrial, all_outcomes, finished_trials, read_study

BOOTSTRAP_ROUNDS = 200
WEIGHTS_NOTE = (
    "Weights are fitted on out-of-fold predictions, each made by the one fold model that never saw the case. "
    "A member is served as the average of its fold models, whose error is usually lower; "
    "the weights are not refitted to that."
)


class CombineError(ValueError):
    """The study cannot be made into an ensemble."""


@dataclass(frozen=True)
class Combination:
    """Which trials of a study form the ensemble, and what is known of it."""

    folder: AnyPath
    """Of the study."""
    study: dict[str, Any]
    """``study.json``."""
    trials: list[FinishedTrial]
    """Every candidate, by number."""
    weights_T: np.ndarray
    """``(T,)`` one weight a candidate; 0 where it did not get in."""
    evidence: dict[str, Any]
    training_median_months: float
    calibration: dict[str, Any]
    """As `ensemble.calibration` fits it."""

    def write(self, folder: Path) -> str:
        """Write the bundle into an empty folder and return its version.

        Raises:
            BundleError: A weight file is not what its fold recorded.
        """
        kept = [(trial, float(weight)) for trial, weight in zip(self.trials, self.weights_T, strict=True) if weight]
        name = self.study["name"]
        members = [
            {
                "study": name,
                "trial": trial.number,
                "weight": weight,
                "config": trial.config.to_dict(),
                "fitted": "folds",
                "files": _copy_folds(trial, folder),
                "licence": _licence(trial.config),
            }
            for trial, weight in kept
        ]
        if sha256 := Recipe.from_dict(self.study["recipe"]).segmenter:
            copy_checked(self.folder / SEGMENTER, folder / SEGMENTER, sha256)
        content = {
            "members": members,
            "combination": {"rule": "mean", "trim": 0.0},
            "profiles": {"full": {"weights": [weight for _, weight in kept]}},
            "views": ["identity"],
            "recipe": self.study["recipe"],
            "recipe_hash": self.study["recipe_hash"],
            "calibration": self.calibration,
            "training_median_months": self.training_median_months,
            "evidence": {**self.evidence, "weights_note": WEIGHTS_NOTE},
            "files": {},
            "licences": {
                trial.config.pretrained: _licence(trial.config) for trial, _ in kept if trial.config.pretrained
            },
            "provenance": {
                "studies": [{"name": name, "study_hash": canonical_hash(self.study)}],
                "cohort_hash": self.study["cohort_hash"],
                "trials": [{"study": name, **_origin(trial)} for trial, _ in kept],
                "packages": _packages(),
            },
        }
        return write_manifest(folder, content)

    def table(self) -> list[str]:
        """What was chosen and how good it is, in lines for a person."""
        lines = ["trial  backbone              OOF MAE   weight"]
        candidates = zip(self.trials, self.weights_T, self.evidence["candidates"], strict=True)
        for trial, weight, candidate in sorted(candidates, key=lambda row: row[2]["oof_mae_months"]):
            share = f"{weight:8.3f}" if weight else "       -"
            lines.append(f"{trial.number:>5}  {trial.config.backbone:<20} {candidate['oof_mae_months']:8.2f} {share}")
        evidence = self.evidence
        lines += [
            "",
            f"best single trial          {evidence['best_single_oof_mae_months']:6.2f} months",
            f"equal weights for all      {evidence['equal_weights_oof_mae_months']:6.2f} months",
            f"ensemble, same cases       {evidence['ensemble_oof_mae_months']['value']:6.2f} months   "
            "optimistic: the members were selected on them",
        ]
        if corrected := evidence["bias_corrected_mae_months"]:
            low, high = corrected["ci95"]
            lines.append(
                f"ensemble, bias corrected   {corrected['value']:6.2f} months   "
                f"95 % interval {low:.2f} to {high:.2f} (BBC-CV, {evidence['num_cases']} cases)"
            )
        lines.append(
            f"weight is spread over {evidence['effective_members']:.1f} members, "
            f"whose errors count as {evidence['effective_independent_members']:.1f} independent ones"
        )
        return lines


def combine(study: str | Path | AnyPath, *, max_members: int = 6, selector: str = "greedy") -> Combination:
    """Choose members and weights from a study's out-of-fold tables; the locked test is not touched.

    Args:
        study: Folder of a study, local or an fsspec URI.
        max_members: Upper bound on different members.
        selector: A name in `SELECTORS`.

    Raises:
        CombineError: No trial is complete, or the tables do not describe the same cases.
    """
    root = as_path(study)
    about = read_study(root)
    trials = finished_trials(root)
    if not trials:
        raise CombineError(_no_trial(root))
    oof_CT, actual_C = _join(trials)
    weights_T = SELECTORS[selector](oof_CT, actual_C, max_members=max_members)
    evidence = {
        "selector": selector,
        "max_members": max_members,
        **_evidence(oof_CT, actual_C, weights_T, trials, selector, max_members),
    }
    fitted = calibration.fit(_served(trials, weights_T))
    return Combination(root, about, trials, weights_T, evidence, float(np.median(actual_C)), fitted)


def _served(trials: list[FinishedTrial], weights_T: np.ndarray) -> dict[str, np.ndarray]:
    """What the ensemble says of each case that its members did not see."""
    distribution_CM = np.zeros((len(trials[0].oof), NUM_BINS))
    for trial, weight in zip(trials, weights_T, strict=True):
        if weight:
            distribution_CM += weight * np.stack(trial.oof["distribution"].to_list()).astype(np.float64)
    cases = trials[0].oof
    return {
        "case_id": cases["case_id"].to_numpy(),
        "actual_C": cases["bone_age_months"].to_numpy(np.float64),
        "is_male_C": cases["is_male"].to_numpy(bool),
        "fold_C": cases["fold"].to_numpy(int),
        "distribution_CM": distribution_CM,
        "months_C": distribution_CM @ BIN_MONTHS.astype(np.float64),
    }


def _copy_folds(trial: FinishedTrial, folder: Path) -> list[dict[str, str]]:
    files = []
    for fold, sha256 in enumerate(trial.fold_hashes):
        name = f"members/0-{trial.number:04d}/fold_{fold}.safetensors"
        copy_checked(trial.folder / f"fold_{fold}.safetensors", folder / name, sha256)
        files.append({"file": name, "sha256": sha256})
    return files


def _licence(config: TrialConfig) -> str:
    if not config.pretrained:
        return "none: trained from random weights"
    return f"not known: ask whoever published {config.pretrained}"


def _origin(trial: FinishedTrial) -> dict[str, Any]:
    """What a trial's weights can be traced by."""
    return {
        "trial": trial.number,
        "seed": trial.config.seed,
        "config_hash": canonical_hash(trial.config.to_dict()),
        "folds": list(trial.fold_hashes),
    }


def _no_trial(study: AnyPath) -> str:
    outcomes = all_outcomes(study)
    counts = Counter(outcome["state"] for outcome in outcomes)
    states = ", ".join(f"{counts[state]} {state}" for state in ("complete", "stopped", "failed", "running"))
    sentence = f"An ensemble needs 1 complete trial or more; {study} has {states}."
    if counts["running"] or not outcomes:
        return f"{sentence} Let it end with: python -m search resume {study}"
    reason = next(outcome["reason"] for outcome in outcomes if outcome.get("reason"))
    return f"{sentence} The first reason given: {reason} Search again with more trials or another space."


def _join(trials: list[FinishedTrial]) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold predictions of all candidates ``(C, T)`` and references ``(C,)``, in months."""
    first = trials[0].oof
    keys = ["case_id", "fold", "bone_age_months"]
    for trial in trials[1:]:
        if not trial.oof[keys].equals(first[keys]):
            raise CombineError(
                f"All trials must predict the same cases in the same folds; trial {trial.number} differs from "
                f"trial {trials[0].number}. Remove its folder and resume the study."
            )
    oof_CT = np.column_stack([trial.oof["predicted_months"].to_numpy(np.float64) for trial in trials])
    return oof_CT, first["bone_age_months"].to_numpy(np.float64)


def _evidence(
    oof_CT: np.ndarray,
    actual_C: np.ndarray,
    weights_T: np.ndarray,
    trials: list[FinishedTrial],
    selector: str,
    max_members: int,
) -> dict[str, Any]:
    """Every figure is rounded: the last bits differ between machines, the version must not."""
    error_CT = oof_CT - actual_C[:, None]
    kept = np.flatnonzero(weights_T)
    corrected = bias_corrected_mae(
        oof_CT, actual_C, SELECTORS[selector], max_members=max_members, num_rounds=BOOTSTRAP_ROUNDS
    )
    correlation_MM = _correlation(error_CT[:, kept])
    weights_M = weights_T[kept]
    return {
        "num_cases": len(actual_C),
        "candidates": [
            {"trial": trial.number, "oof_mae_months": _round(np.abs(error_CT[:, index]).mean())}
            for index, trial in enumerate(trials)
        ],
        "best_single_oof_mae_months": _round(np.abs(error_CT).mean(axis=0).min()),
        "equal_weights_oof_mae_months": _round(np.abs(error_CT.mean(axis=1)).mean()),
        "ensemble_oof_mae_months": {
            "value": _round(np.abs(oof_CT @ weights_T - actual_C).mean()),
            "note": "Optimistic: the members were selected on these same cases. Do not quote it.",
        },
        "bias_corrected_mae_months": corrected
        and {
            "value": _round(corrected.mae_months),
            "ci95": [_round(bound) for bound in corrected.ci95],
            "rounds": corrected.num_rounds,
            "note": "BBC-CV: the whole selection repeated on bootstrap draws, scored on the cases left out.",
        },
        "error_correlation": [[_round(value) for value in row] for row in correlation_MM],
        "effective_members": _round(1 / np.square(weights_M).sum()),
        "effective_independent_members": _round(1 / (weights_M @ correlation_MM @ weights_M)),
    }


def _correlation(error_CM: np.ndarray) -> np.ndarray:
    """Pearson correlation of the members' signed errors; 1 where a member's error never varies."""
    centred = error_CM - error_CM.mean(axis=0)
    norm_M = np.sqrt(np.square(centred).sum(axis=0))
    if not norm_M.all():
        return np.ones((error_CM.shape[1], error_CM.shape[1]))
    return (centred / norm_M).T @ (centred / norm_M)


def _round(value: float) -> float:
    return round(float(value), 6)


def _packages() -> dict[str, str]:
    names = ("carpal", "numpy", "safetensors", "timm", "torch")
    versions = {"python": platform.python_version()}
    for name in names:
        # Carpal itself is run from a checkout on a cluster, where it has no version
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
