"""Small real things that many tests use: a labelled folder of pictures, a cohort, a study."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings

from preprocessing.cohort import Cohort
from preprocessing.prepare import prepare
from preprocessing.recipe import Recipe
from preprocessing.sources import read_rsna
from tests.ledger_fixtures import ledger, ledger_url, postgres_server, sqlite_ledger

__all__ = ["ledger", "ledger_url", "postgres_server", "sqlite_ledger"]  # fixtures, for every test

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
settings.register_profile("carpal", deadline=None)  # a busy machine is no failure
settings.load_profile("carpal")


def write_source(folder: Path, num_cases: int, *, seed: int = 0) -> Path:
    """Write an RSNA layout whose pictures show their bone age as the length of a bright bar."""
    rng = np.random.default_rng(seed)
    pictures = folder / "boneage-training-dataset"
    pictures.mkdir(parents=True)
    rows = []
    for i in range(num_cases):
        months = int(rng.integers(12, 216))
        image = rng.integers(0, 60, (128, 100)).astype(np.uint8)
        image[20 : 20 + months // 3, 30:70] += 150
        cv2.imwrite(str(pictures / f"{1000 + i}.png"), image)
        rows.append((1000 + i, months, bool(i % 2)))
    pd.DataFrame(rows, columns=["id", "boneage", "male"]).to_csv(folder / "boneage-training-dataset.csv", index=False)
    return folder


def plain_recipe(folder: Path) -> Path:
    """A recipe file for `prepare` that looks for no hand: the pictures of `write_source` show none."""
    path = folder / "plain.json"
    path.write_text('{"views": ["full"], "align": false, "clahe_clip": 0.0, "segmenter": ""}')
    return path


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder of 60 pictures."""
    return write_source(tmp_path_factory.mktemp("source") / "rsna", 60)


@pytest.fixture(scope="session")
def cohort_folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its cohort: 64 pixels, 3 folds, a tenth locked away."""
    out = tmp_path_factory.mktemp("cohort") / "cohort"
    prepare(read_rsna(source), out, Recipe(size=64), num_folds=3, test_fraction=0.1, seed=0, progress=lambda done: None)
    return out


@pytest.fixture(scope="session")
def cohort(cohort_folder: Path) -> Cohort:
    """The cohort, opened."""
    return Cohort.load(cohort_folder)
