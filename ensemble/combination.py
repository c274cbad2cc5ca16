"""A finished selection, and the bundle that is written from it.

Shape letters: C cases, T candidates, M members, B monthly bins.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ensemble import calibration, correction
from ensemble.ambiguity import FoldAnswers
from ensemble.bundle import OOF_FILE, copy_checked, write_manifest
from ensemble.candidates import Candidate, Candidates, CombineError
from ensemble.chronology import NORMS_FILE
from ensemble.costs import counted
from ensemble.documents import PARETO_FILE, write_documents
from ensemble.locked import names
from ensemble.monitors import MONITORS_FILE, of_answers, of_outcomes, of_pictures
from ensemble.out_of_fold import distributions, out_of_fold
from ensemble.pareto import front
from ensemble.profiles import profiles
from ensemble.provenance import licence_of, provenance
from ensemble.scores import table
from ensemble.select import Rules
from ensemble.unseen import LOCKED_FILE
from ensemble.views import IDENTITY
from preprocessing.appearance import appearance
from preprocessing.cohort import Cohort
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.storage import StorageError, sha256_file, write_json
from search.months import BIN_MONTHS
from search.refit import WEIGHTS, read_refit, refit
from search.train import Measurement

NUM_PARETO = 32
"""Candidates of least error that the front of error against work is drawn from, beside the members."""


@dataclass(frozen=True)
class Combination:
    """Which candidates form the ensemble, and what is known of it."""

    candidates: Candidates
    weights_T: np.ndarray
    """``(T,)`` one weight a candidate; 0 where it did not get in."""
    combination: dict[str, Any]
    """How the members are combined; see `ensemble.robust`."""
    fitted: str
    """``folds`` or ``refit``: what a member is served as."""
    evidence: dict[str, Any]
    views: tuple[str, ...] = (IDENTITY,)
    """Test-time views; see `ensemble.view_trial`."""
    distributions_of_views: np.ndarray | None = None
    """``(M, C, 240)`` what the members say out of fold on average over these; None with the picture itself alone."""
    norms: bytes = b""
    """CSV of a site's own norms of bone age, which the bundle then carries; see `ensemble.chronology.read_norms`."""
    student: Candidate | None = None
    """A network that this ensemble taught, for the fast profile; see `ensemble.student`."""
    distributions_of_student: np.ndarray | None = None
    """``(1, C, 240)`` what it says on average over the views, as the members do; None with the picture alone."""
    fold_answers: Mapping[str, FoldAnswers] = field(default_factory=dict)
    """What each fold's models say of unseen pictures, by profile; see `ensemble.fold_models`. Empty: not asked, or one
    model is served."""
    cohort: Cohort | None = None
    """That of the studies, where it was named; None: it is looked for at its place."""

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
    def member_distributions(self) -> np.ndarray:
        """``(M, C, 240)`` float64, what each member says out of fold of the picture itself."""
        return distributions(self.members)

    @cached_property
    def out_of_fold(self) -> dict[str, np.ndarray]:
        """What the ensemble as it is combined says of each case; see `ensemble.out_of_fold.out_of_fold`."""
        return out_of_fold(self.candidates, self.members, self.weights_M, self.combination, self._seen_MCB)

    @cached_property
    def answered_C(self) -> np.ndarray:
        """``(C,)`` months that the ensemble answers out of fold: corrected as others' folds say, where that helps."""
        return self._answered(self.out_of_fold["months_C"])

    @cached_property
    def answered_MC(self) -> np.ndarray:
        """``(M, C)`` months that each member would answer alone, with a correction of its own: as the fast profile."""
        return np.stack([self._answered(months_C) for months_C in self.out_of_fold["member_months_MC"]])

    def out_of_fold_of(self, member: int) -> dict[str, np.ndarray]:
        """The same of one member, by its place; the student is last."""
        if member == len(self.members):
            assert self.student is not None, "only a student stands behind the members"
            seen_1CB = self.distributions_of_student
            chosen, said_1CB = self.student, distributions([self.student]) if seen_1CB is None else seen_1CB
        else:
            chosen, said_1CB = self.members[member], self._seen_MCB[member : member + 1]
        return out_of_fold(self.candidates, [chosen], np.ones(1), self.combination, said_1CB)

    @property
    def _seen_MCB(self) -> np.ndarray:
        views_MCB = self.distributions_of_views
        return self.member_distributions if views_MCB is None else views_MCB

    def _answered(self, months_C: np.ndarray) -> np.ndarray:
        cases = self.candidates.cases
        part_C, is_male_C = cases["fold"].to_numpy(int), cases["is_male"].to_numpy(bool)
        return correction.nested(self.candidates.actual_C, months_C, is_male_C, part_C).answered(months_C)

    def write(self, folder: Path) -> str:
        """Write the bundle into an empty folder and return its version.

        Raises:
            BundleError: A weight file is not what its fold recorded.
            CombineError: A member is to be served refitted, and is not refitted yet.
        """
        study, made = self.candidates.studies[0], self._calibrated_profiles()
        weights = made["full"]["weights"]
        served = self.members + ([self.student] if self.student and len(weights) > len(self.members) else [])
        members = [
            {
                "study": member.study_name,
                "trial": member.trial.number,
                "weight": weight,
                "config": member.trial.config.to_dict(),
                "fitted": "folds" if member is self.student else self.fitted,
                "files": (_copy_refit if self.fitted == "refit" and member is not self.student else _copy_folds)(
                    member, folder
                ),
                "licence": licence_of(member.trial.config),
            }
            for member, weight in zip(served, weights, strict=True)
        ]
        if sha256 := Recipe.from_dict(study.about["recipe"]).segmenter:
            copy_checked(study.folder / SEGMENTER, folder / SEGMENTER, sha256)
        fitted = calibration.fit(self.out_of_fold, self.fold_answers.get("full"))
        content = {
            "members": members,
            "combination": self.combination,
            "profiles": made,
            "views": list(self.views),
            "recipe": study.about["recipe"],
            "recipe_hash": study.about["recipe_hash"],
            "calibration": fitted,
            "training_median_months": self.training_median_months,
            "evidence": self.evidence,
            "files": self._write_out_of_fold(folder)
            | self._write_front(folder)
            | self._write_norms(folder)
            | self._write_locked(folder)
            | self._write_monitors(folder, fitted),
            "licences": {
                config.pretrained: licence_of(config)
                for config in (member.trial.config for member in served)
                if config.pretrained
            },
            "provenance": provenance(self.candidates.studies, served),
        }
        return write_manifest(folder, write_documents(folder, content))

    def refit(
        self,
        cohort: Cohort,
        *,
        device: str = "cpu",
        report: Callable[[Candidate, Measurement], None] = lambda member, measurement: None,
    ) -> None:
        """Train each member once more on all folds, where that is not done yet; see `search.refit`.

        Raises:
            CombineError: The cohort is not the one that the studies are on.
            TrainingError: A member cannot be refitted.
        """
        self.check_cohort(cohort)
        for member in self.members:
            refit(member.trial, cohort, device=device, report=partial(report, member))

    def check_cohort(self, cohort: Cohort) -> None:
        """Refuse a cohort that is not the one of the studies.

        Raises:
            CombineError: It is another.
        """
        wanted = self.candidates.studies[0].about["cohort_hash"]
        if cohort.hash != wanted:
            raise CombineError(
                f"Members are refitted and tried on the cohort of their studies, {wanted[:12]}; the one given has "
                f"{cohort.hash[:12]}. Name the cohort that the search used."
            )

    def table(self) -> list[str]:
        """What was chosen and how good it is, in lines for a person."""
        return table(self.candidates, self.weights_T, self.evidence)

    def profiles(self) -> dict[str, Any]:
        """The manifest's entry; see `ensemble.profiles`."""
        actual_C, student_C = self.candidates.actual_C, None
        if self.student is not None:
            seen_1CB = self.distributions_of_student
            assert (seen_1CB is None) == (self.distributions_of_views is None), "a student is judged as members are"
            whole_C = self.student.trial.oof["predicted_months"].to_numpy(np.float64)
            student_C = self._answered(whole_C if seen_1CB is None else seen_1CB[0] @ BIN_MONTHS) - actual_C
        error_MC, ensemble_C = self.answered_MC - actual_C, self.answered_C - actual_C
        return profiles(self.weights_M, error_MC, self.counted(self.members), ensemble_C, student_C)

    def _calibrated_profiles(self) -> dict[str, Any]:
        """`profiles`, the fast one with a calibration of its own."""
        made = self.profiles()
        if "fast" in made:
            of_fast = self.out_of_fold_of(int(np.argmax(made["fast"]["weights"])))
            made["fast"]["calibration"] = calibration.fit(of_fast, self.fold_answers.get("fast"))
        return made

    def counted(self, trials: Sequence[Candidate]) -> np.ndarray:
        """``(T,)`` what one model of each takes for one radiograph."""
        side = int(self.candidates.studies[0].about["recipe"]["size"])
        return counted([candidate.trial.config for candidate in trials], side)

    def _write_front(self, folder: Path) -> dict[str, str]:
        """Error against counted work, which is the same on every machine; nothing with too few cases for it."""
        if self.evidence["bias_corrected_mae_months"] is None:
            return {}
        best_T = np.abs(self.candidates.error_TC).mean(axis=1).argsort(kind="stable")[:NUM_PARETO]
        kept = sorted({*best_T.tolist(), *np.flatnonzero(self.weights_T).tolist()})
        trials = tuple(self.candidates.trials[index] for index in kept)
        candidates = replace(self.candidates, trials=trials, error_TC=self.candidates.error_TC[kept])
        num_models = 1 if self.fitted == "refit" else self.candidates.num_folds
        found = front(
            candidates,
            num_models * self.counted(trials) / 1e9,
            cost="giga_operations",
            method=self.evidence["method"],
            combination=self.combination,
            rules=Rules(max_members=self.evidence["max_members"]),
        )
        return {PARETO_FILE: _written(folder / PARETO_FILE, found.csv())}

    def _write_norms(self, folder: Path) -> dict[str, str]:
        return {NORMS_FILE: _written(folder / NORMS_FILE, self.norms)} if self.norms else {}

    def _write_out_of_fold(self, folder: Path) -> dict[str, str]:
        """One row a case: what every member and the ensemble said of it, and what would have been answered."""
        said = self.out_of_fold
        rows = self.candidates.cases.assign(
            predicted_months=said["months_C"], answered_months=self.answered_C, spread_months=said["spread_C"]
        )
        for member, months_C in zip(self.members, said["member_months_MC"], strict=True):
            rows[f"member_{member.study}_{member.trial.number:04d}_months"] = months_C
        buffer = io.BytesIO()
        rows.round(4).to_parquet(buffer, index=False)
        return {OOF_FILE: _written(folder / OOF_FILE, buffer.getvalue())}

    def _write_locked(self, folder: Path) -> dict[str, str]:
        """By what a folder with cases of the locked test is known; see `ensemble.unseen`."""
        if self.cohort_at_hand is None:
            return {}
        write_json(folder / LOCKED_FILE, names(self.cohort_at_hand))
        return {LOCKED_FILE: sha256_file(folder / LOCKED_FILE)}

    def _write_monitors(self, folder: Path, fitted: dict[str, Any]) -> dict[str, str]:
        """What a service holds its traffic against."""
        watched, cohort = of_answers(self.out_of_fold, fitted), self.cohort_at_hand
        if cohort:
            rows = np.flatnonzero(~cohort.cases["is_test"].to_numpy(bool))
            watched |= of_pictures([appearance(np.asarray(cohort.pixels[row])) for row in rows])
            if cohort.num_refused is not None:
                watched |= of_outcomes(len(cohort.cases), cohort.num_refused)
        path = folder / MONITORS_FILE
        write_json(path, {"monitors": watched, "pictures_of_cohort": cohort.hash if cohort else None})
        return {MONITORS_FILE: sha256_file(path)}

    @cached_property
    def cohort_at_hand(self) -> Cohort | None:
        """The studies' cohort, as named or where it still lies at its place; a bundle can be built without it."""
        if self.cohort is not None:
            return self.cohort
        about = self.candidates.studies[0].about
        try:
            cohort = Cohort.load(about["cohort"])
        except (StorageError, OSError, KeyError):
            return None
        return cohort if cohort.hash == about["cohort_hash"] else None


def _copy_folds(member: Candidate, folder: Path) -> list[dict[str, str]]:
    files = []
    for fold, sha256 in enumerate(member.trial.fold_hashes):
        name = f"members/{member.study}-{member.trial.number:04d}/fold_{fold}.safetensors"
        copy_checked(member.trial.folder / f"fold_{fold}.safetensors", folder / name, sha256)
        files.append({"file": name, "sha256": sha256})
    return files


def _copy_refit(member: Candidate, folder: Path) -> list[dict[str, str]]:
    record = read_refit(member.trial)
    if record is None:
        raise CombineError(
            f"{member.trial.folder} has no refitted model yet. Train it: python -m ensemble build --refit --cohort DIR"
        )
    name = f"members/{member.study}-{member.trial.number:04d}/refit.safetensors"
    copy_checked(member.trial.folder / WEIGHTS, folder / name, record["weights_sha256"])
    return [{"file": name, "sha256": record["weights_sha256"]}]


def _written(path: Path, content: bytes) -> str:
    """Write an evidence file; returns its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
