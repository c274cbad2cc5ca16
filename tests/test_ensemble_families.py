"""The test of a family: it holds its rate of false alarms, and finds the rises that the gate is there for.

A case is wrong where a sum of normal draws passes a limit: one draw of the case, which its answers share; one of the
family, which its levels share; one of the answer. So levels may go wrong together or each by itself.
"""

from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest

from ensemble.alterations import suite
from ensemble.compare import holm
from ensemble.families import rise

LEVELS = list(Counter(a.family for a in suite() if not a.is_wrong).values())
APART, ALIKE = 0.0, 1.0
"""How much of what happens to a case is the same at all levels of a family."""


def alarms(num_cases, wrong, *, more=0.0, families=0, alike=APART, of_case=0.5, times=200):
    """Share of examinations in which a family fails.

    Args:
        num_cases: Of the stress test.
        wrong: Probability that a case is wrong as it is.
        more: What is added to it at every level.
        families: In so many families, the first.
        alike: See `ALIKE`.
        of_case: Share of the variance that a case's answers have in common.
        times: Examinations.
    """
    rng = np.random.default_rng(0)
    limit, harmed = (NormalDist().inv_cdf(1 - p) for p in (max(wrong, 1e-9), wrong + more))
    found = 0
    for _ in range(times):
        case_C = rng.normal(0, of_case**0.5, num_cases)
        before_C = case_C + rng.normal(0, (1 - of_case) ** 0.5, num_cases) > limit
        p_values = []
        for family, levels in enumerate(LEVELS):
            shared_C = rng.normal(0, ((1 - of_case) * alike) ** 0.5, num_cases)
            own_LC = rng.normal(0, ((1 - of_case) * (1 - alike)) ** 0.5, (levels, num_cases))
            after_LC = case_C + shared_C + own_LC > (harmed if family < families else limit)
            p_values.append(rise(before_C, after_LC.astype(float)).p)
        found += min(holm(p_values)) < 0.05
    return found / times


@pytest.mark.parametrize("alike", [APART, ALIKE], ids=["levels apart", "levels alike"])
@pytest.mark.parametrize(("num_cases", "wrong"), [(100, 0.03), (100, 0.15), (300, 0.07)])
def test_a_bundle_that_alterations_do_not_change_passes(num_cases, wrong, alike):
    for of_case in (0.0, 0.7):
        assert alarms(num_cases, wrong, alike=alike, of_case=of_case) <= 0.05  # the policy's alpha


@pytest.mark.parametrize(
    ("num_cases", "wrong", "more", "families", "alike", "power"),
    [
        (100, 0.0, 0.08, 1, APART, 0.90),
        (100, 0.0, 0.11, 1, ALIKE, 0.45),
        (100, 0.07, 0.11, 1, APART, 0.70),
        (100, 0.07, 0.11, 1, ALIKE, 0.22),
        (100, 0.07, 0.15, 1, ALIKE, 0.52),
        (100, 0.07, 0.11, 15, ALIKE, 0.78),  # every family harmed
        (300, 0.07, 0.05, 1, APART, 0.60),
        (300, 0.07, 0.08, 1, ALIKE, 0.66),
        (300, 0.07, 0.11, 1, ALIKE, 0.90),
    ],
)
def test_a_rise_of_errors_is_found_with_this_power(num_cases, wrong, more, families, alike, power):
    assert alarms(num_cases, wrong, more=more, families=families, alike=alike) >= power


@pytest.mark.parametrize(
    ("levels", "harmed", "needed"), [(1, 1, 9), (3, 3, 11), (15, 15, 11), (3, 1, 13), (5, 1, 14), (15, 1, 16)]
)
def test_of_100_cases_so_many_that_are_newly_wrong_at_all_levels_or_at_one_fail_a_family(levels, harmed, needed):
    fails = []
    for wrong in range(30):
        after_LC = np.zeros((levels, 100))
        after_LC[:harmed, :wrong] = 1
        fails.append(len(LEVELS) * rise(np.zeros(100, bool), after_LC).p < 0.05)
    assert fails.index(True) == needed
    assert all(fails[needed:])


def test_a_level_that_says_nothing_of_a_case_does_not_count_for_it():
    before_C = np.array([True, False, False])
    after_LC = np.array([[1, 1, np.nan], [np.nan, 1, np.nan]])
    found = rise(before_C, after_LC)
    assert (found.before, found.after) == (1, 2)
    assert found.p == rise(before_C, np.array([[1, 1, 0], [1, 1, 0]])).p


def test_fewer_errors_are_no_rise():
    before_C = np.arange(100) < 50
    assert rise(before_C, np.zeros((3, 100))).p > 0.999
