"""The page about a cohort: what looks wrong is found, and labels of the locked test take no part."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from preprocessing import overview
from preprocessing.__main__ import main
from preprocessing.acquisition import find_styles
from preprocessing.cohort import Cohort
from preprocessing.inspection import cohort_page, look_at
from preprocessing.outliers import MIN_CASES, check_labels

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them


def with_months(cohort: Cohort, months: pd.Series) -> Cohort:
    return replace(cohort, cases=cohort.cases.assign(bone_age_months=months))


def locked_labels_dealt_anew(cohort: Cohort) -> Cohort:
    """The same totals, other labels: those of the locked test go to each other's cases."""
    months = cohort.cases["bone_age_months"].copy()
    locked = np.flatnonzero(cohort.cases["is_test"])
    assert len(set(months[locked])) > 1
    months[locked] = np.roll(months[locked], 1)
    return with_months(cohort, months)


def of_one_kind(cohort: Cohort, brighter: Sequence[int] | np.ndarray = ()) -> Cohort:
    """The cohort with noise for pictures, some of them as if they came from a machine with a lighter background."""
    rng = np.random.default_rng(0)
    level = np.clip(rng.normal(60, 10, (len(cohort.cases), 1, 1, 1)), 20, 100)
    level[np.asarray(brighter, int)] += 120
    pixels = np.clip(level + rng.normal(0, 20, cohort.pixels.shape), 1, 255).astype(np.uint8)
    return replace(cohort, pixels=pixels)  # type: ignore[arg-type]


def test_a_label_far_from_its_picture_is_listed_first(cohort: Cohort) -> None:
    open_rows = np.flatnonzero(~cohort.cases["is_test"])
    months = cohort.cases["bone_age_months"].copy()
    row = open_rows[np.argmin(months[open_rows])]
    months[row] = 200.0
    check = check_labels(with_months(cohort, months))
    assert check is not None
    assert check.worst(1).tolist() == [row]


def test_estimates_are_better_than_the_median(cohort: Cohort) -> None:
    check = check_labels(cohort)
    assert check is not None
    assert check.mae_months < 0.5 * check.median_mae_months


@pytest.mark.slow
def test_an_estimate_does_not_see_its_own_label(cohort: Cohort) -> None:
    row = int(np.flatnonzero(~cohort.cases["is_test"])[0])
    fold = cohort.cases["fold"] == cohort.cases["fold"][row]
    months = cohort.cases["bone_age_months"].copy()
    months[row] += 3
    one, other = check_labels(cohort), check_labels(with_months(cohort, months))
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.estimate[fold], other.estimate[fold], rtol=1e-6)


@pytest.mark.slow
def test_labels_of_the_locked_test_are_neither_used_nor_shown(cohort: Cohort) -> None:
    other = locked_labels_dealt_anew(cohort)
    assert cohort_page(cohort, *look_at(cohort)) == cohort_page(other, *look_at(other))


def test_no_case_of_the_locked_test_is_listed_or_an_example(cohort: Cohort) -> None:
    check = check_labels(cohort)
    assert check is not None
    locked = set(np.flatnonzero(cohort.cases["is_test"]).tolist())
    assert not locked & set(check.worst(len(cohort.cases)).tolist())
    assert not locked & {row for band in overview.bands(cohort) for row in band.rows}


def test_too_few_cases_are_not_checked(cohort: Cohort) -> None:
    few = replace(
        cohort, cases=cohort.cases.iloc[: MIN_CASES - 1], pixels=cohort.pixels[: MIN_CASES - 1]  # type: ignore[arg-type]
    )  # fmt: skip
    assert check_labels(few) is None


def test_two_acquisition_styles_are_told_apart(cohort: Cohort) -> None:
    rows = np.arange(0, len(cohort.cases), 3)
    found = find_styles(of_one_kind(cohort, rows)).styles
    assert len(found) == 2
    assert sorted(found[1].rows.tolist()) == rows.tolist()


def test_a_style_that_goes_with_age_is_said_to(cohort: Cohort) -> None:
    is_old = cohort.cases["bone_age_months"] > cohort.cases["bone_age_months"].median()
    found = find_styles(of_one_kind(cohort, np.flatnonzero(is_old))).styles
    assert [style.differs for style in found] == [True, True]
    assert found[0].months_apart[0] * found[1].months_apart[0] < 0


def test_pictures_of_one_kind_are_one_style(cohort: Cohort) -> None:
    assert len(find_styles(of_one_kind(cohort)).styles) == 1


def test_splits_add_up_to_the_cohort(cohort: Cohort) -> None:
    found = overview.splits(cohort)
    assert [split.name for split in found] == ["fold 0", "fold 1", "fold 2", "locked test"]
    assert sum(split.cases for split in found) == len(cohort.cases)
    assert all(split.girls + split.boys == split.cases for split in found)


def test_sizes_are_those_of_the_files(cohort: Cohort) -> None:
    sizes = overview.sizes(cohort)
    assert sizes is not None
    assert (sizes.known, sizes.least, sizes.most, sizes.shapes) == (len(cohort.cases), (100, 128), (100, 128), 1)
    assert overview.sizes(replace(cohort, source="/nowhere")) is None


def test_a_group_says_why_and_how_far_its_labels_lie_apart(cohort: Cohort) -> None:
    rows = np.flatnonzero(~cohort.cases["is_test"])[:2]
    cases = cohort.cases.assign(group=np.arange(len(cohort.cases)), patient="")
    cases.loc[rows, "group"] = 0 if 0 in rows else rows[0]
    apart = abs(cases["bone_age_months"][rows[0]] - cases["bone_age_months"][rows[1]])
    (group,) = overview.groups(replace(cohort, cases=cases))
    assert (group.rows, group.reason, group.spread_months) == (tuple(rows), "nearly the same picture", apart)
    cases.loc[rows, "patient"] = "7"
    assert overview.groups(replace(cohort, cases=cases))[0].reason == "same patient"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_the_command_writes_the_overview(cohort_folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    assert main(["inspect", str(cohort_folder), str(out)]) == 0
    if suffix == ".png":
        assert cv2.imread(str(out)) is not None
    else:
        page = out.read_text()
        assert "<script" not in page
        assert "://" not in page
