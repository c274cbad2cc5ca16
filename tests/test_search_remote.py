"""A study, and the ensemble made of it, on storage that is no file system of this machine."""

from pathlib import Path

import pytest

from ensemble.__main__ import main as ensemble
from ensemble.registry import Registry
from preprocessing.cohort import Cohort
from preprocessing.storage import as_path, read_json, write_json
from search.control import StudyControl, result_of
from search.racing import Race, make_rules
from search.sampler import Sampler
from search.trial import FoldReport, finished_trials, run_trial, trial_folder


@pytest.mark.slow
def test_a_study_on_an_object_store_becomes_a_published_ensemble(
    cohort: Cohort, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARPAL_CACHE", str(tmp_path))
    study = as_path("memory://bucket/study")
    about = read_json(cohort_folder / "cohort.json")
    record = {"name": "remote", "cohort": str(cohort_folder), "cohort_hash": cohort.hash, "num_folds": 3, "seed": 0}
    write_json(
        study / "study.json",
        record | {"format": "carpal-study-1", "recipe": about["recipe"], "recipe_hash": about["recipe_hash"]},
    )
    sampler = Sampler(study, name="remote", space="tests.spaces_of_tests:tiny", seed=0, num_trials=2)
    control = StudyControl(sampler, Race(make_rules("matched", True, 2)), num_folds=3)
    while (following := control.next()) is not None:
        number = following[0]

        def report(item: FoldReport, number: int = number) -> None:
            control.on_result(number, result_of(item))

        run_trial(trial_folder(study, number), sampler.config(number), cohort, report=report)
        control.on_end(number, crashed=False)
    assert [trial.number for trial in finished_trials(study)] == [0, 1]
    assert ensemble(["build", "memory://bucket/study", "memory://bucket/registry"]) == 0
    assert Registry("memory://bucket/registry").resolve("champion").version.startswith("ens-")
