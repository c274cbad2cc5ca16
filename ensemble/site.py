"""Calibration to a site: a correction and intervals learnt from its own labelled radiographs, as a new bundle.

Scanners, readers and populations differ: Deeplasia read Georgian children 2.9 months (girls) and 5.4 months (boys) too
old, and was right after a line for each sex from 121 images (Scientific Reports 2025, s41598-025-20148-w). But a
correction learnt from few cases can also do harm, so there is none unless nested validation on the site's own cases
shows a gain whose 95 % interval lies above zero. The fast profile gets its own, from its own answers. The new bundle
knows the cases again that it was fitted to, so that nothing is measured by them: see `ensemble.unseen`. Its monitors
expect what it says of them, since a service would tell the site's own traffic from the parent's evidence for ever.

Shape letters: C cases, L levels.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble import calibration, conformal, correction
from ensemble.bundle import MARKER, Bundle, write_manifest
from ensemble.conformal import LEVELS
from ensemble.correction import NO_CORRECTION, Trial
from ensemble.coverage import coverage
from ensemble.documents import write_documents
from ensemble.monitors import MONITORS_FILE, of_corrected, of_outcomes, of_pictures
from ensemble.prediction import Prediction
from ensemble.predictor import Predictor
from ensemble.printed import tally
from ensemble.unseen import SITE_FILE, leave_out, salted
from preprocessing.appearance import appearance
from preprocessing.prepare import read_chunk, thread_map
from preprocessing.sources import Source, SourceOptions, problem, problem_table, read_source
from preprocessing.standardize import Reading
from preprocessing.storage import AnyPath, sha256_file, write_json

MIN_CASES = 50
"""Fewer cannot show a gain, nor support an interval."""
MAX_SEEN = 0.2
"""Share of the cases that may be left out as training cases; of more the source is that of the bundle's cohort."""
NUM_PARTS = 10
"""Of the outer split."""
_BATCH = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class SiteError(ValueError):
    """The bundle cannot be calibrated to this site."""


@dataclass(frozen=True)
class SiteCalibration:
    """A correction and intervals that helped on the site's own cases."""

    bundle: Bundle
    """What it starts from."""
    calibrations: dict[str, dict[str, Any]]
    """Of the new bundle by profile, as its manifest holds them."""
    trial: Trial
    """Of the full profile, which is the one that must gain."""
    monitors: dict[str, Any]
    """What a service holds the site's traffic against; see `ensemble.monitors`."""
    cases: pd.DataFrame
    """Those of the site that they were learnt from, of which the new bundle keeps no more than `SITE_FILE` does."""
    problems: pd.DataFrame = field(default_factory=lambda: problem_table([]))
    """One row a file or label of the site that was not used: case_id, file, reason, detail."""

    @property
    def evidence(self) -> dict[str, Any]:
        """What the new bundle says of the gain."""
        found: dict[str, Any] = self.calibrations["full"]["site"]["evidence"]
        return found

    def write(self, folder: Path) -> str:
        """Write the new bundle into an empty folder and return its version; pass it to `Registry.publish`."""
        manifest = self.bundle.manifest
        for path in sorted(self.bundle.folder.rglob("*")):
            if path.is_file() and path.name != MARKER and not path.name.startswith("."):
                target = folder / path.relative_to(self.bundle.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        content = {name: value for name, value in manifest.items() if name not in ("schema", "version")}
        own = set(self.calibrations) - {"full"}
        profiles = {
            name: profile | ({"calibration": self.calibrations[name]} if name in own else {})
            for name, profile in manifest["profiles"].items()
        }
        salt = f"{self.bundle.version} {self.calibrations['full']['site']['name']}"
        write_json(folder / SITE_FILE, salted(self.cases, salt))
        write_json(folder / MONITORS_FILE, {"monitors": self.monitors, "pictures_of_cohort": None})
        files = content["files"] | {name: sha256_file(folder / name) for name in (SITE_FILE, MONITORS_FILE)}
        content |= {"calibration": self.calibrations["full"], "profiles": profiles, "files": files}
        return write_manifest(folder, write_documents(folder, content))


def calibrate(
    predictor: Predictor,
    source: str | Path | AnyPath,
    name: str,
    options: SourceOptions | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SiteCalibration:
    """Learn a site's correction and intervals, and refuse where nested validation shows no gain.

    On its training cases the errors of a bundle are far too small, and its locked test is there to judge it, so both
    are left out, see `ensemble.unseen`. What else could not be used is counted beside them.

    Args:
        predictor: With the bundle to start from.
        source: Labelled radiographs of the site, in any layout.
        name: Of the site, a word.
        options: What looking at the source does not show.
        seed: Of the split and the bootstrap.
        progress: Called with the number of cases done and of all.

    Raises:
        SiteError: The name is none, the cases that are new to the bundle are too few, more than a few were trained
            or tested on,
            it has a site already, or the correction does not help.
        SourceError: The folder is in no known layout.
    """
    bundle = predictor.bundle
    if not _NAME.fullmatch(name):
        raise SiteError(f"A site's name is a word of a-z, 0-9, _ and - of at most 32 letters, got {name!r}.")
    base = bundle.manifest["calibration"]
    if base is None:
        raise SiteError(f"{bundle.version} was built without calibration. Build it again from its study.")
    if base["site"] is not None:
        raise SiteError(
            f"{bundle.version} is calibrated to {base['site']['name']} already. Start from {base['site']['parent']}."
        )
    found, known = leave_out(bundle, read_source(source, options), learns=True)
    if known["left_out"] > MAX_SEEN * known["of"]:
        raise SiteError(
            f"{known['left_out']} of {known['of']} cases are by id, sex and bone age such that {bundle.version} was "
            "trained or tested on, and the others may be of its locked test, from which nothing may be learnt. Name "
            "radiographs of the site alone."
        )
    cases, predictions, seen, refused = _predict(predictor, found, progress)
    problems = pd.concat([found.problems, problem_table(refused)], ignore_index=True)
    if len(cases) < MIN_CASES:
        raise SiteError(
            f"A site needs {MIN_CASES} labelled radiographs that can be read and that {bundle.version} was not trained "
            f"on, got {len(cases)}{_rejected(problems)}. Add some."
        )
    is_male_C = cases["is_male"].to_numpy(bool)
    part_C = correction.parts(is_male_C, NUM_PARTS, seed)
    used = {"rejected": len(problems), "rejected_reasons": problems["reason"].value_counts().to_dict()}
    fits = {
        profile: _fit(bundle, profile, name, cases, said, part_C, seed, used) for profile, said in predictions.items()
    }
    trial = fits["full"][1]
    if not trial.helps:
        low, high = trial.gain_ci95
        raise SiteError(
            f"A correction to {name} shows no gain in nested validation on {len(cases)} cases{_rejected(problems)}: "
            f"the mean error goes from {trial.mae_before_months:.2f} to {trial.mae_after_months:.2f} months, the "
            f"gain's 95 % interval from {low:.2f} to {high:.2f} does not lie above zero. Keep "
            f"{bundle.version}, or add cases."
        )
    calibrations = {profile: fitted for profile, (fitted, _) in fits.items()}
    monitors = _of_answers(predictions["full"], is_male_C, calibrations["full"])
    monitors |= of_pictures(seen) | of_outcomes(len(seen), len(refused))
    return SiteCalibration(bundle, calibrations, trial, monitors, cases, problems)


def _of_answers(said: Sequence[Prediction], is_male_C: np.ndarray, calibrated: dict[str, Any]) -> dict[str, Any]:
    """Monitors of what the new bundle says, by what the one before it said."""
    fitted = calibration.parse(calibrated)
    assert fitted is not None, "a site's calibration is one"
    months_C = np.array([prediction.bone_age_months for prediction in said])
    sd_C = np.array([prediction.sd_months for prediction in said])
    return of_corrected(fitted.corrections[-1].months(months_C, is_male_C), sd_C, is_male_C, fitted)


def _rejected(problems: pd.DataFrame) -> str:
    """How many files and labels were rejected, and why, to be put behind a number of cases; empty where none was."""
    reasons = problems["reason"].value_counts().to_dict()
    return f" ({len(problems)} rejected: {tally(reasons)})" if reasons else ""


def _fit(
    bundle: Bundle,
    profile: str,
    name: str,
    cases: pd.DataFrame,
    predictions: Sequence[Prediction],
    part_C: np.ndarray,
    seed: int,
    used: dict[str, Any],
) -> tuple[dict[str, Any], Trial]:
    """A profile's calibration with the site's part, which corrects nothing where that shows no gain."""
    actual_C, is_male_C = cases["bone_age_months"].to_numpy(np.float64), cases["is_male"].to_numpy(bool)
    months_C = np.array([prediction.bone_age_months for prediction in predictions])
    sd_C = np.array([prediction.sd_months for prediction in predictions])
    trial = correction.nested(actual_C, months_C, is_male_C, part_C, seed=seed)
    kept, corrected_C = (trial.correction, trial.corrected_C) if trial.helps else (NO_CORRECTION, months_C)
    before_CL2 = np.array([[prediction.intervals[level] for level in LEVELS] for prediction in predictions])
    rule, after_CL2 = conformal.fit(actual_C, corrected_C, sd_C, is_male_C, part_C)
    evidence = trial.evidence() | {
        **used,
        "cases_sha256": _digest(cases),
        "coverage_before": coverage(actual_C, before_CL2, is_male_C)["levels"],
        "bias_by_sex_before": {
            sex: round(float((months_C - actual_C)[is_male_C == is_male].mean()), 4)
            for sex, is_male in (("female", False), ("male", True))
            if (is_male_C == is_male).any()
        },
    }
    base = calibration.of_profile(bundle.manifest, profile)
    assert base is not None, "only profiles that are calibrated are fitted to a site"
    fitted = base | {
        "intervals": rule.to_dict() | {"out_of_fold": coverage(actual_C, after_CL2, is_male_C)},
        "site": {
            "name": name,
            "parent": bundle.version,
            "correction": kept.to_dict(),
            "evidence": evidence,
        },
    }
    calibration.parse(fitted)
    return fitted, trial


def _predict(
    predictor: Predictor, found: Source, progress: Callable[[int, int], None]
) -> tuple[pd.DataFrame, dict[str, list[Prediction]], list[dict[str, float]], list[dict[str, str]]]:
    """The cases that can be read, what each calibrated profile of the bundle says of them, how they look, and the
    problems of the others."""
    paths = found.paths
    chunks = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    is_male = found.cases["is_male"].to_numpy(bool)
    rows: list[int] = []
    seen: list[dict[str, float]] = []
    problems: list[dict[str, str]] = []
    manifest = predictor.bundle.manifest
    predictions: dict[str, list[Prediction]] = {
        profile: [] for profile in predictor.profiles if calibration.of_profile(manifest, profile) is not None
    }
    start = 0
    for results in thread_map(partial(read_chunk, folder=found.folder, reader=predictor.reader), chunks):
        usable = [(row, result) for row, result in enumerate(results, start) if isinstance(result, Reading)]
        for row, result in enumerate(results, start):
            if not isinstance(result, Reading):
                case_id, file = (str(found.cases.at[row, name]) for name in ("case_id", "file"))
                problems.append(problem(case_id, file, result.code, str(result)))
        if usable:
            rows += [row for row, _ in usable]
            seen += [appearance(reading.pixels) for _, reading in usable]
            pixels_BVHW = np.stack([reading.pixels for _, reading in usable])
            for profile, said in predictions.items():
                said += predictor.predict(pixels_BVHW, is_male[[row for row, _ in usable]], profile=profile)
        start += len(results)
        progress(start, len(paths))
    return found.cases.iloc[rows].reset_index(drop=True), predictions, seen, problems


def _digest(cases: pd.DataFrame) -> str:
    """Names the cases without holding them."""
    rows = cases[["case_id", "sex", "bone_age_months"]].astype(str).to_numpy().tolist()
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
