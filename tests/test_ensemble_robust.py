"""Combining members: a plain mixture while they agree, without the odd one where they do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.robust import case_weights, combine_members, parse

MEAN = {"rule": "mean", "trim": 0.0}
TRIMMED = {"rule": "trimmed_mean", "trim": 0.2}
MEDIAN = {"rule": "weighted_median", "trim": 0.0}
RULES = pytest.mark.parametrize("rule", [MEAN, TRIMMED, MEDIAN], ids=lambda rule: rule["rule"])


def members(*months: int) -> np.ndarray:
    """One case: each member is sure of one month."""
    return np.eye(240)[list(months)][:, None]


@RULES
def test_members_that_agree_are_mixed_by_their_weights(rule):
    mixture_BM, months_B, _ = combine_members(members(100, 110), np.array([0.3, 0.7]), rule)
    assert months_B == pytest.approx([107])
    assert mixture_BM[0, [100, 110]] == pytest.approx([0.3, 0.7])


@pytest.mark.parametrize("rule", [TRIMMED, MEDIAN], ids=lambda rule: rule["rule"])
def test_a_member_that_fails_grossly_is_left_out(rule):
    _, months_B, spread_B = combine_members(members(100, 102, 104, 106, 20), np.full(5, 0.2), rule)
    assert 100 <= months_B[0] <= 104
    assert spread_B[0] > 12  # the reader is told all the same


def test_a_plain_mean_follows_it():
    assert combine_members(members(100, 102, 104, 106, 20), np.full(5, 0.2), MEAN)[1] == pytest.approx([86.4])


def test_a_trimmed_mean_is_that_of_the_middle():
    _, months_B, _ = combine_members(members(20, 100, 110, 120, 200), np.full(5, 0.2), TRIMMED)
    assert months_B == pytest.approx([110])


def test_a_weighted_median_stands_where_half_of_the_weight_lies_below():
    _, months_B, _ = combine_members(members(20, 100, 150), np.array([0.3, 0.1, 0.6]), MEDIAN)
    assert months_B == pytest.approx([150])


@RULES
@given(seed=st.integers(0, 2**32 - 1), num=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_the_mixture_is_a_distribution_whose_mean_is_the_answer(rule, seed, num):
    rng = np.random.default_rng(seed)
    distributions = rng.dirichlet(np.full(240, 0.02), (num, 3))
    mixture_BM, months_B, spread_B = combine_members(distributions, rng.dirichlet(np.ones(num)), rule)
    np.testing.assert_allclose(mixture_BM.sum(axis=1), 1)
    np.testing.assert_allclose(mixture_BM @ np.arange(240), months_B)
    assert (spread_B >= 0).all()


@RULES
def test_a_shift_of_all_members_shifts_nothing_else(rule):
    months_EB = np.random.default_rng(0).normal(100, 30, (5, 20))
    weights_E = np.array([0.1, 0.2, 0.3, 0.3, 0.1])
    plain, shifted = (case_weights(months, weights_E, rule) for months in (months_EB, months_EB - 100))
    np.testing.assert_allclose(plain, shifted)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {"rule": "mean"},
        {"rule": "mean", "trim": 0.1},
        {"rule": "mode", "trim": 0.0},
        {"rule": "trimmed_mean", "trim": 0.5},
        {"rule": "trimmed_mean", "trim": float("nan")},
        {"rule": "mean", "trim": False},
        {"rule": "mean", "trim": 0.0, "above": 3},
    ],
)
def test_an_unknown_combination_is_refused(wrong):
    with pytest.raises(ValueError, match=r"combination|trimmed mean"):
        parse(wrong)


@RULES
def test_what_a_manifest_may_say_is_read(rule):
    assert parse(dict(rule)) == rule
