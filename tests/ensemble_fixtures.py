"""A tiny cohort and a finished study, written by hand with the real writers; nothing is trained."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ensemble.candidates import Candidate, gather
from preprocessing.cohort import FORMAT, cohort_hash, quality_table
from preprocessing.quality import Finding
from preprocessing.recipe import SEGMENTER, Recipe
from preprocessing.storage import read_json, write_atomic, write_json
from search.model import NUM_BINS, BoneAgeNet
from search.space import TrialConfig
from search.train import Measurement, TrainedFold
from search.trial import trial_folder, write_fold, write_oof

SIZE = 64
NUM_FOLDS = 2


def make_cohort(
    folder: Path,
    *,
    num_cases: int = 30,
    num_test: int = 6,
    seed: int = 0,
    views: tuple[str, ...] = ("full",),
    findings: Sequence[tuple[str, Finding]] = (),
    segmenter: bytes = b"",
) -> Path:
    """A cohort of noise pictures whose brightness grows with bone age."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    months = rng.integers(12, 216, num_cases).astype(float)
    is_male = np.arange(num_cases) % 2 == 0
    is_test = np.arange(num_cases) < num_test
    pixels = rng.integers(0, 40, (num_cases, SIZE, SIZE)) + months[:, None, None] * 0.9
    recipe = Recipe(size=SIZE, views=views, segmenter=hashlib.sha256(segmenter).hexdigest() if segmenter else "")
    np.save(folder / "pixels.npy", np.stack([pixels.astype(np.uint8)] * len(views), axis=1))
    if segmenter:
        (folder / SEGMENTER).write_bytes(segmenter)
    cases = pd.DataFrame(
        {
            "case_id": [f"{index:04d}" for index in range(num_cases)],
            "sex": np.where(is_male, "male", "female"),
            "is_male": is_male,
            "bone_age_months": months,
            "file": [f"images/{index:04d}.png" for index in range(num_cases)],
            "fold": np.where(is_test, -1, np.arange(num_cases) % NUM_FOLDS),
            "is_test": is_test,
        }
    )
    cases.to_parquet(folder / "cases.parquet", index=False)
    quality_table(findings).to_parquet(folder / "quality.parquet", index=False)
    about = {
        "format": FORMAT,
        "hash": cohort_hash(cases, folder / "pixels.npy", recipe),
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "source": str(folder.parent / "raw"),
        "num_cases": num_cases,
        "num_rejected": 0,
        "num_refused": 0,
        "num_folds": NUM_FOLDS,
    }
    write_json(folder / "cohort.json", about)
    return folder


def make_study(
    folder: Path,
    cohort_folder: Path,
    *,
    states: tuple[str, ...] = ("complete",) * 3,
    seed: int = 0,
    bias: float = 0.0,
    noise: float = 8.0,
) -> Path:
    """A study whose complete trials have random networks and invented answers out of fold, `bias` months too high."""
    from preprocessing.cohort import Cohort

    cohort = Cohort.load(cohort_folder)
    rng = np.random.default_rng(seed)
    if cohort.segmenter:
        write_atomic(folder / SEGMENTER, cohort.segmenter.read_bytes())
    write_json(
        folder / "study.json",
        {
            "format": "carpal-study-1",
            "name": folder.name,
            "cohort": str(cohort_folder),
            "cohort_hash": cohort.hash,
            "recipe": cohort.recipe.to_dict(),
            "recipe_hash": cohort.recipe.hash,
            "num_folds": NUM_FOLDS,
            "space": "quick",
            "seed": 0,
        },
    )
    for number, state in enumerate(states):
        config = TrialConfig(
            backbone="test_resnet", seed=number, view=cohort.recipe.views[number % len(cohort.recipe.views)]
        )
        target = trial_folder(folder, number)
        write_json(target / "config.json", {"number": number, "config": config.to_dict()})
        maes = []
        for fold in range(NUM_FOLDS) if state == "complete" else ():
            torch.manual_seed(1000 * seed + 10 * number + fold)
            rows = cohort.fold_rows(fold)
            actual = cohort.cases["bone_age_months"].to_numpy()[rows]
            centre = np.clip(actual + bias + rng.normal(0, noise + 0.2 * number, len(rows)), 0, NUM_BINS - 1)
            logits = -0.5 * ((np.arange(NUM_BINS) - centre[:, None]) / 6) ** 2
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            error = np.abs(probabilities @ np.arange(NUM_BINS) - actual).mean()
            history = [Measurement(1.0, len(rows), 0.0, float(error), True)]
            model = BoneAgeNet(config, label_mean=100.0 + 20 * number, label_sd=30.0).eval()
            write_fold(target, fold, TrainedFold(model, probabilities.astype(np.float32), history), cohort)
            maes.append(float(error))
        if state == "complete":
            write_oof(target, cohort)
        if state != "running":
            outcome = {"state": state, "fold_mae_months": maes, "reason": "" if maes else "the test says so"}
            write_json(target / "outcome.json", outcome | ({"mae_months": float(np.mean(maes))} if maes else {}))
    return folder


def make_student(folder: Path, cohort_folder: Path) -> Candidate:
    """A network that errs less than any of `make_study`, as if an ensemble of one study had taught it."""
    trial = gather(make_study(folder, cohort_folder, states=("complete",), seed=1)).trials[0].trial
    trial.oof["predicted_months"] = trial.oof["bone_age_months"] + 0.1
    return Candidate(1, "study, distilled", trial)


def make_brief_study(folder: Path) -> Path:
    """A study of two trials, on a cohort beside it, that really train, for a moment."""
    torch.set_num_threads(1)
    study = make_study(folder / "study", make_cohort(folder / "cohort"), states=("complete",) * 2)
    for trial in (study / "trials").iterdir():
        record = read_json(trial / "config.json")
        write_json(trial / "config.json", record | {"config": record["config"] | {"epochs": 1, "precision": "fp32"}})
    return study
