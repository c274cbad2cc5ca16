"""The drawn distribution: as wide as the calibrated interval, about the same mean, and never off the scale."""

import numpy as np
import pytest

from ensemble.width import MOST_FACTOR, agreeing, mass_inside, measured
from search.months import NUM_BINS

MONTHS = np.arange(float(NUM_BINS))


def normal(mean: float, sd: float) -> np.ndarray:
    share = np.exp(-0.5 * ((MONTHS - mean) / sd) ** 2)
    return share / share.sum()


def made(distribution: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    mean = distribution @ MONTHS
    return agreeing(distribution[None], np.array([mean]), np.array([ends]))[0]


@pytest.mark.parametrize("sd", [3.0, 12.0, 30.0])
@pytest.mark.parametrize("ends", [(100.0, 140.0), (110.0, 125.0), (90.0, 180.0)])
def test_the_interval_holds_what_it_says_whether_it_was_too_wide_or_too_narrow(sd, ends):
    found = made(normal(120, sd), ends)
    assert mass_inside(found, *ends) == pytest.approx(0.9, abs=0.01)
    assert found.sum() == pytest.approx(1)
    assert found.min() >= 0


def test_the_mean_stays_and_so_does_the_shape():
    two = 0.5 * normal(90, 6) + 0.5 * normal(130, 6)
    found = made(two, (80.0, 140.0))
    assert found @ MONTHS == pytest.approx(two @ MONTHS, abs=1e-6)
    assert found[110] < 0.5 * found[:110].max()
    wide = made(normal(120, 3), (60.0, 180.0))
    assert np.diff(wide[1:121]).min() > -1e-9  # stretched, it has no teeth


@pytest.mark.parametrize(("mean", "ends"), [(9.0, (0.0, 40.0)), (229.0, (200.0, 239.0))])
def test_at_an_end_of_the_scale_the_mean_stays_too(mean, ends):
    narrow = normal(mean, 4)
    found = made(narrow, ends)
    assert found @ MONTHS == pytest.approx(narrow @ MONTHS, abs=0.1)
    assert found[[0, -1]].max() < 0.05
    assert mass_inside(found, *ends) >= 0.9


def test_an_interval_of_all_months_says_nothing_of_the_width():
    drawn = normal(120, 9)
    np.testing.assert_allclose(made(drawn, (0.0, 239.0)), drawn, atol=0.001)


def test_a_case_does_not_depend_on_its_neighbours():
    both, means, ends = (
        np.stack([normal(9, 4), normal(120, 20)]),
        np.array([9.0, 120.0]),
        np.array([[0, 40], [100, 140]]),
    )
    together = agreeing(both, means, ends)
    for row in (slice(0, 1), slice(1, 2)):
        np.testing.assert_array_equal(together[row], agreeing(both[row], means[row], ends[row]))


def test_what_it_is_worth_is_measured_against_the_reference():
    rng = np.random.default_rng(0)
    actual = rng.uniform(60, 180, 300)
    mean = actual + rng.normal(0, 10, 300)
    drawn = np.stack([normal(one, 30) for one in mean])
    reach = np.array([12.8, 16.4, 19.6])[:, None] * [-1, 1]
    found = measured(drawn, drawn @ MONTHS, (drawn @ MONTHS)[:, None, None] + reach, actual)
    assert found["crps_change_months"] < found["crps_change_ci95"][1] < 0
    assert found["crps_months"] == pytest.approx(10 / np.sqrt(np.pi), rel=0.1)  # of a normal distribution that is right
    assert found["mass_inside"] == pytest.approx([0.8, 0.9, 0.95], abs=0.01)
    assert found["mass_inside_before"][1] < 0.6


def test_the_stretch_has_a_limit():
    found = made(normal(120, 1), (1.0, 239.0))
    assert np.sqrt(found @ (MONTHS - 120) ** 2) == pytest.approx(MOST_FACTOR, rel=0.1)
    assert found.sum() == pytest.approx(1)


def test_no_case_gives_none():
    assert agreeing(np.empty((0, 240)), np.empty(0), np.empty((0, 2))).shape == (0, 240)
