"""Selectors: weights that are valid, repeatable, and never lose to the best single trial on their own rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.select import SELECTORS, bias_corrected_mae, equal, greedy


def pool(seed: int, num_cases: int = 40, num_trials: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    actual_C = rng.uniform(10, 220, num_cases)
    scale_T = rng.uniform(4, 20, num_trials)
    shared_C1 = rng.normal(0, 5, (num_cases, 1))
    return actual_C[:, None] + shared_C1 + rng.normal(0, 1, (num_cases, num_trials)) * scale_T, actual_C


pools = st.builds(pool, st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 9))


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
@given(data=pools, limit=st.none() | st.integers(1, 10))
@settings(max_examples=40, deadline=None)
def test_weights_are_shares_of_at_most_the_allowed_members(selector, data, limit):
    weights_T = selector(*data, max_members=limit)
    assert weights_T.shape == (data[0].shape[1],)
    assert (weights_T >= 0).all()
    assert weights_T.sum() == pytest.approx(1, abs=1e-12)
    assert np.count_nonzero(weights_T) <= (limit or 10)


@given(data=pools, limit=st.none() | st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_greedy_is_never_worse_than_the_best_single_trial_on_its_own_rows(data, limit):
    oof_CT, actual_C = data
    error = np.abs(oof_CT @ greedy(oof_CT, actual_C, max_members=limit) - actual_C).mean()
    assert error <= np.abs(oof_CT - actual_C[:, None]).mean(axis=0).min() + 1e-6


@given(data=pools, seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_greedy_weight_follows_its_trial_whatever_the_order(data, seed):
    oof_CT, actual_C = data
    order = np.random.default_rng(seed).permutation(oof_CT.shape[1])
    straight, shuffled = greedy(oof_CT, actual_C), greedy(oof_CT[:, order], actual_C)
    # one case can be met exactly by several mixtures: then only the error is determined
    errors = [np.abs(oof_CT @ straight - actual_C).mean(), np.abs(oof_CT[:, order] @ shuffled - actual_C).mean()]
    assert errors[0] == pytest.approx(errors[1], abs=1e-6)
    if len(actual_C) > 10:
        np.testing.assert_allclose(straight[order], shuffled)


def test_greedy_agrees_with_the_selection_written_as_loops():
    oof_CT, actual_C = pool(3)
    picks: list[int] = []
    errors = []
    for _ in range(20):
        candidates = [
            np.abs(oof_CT[:, [*picks, trial]].mean(axis=1) - actual_C).mean() for trial in range(oof_CT.shape[1])
        ]
        picks.append(int(np.argmin(candidates)))
        errors.append(min(candidates))
    best = picks[: int(np.argmin(errors)) + 1]
    expected = np.bincount(best, minlength=oof_CT.shape[1]) / len(best)
    np.testing.assert_allclose(greedy(oof_CT, actual_C, max_picks=20), expected)


def test_of_equal_trials_the_first_is_kept_alone():
    actual_C = np.arange(20.0)
    oof_CT = np.repeat((actual_C + np.resize([3.0, -2.0], 20))[:, None], 4, axis=1)
    assert greedy(oof_CT, actual_C).tolist() == [1, 0, 0, 0]


def test_equal_keeps_the_trials_of_lowest_error():
    actual_C = np.zeros(10)
    oof_CT = np.full((10, 4), [4.0, 1.0, 3.0, 2.0])
    assert equal(oof_CT, actual_C, max_members=2).tolist() == [0, 0.5, 0, 0.5]


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
def test_counting_each_case_once_is_the_plain_selection(selector):
    oof_CT, actual_C = pool(5)
    counts_BC = np.ones((2, len(actual_C)), int)
    both = selector(oof_CT, actual_C, max_members=3, counts_BC=counts_BC)
    np.testing.assert_array_equal(both, [selector(oof_CT, actual_C, max_members=3)] * 2)


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
def test_a_bootstrap_round_is_the_selection_on_the_repeated_rows(selector):
    oof_CT, actual_C = pool(6)
    rows = np.random.default_rng(1).integers(len(actual_C), size=len(actual_C))
    counts_BC = np.bincount(rows, minlength=len(actual_C))[None]
    in_one_go = selector(oof_CT, actual_C, max_members=3, counts_BC=counts_BC)[0]
    np.testing.assert_array_equal(in_one_go, selector(oof_CT[rows], actual_C[rows], max_members=3))


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_predictions_are_refused(selector, bad):
    oof_CT, actual_C = pool(0)
    oof_CT[3, 1] = bad
    with pytest.raises(ValueError, match="1 of 5 trials lack predictions"):
        selector(oof_CT, actual_C)


def test_a_missing_reference_is_refused():
    oof_CT, actual_C = pool(0)
    actual_C[0] = np.nan
    with pytest.raises(ValueError, match="reference bone age is missing"):
        greedy(oof_CT, actual_C)


@pytest.mark.parametrize(("oof_shape", "actual_shape"), [((4, 2), (3,)), ((0, 2), (0,)), ((4, 0), (4,)), ((4,), (4,))])
def test_shapes_that_do_not_fit_are_refused(oof_shape, actual_shape):
    with pytest.raises(ValueError, match="must be"):
        greedy(np.zeros(oof_shape), np.zeros(actual_shape))


def test_an_ensemble_of_no_member_is_refused():
    with pytest.raises(ValueError, match="1 member or more"):
        greedy(*pool(0), max_members=0)


def test_the_corrected_score_is_higher_than_the_score_on_the_selected_rows():
    oof_CT, actual_C = pool(7, num_cases=60, num_trials=9)
    optimistic = np.abs(oof_CT @ greedy(oof_CT, actual_C) - actual_C).mean()
    corrected = bias_corrected_mae(oof_CT, actual_C, greedy)
    assert corrected.mae_months > optimistic
    assert corrected.ci95[0] < corrected.mae_months < corrected.ci95[1]


def test_the_corrected_score_is_close_to_the_error_on_new_cases():
    rng = np.random.default_rng(0)
    actual_C = rng.uniform(10, 220, 4000)
    oof_CT = actual_C[:, None] + rng.normal(0, 8, (4000, 8)) * rng.uniform(0.8, 1.6, 8)
    known, new = slice(0, 150), slice(150, None)
    weights_T = greedy(oof_CT[known], actual_C[known])
    true_error = np.abs(oof_CT[new] @ weights_T - actual_C[new]).mean()
    corrected = bias_corrected_mae(oof_CT[known], actual_C[known], greedy)
    assert corrected.ci95[0] < true_error < corrected.ci95[1]


def test_the_corrected_score_is_the_same_twice():
    assert bias_corrected_mae(*pool(1), greedy, num_rounds=20) == bias_corrected_mae(*pool(1), greedy, num_rounds=20)


def test_one_case_has_no_corrected_score():
    assert bias_corrected_mae(*pool(1, num_cases=1), greedy) is None
