"""Bone age beside chronological age: published standard deviations, and three words."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ensemble.bundle import Bundle
from ensemble.chronology import PUBLISHED, NormsError, compare, read_norms, sd_months
from ensemble.combine import combine
from ensemble.evaluate import evaluate
from ensemble.prediction import Prediction
from ensemble.predictor import Predictor
from tests.ensemble_fixtures import SIZE, make_cohort, make_study


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
    before = Prediction(
        60.0, 0.0, np.full(240, 1 / 240, np.float32), "ens-x", "r", "b", "c", intervals={90: (50.0, 70.0)}
    )
    after = before.beside(40.0, "male")
    assert (after.bone_age_months, after.intervals) == (before.bone_age_months, before.intervals)
    assert after.chronology.status == "advanced"
    assert after.chronology.to_dict()["sds"] == pytest.approx(20 / sd_months(40, "male"), abs=1e-3)


NORMS = """sex,age_months,mean_months,sd_months,source
female,60,66,10,"Own children, 2020"
female,120,114,20,"Own children, 2020"
"""


def test_norms_of_a_site_judge_by_their_own_mean_and_spread_and_are_cited():
    norms = read_norms(NORMS.encode())
    found = compare(100.0, 90.0, "female", (60.0, 140.0), norms)
    assert (found.sd_months, found.sds, found.source) == (15, pytest.approx(10 / 15), "Own children, 2020")
    assert found.borderline is True
    assert compare(100.0, 90.0, "male", norms=norms).sds is None
    assert compare(100.0, 130.0, "female", norms=norms).status is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("sd_months", "spread"), "sd_months is missing"),
        (("120,114", "50,114"), "ascending order"),
        (("114,20", "114,0"), "those of 'female' do not"),
        (("female,60", "girl,60"), "those of 'female' do not"),
        (("66,10", "66,ten"), "Norms must be numbers"),
        (('20,"Own children, 2020"', "20,Another"), "cite one source, the same in every row, got 2"),
        (('20,"Own children, 2020"', "20,"), "got 1; 1 rows have none"),
        (("female,60,66", ",36,40,8,\nfemale,60,66"), "those of nan do not"),
    ],
)
def test_norms_that_cannot_be_used_are_refused(change, sentence):
    with pytest.raises(NormsError, match=sentence):
        read_norms(NORMS.replace(*change).encode())


def test_empty_rows_at_the_end_of_norms_are_none():
    assert read_norms(f"{NORMS},,,,\n".encode()) == read_norms(NORMS.encode())


def test_a_bundle_with_norms_that_were_taken_before_answers_by_them_as_then(tmp_path, caplog):
    torch.set_num_threads(1)
    first, *rest = NORMS.splitlines(keepends=True)[1:]
    without_source = [row.replace('"Own children, 2020"', "") for row in rest]
    before = "".join([NORMS.splitlines(keepends=True)[0], first, *without_source, ",36,40,8,\n"]).encode()
    with pytest.raises(NormsError):
        read_norms(before)
    study = make_study(tmp_path / "study", make_cohort(tmp_path / "cohort"), states=("complete",))
    replace(combine(study), norms=before).write(tmp_path / "bundle")
    assert Predictor(Bundle.load(tmp_path / "bundle")).norms == read_norms(NORMS.encode())
    assert "norms that name no sex judge no answer: 1." in caplog.text


def test_a_bundle_carries_the_norms_that_it_was_built_with(tmp_path):
    torch.set_num_threads(1)
    study = make_study(tmp_path / "study", make_cohort(tmp_path / "cohort"), states=("complete",))
    plain = combine(study)
    version = replace(plain, norms=NORMS.encode()).write(tmp_path / "own")
    assert version != plain.write(tmp_path / "plain")
    pixels = np.zeros((1, 1, SIZE, SIZE), np.uint8)
    (own,), (published,) = (
        Predictor(Bundle.load(tmp_path / name)).predict(pixels, np.array([False])) for name in ("own", "plain")
    )
    assert own.beside(90.0, "female").chronology.source == "Own children, 2020"
    assert published.beside(90.0, "female").chronology.source == PUBLISHED.source
    assert "Own children, 2020; male children by Gilsanz" in (tmp_path / "own" / "report.html").read_text()
    found = evaluate(Predictor(Bundle.load(tmp_path / "own")), tmp_path / "cohort")
    assert found.report["significant_errors"]["norms"].startswith("Own children, 2020; male children by Gilsanz")
    assert found.norms.source == "Own children, 2020"
