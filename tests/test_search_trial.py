"""One trial's folder: what is trained, what is only read, and what is refused."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from preprocessing.cohort import Cohort
from preprocessing.storage import StorageError, write_json
from search.fold_files import mend_oof
from search.sampler import Outcome
from search.screen import SHARE, shortened
from search.space import TrialConfig
from search.trial import FoldReport, finished_trial, read_fold, run_trial, write_oof

TINY = TrialConfig(backbone="test_resnet", sex_features=4, batch_size=8, max_images_seen=40)


class Stopped(Exception):
    """Raised by the test in place of Tune's stop."""


def run(folder: Path, cohort: Cohort, *, until_fold: int = 99) -> list[FoldReport]:
    reports: list[FoldReport] = []

    def report(item: FoldReport) -> None:
        reports.append(item)
        if item.fold_finished and item.fold == until_fold:
            raise Stopped

    with contextlib.suppress(Stopped):
        run_trial(folder, TINY, cohort, report=report)
    return reports


def test_finished_folds_are_read_and_the_rest_is_trained(cohort: Cohort, tmp_path: Path) -> None:
    run(tmp_path, cohort, until_fold=0)
    reports = run(tmp_path, cohort)
    assert {(item.fold, item.replayed) for item in reports} == {(0, True), (1, False), (2, False)}
    assert (tmp_path / "oof.parquet").exists()


def test_a_stopped_trial_is_replayed_without_training_its_missing_folds(cohort: Cohort, tmp_path: Path) -> None:
    run(tmp_path, cohort, until_fold=0)
    write_json(tmp_path / "outcome.json", Outcome("stopped", (20.0,), "raced out").to_dict())
    reports = run(tmp_path, cohort)
    assert {(item.fold, item.replayed) for item in reports} == {(0, True)}
    assert read_fold(tmp_path, 1) is None


def test_a_replay_reports_what_the_first_run_reported(cohort: Cohort, tmp_path: Path) -> None:
    first, again = run(tmp_path, cohort), run(tmp_path, cohort)
    assert [item.measurement for item in first] == [item.measurement for item in again]
    assert [item.fold_mae_months for item in first] == [item.fold_mae_months for item in again]


def test_an_out_of_fold_table_with_a_case_missing_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    run(tmp_path, cohort)
    (tmp_path / "fold_1.parquet").write_bytes((tmp_path / "fold_0.parquet").read_bytes())
    with pytest.raises(StorageError, match="each case exactly once"):
        write_oof(tmp_path, cohort)


def test_an_out_of_fold_table_that_is_cut_short_is_refused_by_name_and_made_anew(
    cohort: Cohort, tmp_path: Path
) -> None:
    run(tmp_path, cohort)
    assert not mend_oof(tmp_path, cohort)
    table = tmp_path / "oof.parquet"
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=r"oof\.parquet is damaged .*python -m search resume"):
        finished_trial(tmp_path, 0, TINY, cohort.num_folds)
    assert mend_oof(tmp_path, cohort)
    assert table.read_bytes() == whole


def test_no_table_is_made_from_a_fold_that_is_damaged_too(cohort: Cohort, tmp_path: Path) -> None:
    run(tmp_path, cohort)
    for name in ("oof.parquet", "fold_1.parquet"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(StorageError, match=r"oof\.parquet is damaged, and .*fold_1\.parquet"):
        mend_oof(tmp_path, cohort)


@pytest.mark.parametrize(("images", "short"), [(12_000, 3000), (2500, 1536), (500, 500)])
def test_a_short_training_is_long_enough_to_tell_something(images: int, short: int) -> None:
    config = TrialConfig(backbone="test_resnet", batch_size=16, max_images_seen=images, frozen_epochs=2.0)
    made = shortened(config, 1000)
    assert (made.max_images_seen, made.frozen_epochs) == (short, pytest.approx(2.0 * short / images))


def test_a_short_training_comes_first_once_and_is_read_again(
    tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.screen.LEAST_STEPS", 5)
    said: list[FoldReport] = []
    config = replace(TINY, max_images_seen=320)
    run_trial(tmp_path, config, cohort, report=said.append, screen=True)
    assert [item.is_screen for item in said[:2]] == [True, False]
    short, first = said[0].measurement, next(item for item in said if item.fold_finished).measurement
    assert short.images_seen / first.images_seen == pytest.approx(SHARE)
    assert not list(tmp_path.glob("*.checkpoint"))
    again: list[FoldReport] = []
    run_trial(tmp_path, config, cohort, report=again.append, screen=True)
    assert again[0].is_screen
    assert again[0].replayed
    assert again[0].measurement == short


def test_a_short_training_changes_no_weight_of_the_folds(tmp_path: Path, cohort: Cohort) -> None:
    for name, screen in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        run_trial(tmp_path / name, TINY, cohort, screen=screen)
    first, second = (read_fold(tmp_path / name, 0) for name in ("with", "without"))
    assert first is not None
    assert second is not None
    assert first["weights_sha256"] == second["weights_sha256"]
