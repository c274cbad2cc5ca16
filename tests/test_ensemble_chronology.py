"""Bone age beside chronological age: published standard deviations, and three words."""

import numpy as np
import pytest

from ensemble.chronology import compare, sd_months
from ensemble.prediction import Prediction


@pytest.mark.parametrize(
    ("months", "sex", "sd"),
    [(60, "female", 8.6), (60, "male", 8.4), (78, "male", 9.7), (12, "female", 2.7), (204, "male", 15.4)],
)
def test_the_standard_deviation_is_the_table_s(months, sex, sd):
    assert sd_months(months, sex) == pytest.approx(sd)


@pytest.mark.parametrize(("months", "sex"), [(11, "male"), (205, "male"), (181, "female"), (60, None)])
def test_there_is_none_beyond_the_table(months, sex):
    found = compare(100.0, months, sex)
    assert (found.sd_months, found.sds, found.status, found.borderline) == (None, None, None, None)
    assert found.difference_months == 100 - months


@pytest.mark.parametrize(("bone_age", "status"), [(60, "normal"), (42, "delayed"), (78, "advanced"), (77, "normal")])
def test_two_standard_deviations_make_a_delay(bone_age, status):
    assert compare(float(bone_age), 60.0, "female").status == status


def test_an_interval_that_reaches_into_another_word_is_borderline():
    assert compare(60.0, 60.0, "female", (50.0, 70.0)).borderline is False
    assert compare(70.0, 60.0, "female", (60.0, 80.0)).borderline is True


@pytest.mark.parametrize("months", [-1.0, 241.0, float("nan")])
def test_what_is_no_child_s_age_is_refused(months):
    with pytest.raises(ValueError, match="chronological age must lie"):
        compare(60.0, months, "male")


def test_it_changes_nothing_but_itself():
    before = Prediction(60.0, 0.0, np.full(240, 1 / 240, np.float32), "ens-x", "r", intervals={90: (50.0, 70.0)})
    after = before.beside(40.0, "male")
    assert (after.bone_age_months, after.intervals) == (before.bone_age_months, before.intervals)
    assert after.chronology.status == "advanced"
    assert after.chronology.to_dict()["sds"] == pytest.approx(20 / sd_months(40, "male"), abs=1e-3)
