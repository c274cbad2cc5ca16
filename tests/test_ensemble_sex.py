"""The sex that a picture shows: doubts are rare where it was stated rightly, and absent where nobody can tell."""

import numpy as np
import pytest

from ensemble.sex import SexReading

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
