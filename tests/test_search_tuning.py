"""What a worker tells the driver; Ray's part is played by the test."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from preprocessing.cluster import connection
from preprocessing.cohort import Cohort
from preprocessing.storage import write_json
from search import tuning
from search.limits import Limits
from search.placement import Share
from search.space import TrialConfig
from search.spaces import own_modules
from search.tasks import cause_of
from search.trial import trial_folder
from search.tuning import Job, trainable
from tests.conftest import ROOT


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
        cohort_hash=Cohort.load(cohort_folder).hash,
        space="quick",
        num_trials=1,
        num_folds=3,
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
    trainable({"number": 0}, job=damaged, share=Share(1, 1, 0.0))
    assert [set(report) for report in said] == [{"halted"}]
    assert "pixels.npy must be whole" in said[0]["halted"]


def test_another_cohort_on_a_worker_s_machine_halts_the_study_and_trains_nothing(
    job: Job, said: list[dict[str, Any]]
) -> None:
    trainable({"number": 0}, job=Job(**{**vars(job), "cohort_hash": "0" * 64}), share=Share(1, 1, 0.0))
    assert [set(report) for report in said] == [{"halted"}]
    assert said[0]["halted"].endswith("is another cohort than the study was begun with. Restore it there.")


def test_a_crash_of_no_known_kind_is_told_before_the_worker_dies_of_it(
    job: Job, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("cuDNN error:\n  not supported" + 1000 * "!")

    monkeypatch.setattr(tuning, "run_trial", broken)
    with pytest.raises(RuntimeError):
        trainable({"number": 0}, job=job, share=Share(1, 1, 0.0))
    (told,) = said
    assert told["crashed"].startswith("RuntimeError: cuDNN error: not supported!!!")
    assert re.search(r"!{3} \(.*/test_search_tuning\.py:\d+\)$", told["crashed"])
    assert len(told["crashed"]) < 500


def test_a_crash_inside_a_library_is_placed_in_the_code_that_called_it() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.nn.Conv2d(3, 1, 1)(torch.zeros(1, 1, 4, 4))
    assert re.search(r"test_search_tuning\.py:\d+\)$", cause_of(caught.value))


@pytest.mark.parametrize(("gpus", "fractions"), [(0.25, [0.25 - 1 / 16]), (1.0, [])])
def test_who_shares_a_gpu_leaves_room_for_the_others_and_for_cuda_itself(
    gpus: float, fractions: list[float], job: Job, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=2**33))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", taken.append)
    monkeypatch.setattr(tuning.ray, "get_gpu_ids", lambda: [0])
    monkeypatch.setattr(tuning, "run_trial", lambda *arguments, **options: None)
    trainable({"number": 0}, job=job, share=Share(1, 1, gpus))
    assert (taken, said) == (fractions, [])


def test_a_machine_without_the_space_s_module_halts_the_study_and_fails_no_trial(
    job: Job, said: list[dict[str, Any]]
) -> None:
    trainable({"number": 0}, job=Job(**{**vars(job), "space": "no_such_module:space"}), share=Share(1, 1, 0.0))
    (told,) = said
    assert "--space 'no_such_module:space' cannot be imported" in told["halted"]


def test_a_gpu_that_torch_does_not_find_halts_the_study(
    job: Job, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning.ray, "get_gpu_ids", lambda: [0])
    monkeypatch.setattr(tuning.torch.cuda, "is_available", lambda: False)
    trainable({"number": 0}, job=job, share=Share(1, 1, 1.0))
    (told,) = said
    assert "torch finds none" in told["halted"]


def test_workers_of_a_joined_cluster_get_the_user_s_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_space.py").write_text("def wide(trial): return {}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    brought = connection("auto", modules=own_modules("my_own_space:wide"))["runtime_env"]["py_modules"]
    assert str(tmp_path / "my_own_space.py") in brought
    assert own_modules("tests.spaces_of_tests:tiny") == [str(ROOT / "tests")]
    assert own_modules("quick") == []
