"""A study's run, with the part that Ray does played by the test."""

import shutil
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preprocessing import environment
from preprocessing.cohort import Cohort
from preprocessing.storage import StorageError, as_path, read_json, write_json
from search import study as studies
from search.__main__ import main
from search.control import StudyControl
from search.partition import repartition
from search.sampler import Outcome
from search.space import TrialConfig
from search.study import create, run
from search.trial import clear_ended, partition_folder, run_fold, run_trial, trial_folder
from search.tuning import Compute, Job, StudyError
from tests.ensemble_fixtures import make_cohort


def begun(cohort_folder: Path, folder: Path, num_trials: int = 2) -> Path:
    create(
        str(cohort_folder), str(folder), space="tests.spaces_of_tests:tiny", num_trials=num_trials, pool_size=1, seed=0
    )
    return folder


def test_a_mistyped_warm_start_leaves_no_folder_behind(tmp_path: Path) -> None:
    cohort, study = make_cohort(tmp_path / "cohort", segmenter=b"weights"), tmp_path / "study"
    with pytest.raises(StorageError, match="mistyped"):
        create(
            str(cohort),
            str(study),
            space="quick",
            num_trials=1,
            pool_size=1,
            seed=0,
            warm_start=[str(tmp_path / "mistyped")],
        )
    assert not study.exists()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_torch_cannot_take_is_refused_before_anything_is_written(
    cohort_folder: Path, tmp_path: Path, seed: int
) -> None:
    with pytest.raises(StudyError, match="--seed must lie within 0 to 4294967295"):
        create(str(cohort_folder), str(tmp_path / "study"), space="quick", num_trials=1, pool_size=1, seed=seed)
    assert not (tmp_path / "study").exists()


def leave(trial: Path) -> None:
    """What a worker leaves that was stopped inside its fold, or killed while it wrote."""
    for name in ("fold_1.checkpoint", "fold_1.attempt.json", ".fold_1.checkpoint.x7"):
        (trial / name).write_bytes(b"{}")


def left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder / "trials")) for path in folder.glob("trials/*/*fold_*")}


def test_what_a_stopped_worker_wrote_late_is_gone_when_the_run_ends(
    cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(cohort_folder, tmp_path / "study")

    def fit(job: Job, compute: Compute, control: StudyControl) -> None:
        for state in ("stopped", ""):
            task = control.next()
            assert task is not None
            if state:
                outcome = Outcome(state, (20.0,), "raced out").to_dict()
                write_json(trial_folder(as_path(folder), task.number) / "outcome.json", outcome)
            leave(folder / "trials" / f"{task.number:04d}")

    monkeypatch.setattr(studies, "fit", fit)
    assert run(str(folder), Compute()) == "interrupted"
    kept = {f"0001/{name}" for name in ("fold_1.checkpoint", "fold_1.attempt.json", ".fold_1.checkpoint.x7")}
    assert left(folder) == kept  # a trial that is still open goes on with it


def test_what_a_killed_run_left_is_gone_on_resume(
    cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(cohort_folder, tmp_path / "study", 1)

    def killed(job: Job, compute: Compute, control: StudyControl) -> None:
        task = control.next()
        assert task is not None
        control.on_result(task.number, {"failed": "The loss became nan."}, fold=task.fold)
        control.on_end(task.number, crashed=False, fold=task.fold)
        leave(folder / "trials" / "0000")
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        run(str(folder), Compute())
    assert left(folder)
    monkeypatch.setattr(studies, "fit", lambda job, compute, control: None)
    run(str(folder), Compute())
    assert not left(folder)


def test_checkpoints_on_an_object_store_are_removed_too() -> None:
    study = as_path("memory://bucket/study-left-over")
    for number in (0, 1):
        (study / "trials" / f"000{number}" / "fold_0.checkpoint").write_bytes(b"x")
    write_json(study / "trials" / "0000" / "outcome.json", {})
    clear_ended(study)
    assert not (study / "trials" / "0000" / "fold_0.checkpoint").exists()
    assert (study / "trials" / "0001" / "fold_0.checkpoint").exists()


@pytest.mark.parametrize("where", ["{folder}/study", "memory://begun/twice/{unique}"])
def test_of_two_that_begin_a_study_at_once_the_second_is_refused_and_changes_nothing(
    where: str, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = where.format(folder=tmp_path, unique=uuid.uuid4().hex)
    both_have_looked, gather = threading.Barrier(2), studies.gather

    def gathered(*arguments: Any, **options: Any) -> Any:
        both_have_looked.wait(30)
        return gather(*arguments, **options)

    def begin(seed: int) -> int | str:
        try:
            create(str(cohort_folder), study, space="quick", num_trials=2, pool_size=1, seed=seed)
        except StudyError as error:
            return str(error)
        return seed

    monkeypatch.setattr(studies, "gather", gathered)
    with ThreadPoolExecutor(2) as pool:
        first, refusal = sorted(pool.map(begin, (1, 2)), key=lambda answer: isinstance(answer, str))
    assert f"holds a study already. Go on with: python -m search resume {study}" in str(refusal)
    assert read_json(as_path(study) / "study.json")["seed"] == first


def test_a_cohort_that_was_moved_is_asked_for(cohort_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort_folder, tmp_path / "cohort")
    folder = begun(tmp_path / "cohort", tmp_path / "study")
    (tmp_path / "cohort").rename(tmp_path / "elsewhere")
    with pytest.raises(StudyError, match=rf"cohort has no cohort\.json.* search resume {folder} --cohort FOLDER"):
        run(str(folder), Compute())


@pytest.mark.parametrize("content", ["{}", "[]", '{"format": "carpal-study-9"}'])
@pytest.mark.parametrize("command", ["status", "resume"])
def test_what_is_no_record_of_a_study_is_named(
    command: str,
    content: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(environment, "prepare", lambda own_ray: None)  # it is for a process of its own
    (tmp_path / "study.json").write_text(content)
    assert main([command, str(tmp_path)]) == 2
    assert f"search: {tmp_path}/study.json must be the record of a study" in capsys.readouterr().err


def test_status_names_the_file_that_a_trial_lacks(
    cohort_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun(cohort_folder, tmp_path / "study")
    for number in (0, 1):
        trial_folder(as_path(folder), number).mkdir(parents=True)
    write_json(trial_folder(as_path(folder), 1) / "outcome.json", Outcome("failed", (), "nan").to_dict())
    assert main(["status", str(folder)]) == 0
    begun_alone, ended = capsys.readouterr().out.splitlines()
    assert "trials/0000/config.json is missing. resume writes it again." in begun_alone
    assert "trials/0001/config.json is missing. Restore it from a backup." in ended


def test_resume_makes_a_table_anew_that_was_cut_short(
    cohort: Cohort, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(cohort_folder, tmp_path / "study", 1)

    def trained(job: Job, compute: Compute, control: StudyControl) -> None:
        task = control.next()
        assert task is not None
        settings = replace(TrialConfig.from_dict(task.settings), max_images_seen=40)
        run_trial(trial_folder(as_path(folder), task.number), settings, cohort)
        for fold in range(3):
            run_fold(partition_folder(trial_folder(as_path(folder), 0)), settings, second, fold)

    second = repartition(cohort, 0)
    monkeypatch.setattr(studies, "fit", trained)
    run(str(folder), Compute())
    tables = sorted(folder.glob("trials/0000/**/oof.parquet"))
    before = [table.read_bytes() for table in tables]
    assert len(tables) == 2
    for table in tables:
        table.write_bytes(table.read_bytes()[:-100])
    monkeypatch.setattr(studies, "fit", lambda job, compute, control: None)
    run(str(folder), Compute())
    assert [table.read_bytes() for table in tables] == before
