"""What a worker tells the driver; Ray's part is played by the test."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from preprocessing.storage import write_json
from search import tuning
from search.limits import Limits
from search.space import TrialConfig
from search.trial import trial_folder
from search.tuning import Job, trainable


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the worker reports."""
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tuning.tune, "report", reports.append)
    return reports


@pytest.fixture
def job(cohort_folder: Path, tmp_path: Path) -> Job:
    """A study whose trial 0 was drawn."""
    config = TrialConfig(backbone="test_resnet", max_images_seen=80, batch_size=8)
    write_json(trial_folder(tmp_path, 0) / "config.json", {"config": config.to_dict()})
    return Job(
        study=str(tmp_path),
        cohort=str(cohort_folder),
        space="quick",
        num_trials=1,
        limits=Limits(),
        screen=False,
        seed=0,
    )


def test_a_cohort_that_is_cut_short_halts_the_study_and_fails_no_trial(
    job: Job, said: list[dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(job.cohort, tmp_path / "cohort")
    with (tmp_path / "cohort" / "pixels.npy").open("r+b") as file:
        file.truncate(200)
    damaged = Job(**{**vars(job), "cohort": str(tmp_path / "cohort")})
    trainable({"number": 0}, job=damaged, num_threads=1)
    assert [set(report) for report in said] == [{"halted"}]
    assert "pixels.npy must be whole" in said[0]["halted"]
