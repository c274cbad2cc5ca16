"""Selection: weights that are valid, repeatable, and follow their candidates; copies, rubbish and budgets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.select import METHODS, Rules, correlation, prune, select
from search.greedy import shares

METHOD = pytest.mark.parametrize("method", METHODS)


def pool(seed: int, num_cases: int = 40, num_candidates: int = 5) -> np.ndarray:
    """``(T, C)`` signed errors with a part that all candidates share."""
    rng = np.random.default_rng(seed)
    scale_T1 = rng.uniform(6, 10, (num_candidates, 1))
    return rng.normal(0, 5, num_cases) + rng.normal(0, 1, (num_candidates, num_cases)) * scale_T1


def chosen(error_TC: np.ndarray, method: str, **rules) -> np.ndarray:
    return select(error_TC, shares(None, error_TC.shape[1]), method, Rules(**rules))


pools = st.builds(pool, st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 20))


@METHOD
@given(error_TC=pools, limit=st.none() | st.integers(1, 10))
@settings(max_examples=40, deadline=None)
def test_weights_are_shares_of_at_most_the_allowed_members(method, error_TC, limit):
    weights_T = chosen(error_TC, method, max_members=limit)
    assert weights_T.shape == error_TC.shape[:1]
    assert (weights_T >= 0).all()
    assert weights_T.sum() == pytest.approx(1, abs=1e-12)
    assert np.count_nonzero(weights_T) <= (limit or 20)


@METHOD
@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_weight_follows_its_candidate_whatever_the_order(method, seed):
    error_TC = pool(seed, num_candidates=14)
    order = np.random.default_rng(seed).permutation(14)
    straight, shuffled = chosen(error_TC, method), chosen(error_TC[order], method)
    np.testing.assert_allclose(straight[order], shuffled, atol=1e-9)


@METHOD
def test_counting_cases_is_the_selection_on_the_repeated_rows(method):
    error_TC = pool(6, num_cases=80)
    rows = np.random.default_rng(1).integers(80, size=80)
    counted = select(error_TC, shares(np.bincount(rows, minlength=80), 80), method, Rules(max_members=3))
    np.testing.assert_allclose(counted, chosen(error_TC[:, rows], method, max_members=3), atol=1e-9)


@METHOD
def test_of_near_copies_the_best_alone_is_kept(method):
    base = pool(2, num_candidates=1)
    copies = base + np.linspace(0.3, 0.1, 4)[:, None] * np.sign(base)
    assert chosen(copies, method).tolist() == [0, 0, 0, 1]


@METHOD
def test_rubbish_gets_no_weight(method):
    error_TC = np.vstack([pool(3), 60 + pool(4, num_candidates=5)])
    assert not chosen(error_TC, method)[5:].any()


def test_the_pool_is_cut_to_the_best():
    error_TC = pool(5, num_candidates=30)
    kept = prune(error_TC, shares(None, 40), Rules(max_pool=4))
    assert set(kept) == set(np.abs(error_TC).mean(axis=1).argsort()[:4])


def test_opposite_errors_are_mixed_half_and_half():
    error_TC = np.stack([np.full(20, 5.0), np.full(20, -5.0)]) + pool(8, num_cases=20, num_candidates=2) * 1e-3
    for method in ("greedy", "least_squares", "equal"):
        np.testing.assert_allclose(chosen(error_TC, method), 0.5, atol=0.02)


def test_least_squares_finds_the_minimum_on_the_simplex_then_goes_a_quarter_of_the_way_to_equal():
    rng = np.random.default_rng(0)
    error_TC = rng.normal(0, [[3.0], [4.0], [6.0]], (3, 4000))
    fitted = chosen(error_TC, "least_squares", max_error_ratio=9)
    exact = 1 / np.square(error_TC).mean(axis=1)  # of independent errors
    np.testing.assert_allclose(fitted, 0.75 * exact / exact.sum() + 0.25 / 3, atol=0.02)


def test_greedy_from_many_is_as_good_on_new_cases_as_from_all_at_once():
    known, new = pool(1, 400, 30), pool(2, 4000, 30)
    scale = np.linspace(0.8, 1.4, 30)[:, None]
    weights = chosen(known * scale, "greedy", max_members=None)
    assert np.abs(weights @ (new * scale)).mean() < np.abs(new * scale).mean(axis=1).min()


def test_a_budget_is_kept_and_used_by_the_heaviest():
    error_TC, cost_T = pool(3), np.array([5.0, 1.0, 1.0, 1.0, 1.0])
    weights = select(error_TC, shares(None, 40), "equal", Rules(budget=3.0), cost_T=cost_T)
    assert weights[0] == 0
    assert np.count_nonzero(weights) == 3


def test_a_budget_that_holds_nobody_is_refused():
    with pytest.raises(ValueError, match=r"hold one candidate, got 2; the least is 5"):
        select(pool(3), shares(None, 40), "equal", Rules(budget=2.0), cost_T=np.full(5, 5.0))


def test_correlation_is_that_of_numpy():
    error_TC = pool(4)
    np.testing.assert_allclose(correlation(error_TC, shares(None, 40)), np.corrcoef(error_TC))


def test_an_error_that_never_varies_correlates_with_none():
    error_TC = np.vstack([np.full(40, 2.0), pool(4, num_candidates=1)])
    np.testing.assert_allclose(correlation(error_TC, shares(None, 40)), np.eye(2), atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"max_members": 0}, "1 member or more"),
        ({"max_pool": 0}, "must be 1 or more"),
        ({"max_error_ratio": 0.5}, "must be 1 or more"),
        ({"budget": 0.0}, "above 0"),
    ],
)
def test_wrong_rules_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Rules(**wrong)
