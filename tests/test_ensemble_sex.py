"""The sex that a picture shows: doubts are rare where it was stated rightly, and absent where nobody can tell."""

import numpy as np
import pytest

from ensemble.bundle import Bundle
from ensemble.combine import combine
from ensemble.predictor import Predictor
from ensemble.sex import SexReading
from preprocessing.cohort import Cohort
from preprocessing.storage import write_json
from search.space import TrialConfig
from search.trial import read_guesses, run_trial, trial_folder
from tests.ensemble_fixtures import make_cohort, make_study

RNG = np.random.default_rng(0)
IS_MALE = RNG.random(2000) < 0.6
SHARP = 1 / (1 + np.exp(-(np.where(IS_MALE, 2.5, -2.5) + RNG.normal(0, 1.5, 2000))))


def test_few_rightly_stated_sexes_are_doubted_and_most_wrong_ones():
    reading = SexReading.fit(IS_MALE, SHARP)
    doubted = [bool(reading.doubts(m, p)) for m, p in zip(IS_MALE, SHARP, strict=True)]
    swapped = [bool(reading.doubts(not m, p)) for m, p in zip(IS_MALE, SHARP, strict=True)]
    assert np.mean(doubted) <= 0.011
    assert np.mean(swapped) == pytest.approx(reading.found, abs=1e-3)
    assert reading.found > 0.5


def test_the_warning_says_what_to_do():
    (warning,) = SexReading.fit(IS_MALE, SHARP).doubts(True, 0.0001)
    assert (warning.code, warning.action) == ("sex_improbable", "warned")
    assert "Check the sex" in warning.message


def test_a_guess_like_a_coin_warns_of_nothing():
    reading = SexReading.fit(IS_MALE, RNG.random(2000))
    assert reading.auc == pytest.approx(0.5, abs=0.05)
    assert reading.doubts(True, 0.0) == ()
    assert reading.prior(0.99) == reading.share_male == pytest.approx(0.6, abs=0.05)


def test_members_that_do_not_guess_leave_the_share_of_the_cases():
    reading = SexReading.fit(IS_MALE, None)
    assert reading.auc is None
    assert reading.prior(None) == reading.share_male


def test_the_json_form_comes_back():
    reading = SexReading.fit(IS_MALE, SHARP)
    assert SexReading.from_dict(reading.to_dict()) == reading


@pytest.mark.parametrize("change", [{"share_male": 2}, {"share_male": None}, {"auc": "good"}, {"more": 1}])
def test_a_reading_that_is_none_is_refused(change):
    with pytest.raises(ValueError, match="sex"):
        SexReading.from_dict(SexReading.fit(IS_MALE, SHARP).to_dict() | change)


@pytest.mark.slow
def test_a_search_that_guesses_the_sex_makes_a_bundle_that_can_doubt_it(tmp_path):
    study = make_study(tmp_path / "study", make_cohort(tmp_path / "cohort", num_cases=130), states=())
    cohort = Cohort.load(tmp_path / "cohort")
    config = TrialConfig(backbone="test_resnet", weight_sex=1.0, epochs=1, max_images_seen=16, batch_size=8)
    folder = trial_folder(study, 0)
    write_json(folder / "config.json", {"number": 0, "config": config.to_dict()})
    run_trial(folder, config, cohort)
    write_json(folder / "outcome.json", {"state": "complete", "fold_mae_months": [1.0, 1.0], "mae_months": 1.0})
    guess_C = read_guesses(folder)
    assert len(guess_C) == 124
    assert ((guess_C > 0) & (guess_C < 1)).all()
    combination = combine(study)
    np.testing.assert_allclose(combination.out_of_fold["male_probability_C"], guess_C, atol=1e-6)
    combination.write(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.manifest["calibration"]["sex"]["auc"] is not None  # untrained, it is a coin, and warns of nothing
    row = cohort.fold_rows(0)[:1]
    prediction = Predictor(bundle).predict(np.asarray(cohort.pixels[row]), np.array([True]))[0]
    assert (prediction.male_probability is None) == (bundle.manifest["calibration"]["sex"]["doubt_below"] is None)
