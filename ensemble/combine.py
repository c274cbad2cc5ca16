"""From studies to a bundle: choose members on the out-of-fold tables, gather the evidence, write the folder.

Shape letters: C cases, T candidates, M members.
"""

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ensemble import calibration
from ensemble.bootstrap import AUTO, ROUNDS, repeat
from ensemble.bundle import copy_checked, write_manifest
from ensemble.candidates import Candidate, Candidates, CombineError, gather
from ensemble.costs import Budget, measured, operations, spent
from ensemble.profiles import profiles
from ensemble.provenance import licence_of, provenance
from ensemble.robust import combine_members, parse
from ensemble.scores import scores, table
from ensemble.select import COMBINING, METHODS, Rules, select
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.storage import AnyPath, sha256_file
from search.greedy import shares
from search.trial import read_distributions

__all__ = ["Combination", "CombineError", "combine"]

TRIM = 0.2
"""Of a trimmed mean: it cuts any one of five members that fails grossly, and nothing while the members agree."""
OOF_FILE = "evidence/oof.parquet"
SHRINK = 0.5
"""Of the weights towards equal ones, for members served as their fold models."""
WEIGHTS_NOTE = (
    "Weights are fitted on out-of-fold predictions, each made by the one fold model that never saw the case. "
    "A member is served as the average of its fold models, which takes more from the error of a member that varies "
    "much: so the weights are drawn half way to equal ones. The average's error is usually lower than the figures here."
)


@dataclass(frozen=True)
class Combination:
    """Which candidates form the ensemble, and what is known of it."""

    candidates: Candidates
    weights_T: np.ndarray
    """``(T,)`` one weight a candidate; 0 where it did not get in."""
    combination: dict[str, Any]
    """How the members are combined; see `ensemble.robust`."""
    evidence: dict[str, Any]

    @property
    def members(self) -> list[Candidate]:
        """Those with a weight, in the order of the candidates."""
        return [self.candidates.trials[index] for index in np.flatnonzero(self.weights_T)]

    @property
    def weights_M(self) -> np.ndarray:
        """``(M,)`` the weights of the members."""
        return self.weights_T[self.weights_T > 0]

    @property
    def training_median_months(self) -> float:
        """Median bone age of the cases outside the locked test."""
        return float(np.median(self.candidates.actual_C))

    @cached_property
    def out_of_fold(self) -> dict[str, np.ndarray]:
        """What the ensemble as it is combined says of each case out of fold, for whoever calibrates it.

        Returns:
            case_id, fold_C, is_male_C, actual_C, and from the members: distribution_CM ``(C, 240)``, months_C, spread_C
            and member_months_MC.
        """
        members_MCB = np.stack([read_distributions(member.trial.folder) for member in self.members]).astype(np.float64)
        members_MCB /= members_MCB.sum(axis=2, keepdims=True)
        mixture, months, spread = combine_members(members_MCB, self.weights_M, self.combination)
        cases = self.candidates.cases
        return {
            "case_id": cases["case_id"].to_numpy(),
            "fold_C": cases["fold"].to_numpy(),
            "is_male_C": cases["is_male"].to_numpy(bool),
            "actual_C": self.candidates.actual_C,
            "distribution_CM": mixture,
            "months_C": months,
            "spread_C": spread,
            "member_months_MC": members_MCB @ np.arange(members_MCB.shape[2]),
        }

    def write(self, folder: Path) -> str:
        """Write the bundle into an empty folder and return its version.

        Raises:
            BundleError: A weight file is not what its fold recorded.
        """
        study, weights = self.candidates.studies[0], [float(weight) for weight in self.weights_M]
        members = [
            {
                "study": member.study_name,
                "trial": member.trial.number,
                "weight": weight,
                "config": member.trial.config.to_dict(),
                "fitted": "folds",
                "files": _copy_folds(member, folder),
                "licence": licence_of(member.trial.config),
            }
            for member, weight in zip(self.members, weights, strict=True)
        ]
        if sha256 := Recipe.from_dict(study.about["recipe"]).segmenter:
            copy_checked(study.folder / SEGMENTER, folder / SEGMENTER, sha256)
        content = {
            "members": members,
            "combination": self.combination,
            "profiles": self._profiles(),
            "views": ["identity"],
            "recipe": study.about["recipe"],
            "recipe_hash": study.about["recipe_hash"],
            "calibration": calibration.fit(self.out_of_fold),
            "training_median_months": self.training_median_months,
            "evidence": self.evidence,
            "files": {OOF_FILE: self._write_out_of_fold(folder)},
            "licences": {
                config.pretrained: licence_of(config)
                for config in (member.trial.config for member in self.members)
                if config.pretrained
            },
            "provenance": provenance(self.candidates.studies, self.members),
        }
        return write_manifest(folder, content)

    def table(self) -> list[str]:
        """What was chosen and how good it is, in lines for a person."""
        return table(self.candidates, self.weights_T, self.evidence)

    def _profiles(self) -> dict[str, Any]:
        side = int(self.candidates.studies[0].about["recipe"]["size"])
        operations_M = np.array([operations(member.trial.config, side) for member in self.members], float)
        error_MC = self.candidates.error_TC[self.weights_T > 0]
        return profiles(self.weights_M, error_MC, operations_M, self.combination)

    def _write_out_of_fold(self, folder: Path) -> str:
        """One row a case: what every member and the ensemble said of it. Returns the file's sha256."""
        said = self.out_of_fold
        rows = self.candidates.cases.assign(predicted_months=said["months_C"], spread_months=said["spread_C"])
        for member, months_C in zip(self.members, said["member_months_MC"], strict=True):
            rows[f"member_{member.study}_{member.trial.number:04d}_months"] = months_C
        buffer = io.BytesIO()
        rows.round(4).to_parquet(buffer, index=False)
        path = folder / OOF_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
        return sha256_file(path)


def combine(
    *studies: str | Path | AnyPath,
    method: str = AUTO,
    max_members: int = 8,
    rule: str = "trimmed_mean",
    budget: Budget | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Combination:
    """Choose members and weights from the out-of-fold tables of studies; the locked test is not touched.

    Args:
        studies: Folders of studies on the same cohort, local or fsspec URIs.
        method: ``auto``, which takes the one of lowest bias-corrected error, or a name in `METHODS`.
        max_members: Upper bound on different members.
        rule: One of `robust.RULES`: how members are combined where they disagree grossly.
        progress: Called with the bootstrap rounds done and in all.

        budget: Upper bound on what the members cost together, measured on this machine: such a bundle records what was
            measured, so that another build has another version.

    Raises:
        CombineError: No trial is complete, or they do not describe the same cases.
        ValueError: No member is allowed, or the budget holds none.
    """
    candidates = gather(*studies)
    cost_T = costs_of(candidates, budget.name, budget.device) if budget else None
    rules = Rules(max_members=max_members, shrink=SHRINK, budget=budget.limit if budget else None)
    combination = parse({"rule": rule, "trim": TRIM if rule == "trimmed_mean" else 0.0})
    error_TC, share_C = candidates.error_TC, shares(None, len(candidates.cases))
    names = COMBINING if method == AUTO else (method,)
    repeated = repeat(
        error_TC,
        rules,
        methods=tuple(name for name in METHODS if name in (*names, "single")),
        combination=combination,
        cost_T=cost_T,
        num_rounds=ROUNDS,
        progress=progress,
    )
    chosen = (repeated.best() if repeated else "equal") if method == AUTO else method
    weights_T = select(error_TC, share_C, chosen, rules, cost_T=cost_T)
    evidence = scores(candidates, weights_T, combination, rules, chosen, method, repeated, cost_T)
    if budget is not None and cost_T is not None:
        evidence["budget"] = {**asdict(budget), "spent": round(float(cost_T[weights_T > 0].sum()), 3)}
    return Combination(candidates, weights_T, combination, evidence | {"weights_note": WEIGHTS_NOTE})


def costs_of(candidates: Candidates, name: str, device: str) -> np.ndarray:
    """``(T,)`` what each candidate takes of a budget as it is served, measured on this machine."""
    about = candidates.studies[0].about
    configs = [candidate.trial.config for candidate in candidates.trials]
    return spent(measured(configs, int(about["recipe"]["size"]), device), name, int(about["num_folds"]))


def _copy_folds(member: Candidate, folder: Path) -> list[dict[str, str]]:
    files = []
    for fold, sha256 in enumerate(member.trial.fold_hashes):
        name = f"members/{member.study}-{member.trial.number:04d}/fold_{fold}.safetensors"
        copy_checked(member.trial.folder / f"fold_{fold}.safetensors", folder / name, sha256)
        files.append({"file": name, "sha256": sha256})
    return files
