"""The benchmark against stock Ray Tune, on pictures of a bar."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preprocessing.storage import read_json
from tests.conftest import ROOT

IMAGES = 80


@pytest.mark.ray
@pytest.mark.slow
def test_both_sides_search_within_the_same_passes_and_keep_what_they_found(cohort_folder: Path, tmp_path: Path) -> None:
    words = ["--data", str(cohort_folder), "--out", str(tmp_path), "--space", "tests.spaces_of_tests:tiny"]
    words += ["--trials", "4", "--pool", "2", "--images", str(IMAGES), "--seeds", "1", "--without-asha"]
    command = [sys.executable, "-m", "benchmarks.stock", *words]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    ((ours, stock, fifo),) = found["passes"]
    outcomes = [read_json(path) for path in (tmp_path / "carpal_0").glob("trials/*/outcome.json")]
    assert ours == sum(outcome["images_seen"] for outcome in outcomes)  # short trainings are in it, once
    assert all(ours <= other < ours + 2 * IMAGES for other in (stock, fifo))
    for way in ("stock", "fifo"):
        spent = read_json(tmp_path / f"{way}_0" / "spent.json")
        assert not spent["errors"]
        assert {0, 1, 2} >= {int(fold) for folds in spent["folds"].values() for fold in folds}
        assert found[f"{way}_best"]["n"] == 6
    assert found["fifo_greedy"]["n"] == 6  # without ASHA nothing stops a fold

    again = subprocess.run(command, cwd=ROOT, env=dict(os.environ), check=True, capture_output=True, text=True)
    assert json.loads(again.stdout.splitlines()[-1]) == found  # nothing was trained anew
