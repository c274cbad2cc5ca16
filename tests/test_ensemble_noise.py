"""Errors as served: what a mean of fold models takes from a member's error, as a second partition tells it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.noise import MIN_CASES, TYPICAL_CORRELATION, TYPICAL_SHARE, as_served, measure
from ensemble.select import Rules, select
from search.greedy import shares

CASES = 4000
OWN_T, NOISE_T = np.array([3.0, 7.0, 7.0, 7.0]), np.array([7.0, 2.0, 2.0, 2.0])
"""The first candidate is the best once its fold models are averaged, and no better than the others alone."""


def trainings(seed: int = 0, together: float = 2.0):
    """A function that trains all candidates once more: ``(T, C)`` errors, what they share and their noise."""
    rng = np.random.default_rng(seed)
    lasting_TC = rng.normal(0, 9, CASES) + rng.normal(0, 1, (4, CASES)) * OWN_T[:, None]

    def train() -> np.ndarray:
        return lasting_TC + rng.normal(0, 1, (4, CASES)) * NOISE_T[:, None] + rng.normal(0, together, CASES)

    return train


def moments(error_TC: np.ndarray) -> np.ndarray:
    return error_TC @ error_TC.T / error_TC.shape[1]


def test_two_trainings_tell_how_much_is_noise_and_how_alike_it_is() -> None:
    train = trainings()
    noise = measure(train(), train(), np.zeros(4, int))
    assert np.diag(noise.moment_TT) == pytest.approx(NOISE_T**2 + 4, rel=0.1)
    assert noise.moment_TT[1, 2] == pytest.approx(4, rel=0.2)
    assert (noise.num_measured, noise.num_cases) == (4, CASES)


def test_errors_as_served_have_the_moments_of_means_of_models() -> None:
    train = trainings()
    first_TC = train()
    served_TC = as_served(first_TC, measure(first_TC, train(), np.zeros(4, int)), 5)
    mean_TC = np.mean([train() for _ in range(5)], axis=0)
    assert moments(served_TC) == pytest.approx(moments(mean_TC), rel=0.06)
    assert np.abs(served_TC).mean(axis=1) == pytest.approx(np.abs(mean_TC).mean(axis=1), rel=0.04)


def test_the_noisy_candidate_gets_the_weight_that_its_mean_is_worth() -> None:
    train = trainings()
    first_TC, share_C = train(), shares(None, CASES)
    served_TC = as_served(first_TC, measure(first_TC, train(), np.zeros(4, int)), 5)
    mean_TC = np.mean([train() for _ in range(5)], axis=0)
    fitted, plain, best = (select(error_TC, share_C, "greedy", Rules()) for error_TC in (served_TC, first_TC, mean_TC))
    assert plain[0] < 0.4 < fitted[0]
    assert np.abs(fitted @ mean_TC).mean() < np.abs(plain @ mean_TC).mean()
    assert np.abs(fitted @ mean_TC).mean() == pytest.approx(np.abs(best @ mean_TC).mean(), rel=0.002)


def test_one_model_is_served_with_the_error_it_has() -> None:
    train = trainings()
    first_TC = train()
    assert as_served(first_TC, measure(first_TC, train(), np.zeros(4, int)), 1) is first_TC


def test_what_was_not_trained_again_is_given_the_mean_of_what_was() -> None:
    train = trainings(together=0.0)
    first_TC, second_TC = train(), train()
    second_TC[2:] = np.nan
    second_TC[0, MIN_CASES - 1 :] = np.nan
    noise = measure(first_TC, second_TC, np.zeros(4, int))
    assert noise.num_measured == 1
    share = noise.moment_TT[1, 1] / moments(first_TC)[1, 1]
    assert np.diag(noise.moment_TT) == pytest.approx(share * np.diag(moments(first_TC)))


def test_candidates_of_two_studies_lend_each_other_no_correlation() -> None:
    train = trainings(together=5.0)
    first_TC, second_TC = train(), train()
    within = measure(first_TC, second_TC, np.zeros(4, int))
    apart = measure(first_TC, second_TC, np.arange(4))
    assert within.correlation > 0.3
    assert apart.correlation == TYPICAL_CORRELATION


def test_without_a_second_partition_the_noise_is_taken_to_be_typical() -> None:
    noise = measure(np.array([[6.0, -6.0], [8.0, 8.0]]), np.full((2, 2), np.nan), np.zeros(2, int))
    off = TYPICAL_CORRELATION * TYPICAL_SHARE * 48
    assert noise.moment_TT == pytest.approx(np.array([[TYPICAL_SHARE * 36, off], [off, TYPICAL_SHARE * 64]]))
    assert (noise.num_measured, noise.num_cases) == (0, 0)


def candidates_like_real_ones(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Errors of candidates that err alike and differ in what is noise, ``(T, C)``: of one model each, on a thousand
    cases, and as means of three, on twenty thousand others."""
    num = int(rng.integers(4, 13))
    squared_T = rng.normal(13, 1.2, num) ** 2
    share_T = rng.uniform(0.1, 0.35, num)
    lasting_TT = np.sqrt(np.outer(squared_T * (1 - share_T), squared_T * (1 - share_T)))
    lasting_TT *= 0.9 + 0.1 * np.eye(num)
    factors = [np.linalg.cholesky(lasting_TT), np.diag(np.sqrt(squared_T * share_T))]

    def draw(num_cases: int, num_models: int) -> np.ndarray:
        lasting_TC, noise_TC = (factor @ rng.normal(size=(num, num_cases)) for factor in factors)
        return lasting_TC + noise_TC / np.sqrt(num_models)

    return draw(1000, 1), draw(20_000, 3)


@pytest.mark.parametrize("alike", [0.8, 0.85, 0.9, 0.93])
@pytest.mark.parametrize("num_models", [3, 5])
def test_candidates_that_err_alike_stay_an_ensemble(alike: float, num_models: int) -> None:
    """Half of what they differ in is noise here, whatever is typical."""
    rng = np.random.default_rng(0)
    own_TC = rng.normal(0, np.sqrt((1 - alike) / 2), (20, 4000))
    single_TC = rng.normal(0, np.sqrt(alike), 4000) + own_TC + rng.normal(0, np.sqrt((1 - alike) / 2), (20, 4000))
    noise = measure(single_TC, np.full_like(single_TC, np.nan), np.zeros(20, int))
    served_TC = as_served(single_TC, noise, num_models)
    assert np.median(np.corrcoef(served_TC)[np.triu_indices(20, 1)]) < 0.97
    assert np.count_nonzero(select(served_TC, shares(None, 4000), "greedy", Rules())) >= 6


def test_weights_by_typical_noise_serve_better_than_those_of_single_models() -> None:
    rng, gains = np.random.default_rng(0), []
    for _ in range(30):
        single_TC, served_TC = candidates_like_real_ones(rng)
        noise = measure(single_TC, np.full_like(single_TC, np.nan), np.zeros(len(single_TC), int))
        plain, fitted = (
            select(error_TC, shares(None, 1000), "greedy", Rules()) @ served_TC
            for error_TC in (single_TC, as_served(single_TC, noise, 3))
        )
        gains.append(np.abs(fitted).mean() - np.abs(plain).mean())
    assert np.mean(gains) + 2 * np.std(gains) / np.sqrt(len(gains)) < 0


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(2, 10))
def test_any_candidates_copies_among_them_come_out_finite_and_no_worse(seed: int, num: int, num_models: int) -> None:
    rng = np.random.default_rng(seed)
    first_TC = rng.normal(0, 10, (num, 300))
    first_TC[-1] = first_TC[0]
    second_TC = first_TC + rng.normal(0, rng.choice([0.0, 0.1, 20.0]), first_TC.shape)
    served_TC = as_served(first_TC, measure(first_TC, second_TC, np.zeros(num, int)), num_models)
    assert np.isfinite(served_TC).all()
    assert (np.square(served_TC).mean(axis=1) <= np.square(first_TC).mean(axis=1) * (1 + 1e-6) + 1e-6).all()
