"""Replays of fully trained configurations, on records written by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.paired import built, compared
from benchmarks.racing import ensemble_of
from benchmarks.replay import draw, full, race, redrawn, stock
from preprocessing.storage import as_path, write_json
from search.trial import trial_folder

SPACE = "tests.spaces_of_tests:tiny"
IMAGES = 80
GOOD, BAD = 10.0, 40.0


def recorded_study(folder: Path, levels: list[float]) -> Path:
    """Trials of three folds; each is measured at 80 % and at the end, the level of its error throughout."""
    draw(folder, SPACE, 3, len(levels), "full", IMAGES)
    for number, level in enumerate(levels):
        of_trial = as_path(trial_folder(folder, number))
        for fold in range(3):
            history = [
                {"epoch": 1.0, "images_seen": seen, "train_loss": 1.0, "mae_months": level, "final": seen == IMAGES}
                for seen in (IMAGES * 4 // 5, IMAGES)
            ]
            write_json(of_trial / f"fold_{fold}.json", {"history": history})
        short = {"epoch": 1.0, "images_seen": IMAGES // 4, "train_loss": 1.0, "mae_months": level, "final": True}
        write_json(of_trial / "screen.json", short)
        actual = np.linspace(20, 200, 30)
        sign = np.where(np.arange(30) % 2, 1, -1) * (-1) ** number
        table = pd.DataFrame({"bone_age_months": actual, "predicted_months": actual + level * sign})
        table.to_parquet(Path(str(of_trial)) / "oof.parquet")
    return folder


def test_the_race_spends_fewer_passes_on_bad_trials_and_completes_the_good_ones(tmp_path: Path) -> None:
    study = recorded_study(tmp_path, [GOOD] * 5 + [BAD] * 4)
    whole, raced = full(study, 3), race(study, SPACE, 3, "full", 3)
    assert whole.passes == 9 * 3 * IMAGES
    assert list(raced.complete) == [0, 1, 2, 3, 4]
    screened = 9 * IMAGES // 4
    assert raced.passes == screened + 5 * 3 * IMAGES  # each bad one has its short training alone
    assert raced.within(screened + 3 * 3 * IMAGES) == [0, 1, 2]


def test_a_replay_leaves_the_records_as_they_are(tmp_path: Path) -> None:
    study = recorded_study(tmp_path, [GOOD] * 5 + [BAD])
    assert race(study, SPACE, 3, "full", 3) == race(study, SPACE, 3, "full", 3)
    assert not list(study.glob("trials/*/outcome.json"))


def test_the_stock_rule_stops_single_folds(tmp_path: Path) -> None:
    """ASHA cuts at the best quarter of what came before: of five trials whose errors rise only the first is whole."""
    study = recorded_study(tmp_path, [10.0, 20.0, 30.0, 40.0, 50.0])
    ruled = stock(study, 3)
    assert list(ruled.complete) == [0]
    assert ruled.passes == 3 * IMAGES + 4 * 3 * IMAGES * 4 // 5


def test_the_ensemble_of_two_that_err_in_opposite_directions_errs_least(tmp_path: Path) -> None:
    study = recorded_study(tmp_path, [GOOD, GOOD])
    assert ensemble_of(study, [0, 1]).max() == pytest.approx(0)
    assert built(study, [0, 1], 2) == {0: 0.5, 1: 0.5}


def test_a_search_is_drawn_anew_from_the_records_without_one_twice(tmp_path: Path) -> None:
    studies = [recorded_study(tmp_path / name, [GOOD, BAD]) for name in ("a", "b")]
    redrawn(studies, tmp_path / "draw", SPACE, 0, 3, "full")
    links = {trial_folder(tmp_path / "draw", number).resolve() for number in range(3)}
    assert len(links) == 3
    assert links < {trial_folder(study, number) for study in studies for number in range(2)}
    assert full(tmp_path / "draw", 3).passes == 3 * 3 * IMAGES


def test_differences_are_paired_case_by_case() -> None:
    ours = np.array([[1.0, 2.0, 9.0], [1.0, 2.0, 9.0]])
    found = compared(ours, ours + 1)
    assert (found["difference_months"], found["ci95"], found["by_seed"]) == (-1.0, [-1.0, -1.0], [-1.0, -1.0])
