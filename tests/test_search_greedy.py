"""Greedy forward selection: never worse than the best trial on its own rows, and the same as written as loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.greedy import greedy, mean_absolute


def pool(seed: int, num_cases: int = 40, num_trials: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    actual_C = rng.uniform(10, 220, num_cases)
    scale_T = rng.uniform(4, 20, num_trials)
    shared_C1 = rng.normal(0, 5, (num_cases, 1))
    return actual_C[:, None] + shared_C1 + rng.normal(0, 1, (num_cases, num_trials)) * scale_T, actual_C


pools = st.builds(pool, st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 9))


@given(data=pools, limit=st.none() | st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_it_is_never_worse_than_the_best_single_trial_on_its_own_rows(data, limit):
    oof_CT, actual_C = data
    weights_T = greedy(oof_CT, actual_C, max_members=limit)
    assert weights_T.sum() == pytest.approx(1, abs=1e-12)
    assert np.count_nonzero(weights_T) <= (limit or 10)
    error = np.abs(oof_CT @ weights_T - actual_C).mean()
    assert error <= np.abs(oof_CT - actual_C[:, None]).mean(axis=0).min() + 1e-6


def test_it_agrees_with_the_selection_written_as_loops():
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


def test_counts_are_repeated_rows():
    oof_CT, actual_C = pool(6)
    rows = np.random.default_rng(1).integers(len(actual_C), size=len(actual_C))
    counted = greedy(oof_CT, actual_C, max_members=3, counts_C=np.bincount(rows, minlength=len(actual_C)))
    np.testing.assert_array_equal(counted, greedy(oof_CT[rows], actual_C[rows], max_members=3))


def test_errors_are_summed_the_same_in_parts():
    rng = np.random.default_rng(0)
    error, offset = rng.normal(size=(7, 30_000)), rng.normal(size=30_000)
    share = np.full(30_000, 1 / 30_000)
    np.testing.assert_allclose(mean_absolute(error, offset, share), np.abs(error + offset).mean(axis=1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_predictions_are_refused(bad):
    oof_CT, actual_C = pool(0)
    oof_CT[3, 1] = bad
    with pytest.raises(ValueError, match="1 of 5 trials lack predictions"):
        greedy(oof_CT, actual_C)


def test_a_missing_reference_is_refused():
    oof_CT, actual_C = pool(0)
    actual_C[0] = np.nan
    with pytest.raises(ValueError, match="reference bone age is missing"):
        greedy(oof_CT, actual_C)


@pytest.mark.parametrize(("oof_shape", "actual_shape"), [((4, 2), (3,)), ((0, 2), (0,)), ((4, 0), (4,)), ((4,), (4,))])
def test_shapes_that_do_not_fit_are_refused(oof_shape, actual_shape):
    with pytest.raises(ValueError, match="must be"):
        greedy(np.zeros(oof_shape), np.zeros(actual_shape))


@pytest.mark.parametrize(("bound", "sentence"), [("max_members", "1 member or more"), ("max_picks", "1 or more")])
def test_a_bound_of_none_is_refused(bound, sentence):
    with pytest.raises(ValueError, match=sentence):
        greedy(*pool(0), **{bound: 0})
