"""The confidence sequence: it covers under any peeking, for any distribution in its bounds, and it narrows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.confidence import anytime_p, confidence_sequence, log_capital

RNG = np.random.default_rng


def ever_excludes(z_N: np.ndarray, mean: float, alpha: float) -> bool:
    bound_N = np.ones(len(z_N))
    capital = [log_capital(z_N, bound_N, side=side, mean=mean) for side in (1.0, -1.0)]
    return bool(np.maximum(*capital).max() > np.log(2 / alpha))


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng: rng.uniform(-1, 1, 1000), 0.0),
        (lambda rng: rng.choice([-1.0, 1.0], 1000), 0.0),
        (lambda rng: rng.choice([-1.0, 0.05], 1000, p=[1 / 21, 20 / 21]), 0.0),  # rare and terrible
        (lambda rng: rng.beta(0.5, 0.1, 1000), 0.5 / 0.6),
    ],
    ids=["uniform", "coin", "rare", "beta"],
)
def test_looked_at_after_every_observation_it_is_rarely_ever_wrong(draw: object, mean: float) -> None:
    wrong = [ever_excludes(draw(RNG(seed)), mean, alpha=0.2) for seed in range(200)]  # type: ignore[operator]
    assert np.mean(wrong) <= 0.2


def test_it_narrows_to_the_truth() -> None:
    z_N = np.clip(RNG(0).normal(0.3, 0.5, 20_000), -2, 2)
    found = [confidence_sequence(z_N[:n], np.full(n, 2.0)) for n in (20, 200, 2000, 20_000)]
    widths = [interval.upper - interval.lower for interval in found]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.04
    assert all(interval.lower < 0.3 < interval.upper for interval in found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.floats(0.01, 0.4))
def test_it_holds_the_mean_and_stays_within_the_bounds(values: list[float], alpha: float) -> None:
    z_N = np.array(values)
    found = confidence_sequence(z_N, np.ones(len(z_N)), alpha)
    assert -1 <= found.lower <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.upper <= 1


def test_the_order_does_not_matter_with_one_bound() -> None:
    z_N = RNG(1).uniform(-1, 1, 300)
    forth, back = confidence_sequence(z_N, np.ones(300)), confidence_sequence(z_N[::-1], np.ones(300))
    assert (forth.lower, forth.upper) == pytest.approx((back.lower, back.upper), abs=1e-5)


def test_the_unit_does_not_matter() -> None:
    z_N, bound_N = RNG(2).uniform(-1, 1, 300), np.ones(300)
    months, years = confidence_sequence(z_N, bound_N), confidence_sequence(z_N / 12, bound_N / 12)
    assert (months.lower, months.upper) == pytest.approx((years.lower * 12, years.upper * 12), abs=1e-4)


def test_one_observation_says_nothing() -> None:
    found = confidence_sequence(np.array([0.5]), np.ones(1))
    assert found.upper - found.lower > 1.5


def test_a_fair_coin_is_not_suspected_and_a_bent_one_is() -> None:
    fair, bent = RNG(3).random(2000) < 0.5, RNG(3).random(2000) < 0.6
    assert anytime_p(fair - 0.5, np.ones(2000)) > 0.05
    assert anytime_p(bent - 0.5, np.ones(2000)) < 1e-6
    assert anytime_p(np.array([]), np.array([])) == 1.0


@pytest.mark.parametrize(
    ("z", "bound", "alpha", "message"),
    [([], [], 0.05, "needs an observation"), ([2.0], [1.0], 0.05, "within its bound"), ([0.0], [1.0], 1.0, "alpha")],
)
def test_what_it_cannot_judge_is_refused(z: list[float], bound: list[float], alpha: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confidence_sequence(np.array(z), np.array(bound), alpha)


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="within its bound"):
        confidence_sequence(np.array([np.nan]), np.ones(1))
