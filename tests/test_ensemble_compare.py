"""Two systems on the same cases: by hand where it can be counted, by the textbook where it cannot."""

import numpy as np
import pandas as pd
import pytest

from ensemble.compare import ComparisonError, compare, concordance, holm, mcnemar
from ensemble.printed import comparison_text


def table(predicted, actual=(100.0, 110.0, 120.0, 130.0), start: int = 0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case_id": [f"{start + i}" for i in range(len(predicted))],
            "is_male": True,
            "bone_age_months": list(actual)[: len(predicted)],
            "predicted_months": predicted,
        }
    )


def test_differences_are_paired_by_case_whatever_the_order():
    a, b = table([101.0, 112, 123, 134]), table([100.0, 111, 122, 133])
    report = compare(a, b.iloc[::-1])
    assert (report["n"], report["mae_a_months"], report["mae_b_months"]) == (4, 2.5, 1.5)
    assert report["mae_difference_months"] == -1
    assert report["mae_difference_ci95"] is None  # of four cases a mean has none


def test_twelve_cases_have_intervals_and_four_say_that_they_have_none():
    actual = tuple(np.arange(60.0, 72))
    many = compare(table([x + 3 for x in actual], actual), table([x + 2 for x in actual], actual))
    assert many["mae_difference_ci95"] == [-1, -1]
    assert many["agreement"]["limits_ci95"] is not None
    few = compare(table([101.0, 112, 123, 134]), table([100.0, 111, 122, 133]))
    text = comparison_text({"a": "a", "b": "b", "source": "x", **few})
    assert "95 % interval -\n" in text
    assert "fewer than 10 cases has no interval" in text
    assert few["agreement"]["within_6_ci95"] == [pytest.approx(0.5101, abs=1e-3), 1]


def test_of_one_case_there_are_no_limits_of_agreement():
    report = compare(table([101.0]), table([100.0]))
    assert report["agreement"]["limits_months"] is None
    assert "limits of agreement      - months" in comparison_text({"a": "a", "b": "b", "source": "x", **report})


def test_cases_that_one_alone_answered_are_counted_and_left_out():
    report = compare(table([100.0, 110, 120]), table([110.0, 120, 130], actual=(110.0, 120, 130), start=1))
    assert (report["n"], report["only_a"], report["only_b"]) == (2, 1, 1)


def test_the_same_system_twice_differs_in_nothing():
    report = compare(table([90.0, 115, 100, 130]), table([90.0, 115, 100, 130]))
    assert (report["mae_difference_months"], report["wilcoxon_p"]) == (0, 1)
    assert report["agreement"]["concordance"] == 1


def test_no_common_case_is_refused():
    with pytest.raises(ComparisonError, match="share none"):
        compare(table([100.0]), table([100.0], start=5))


def test_mcnemar_counts_those_that_changed_only():
    before_C, after_C = (
        np.array([True] * 10 + [False] * 90),
        np.array([True] * 4 + [False] * 6 + [True] * 1 + [False] * 89),
    )
    found = mcnemar(before_C, after_C)
    assert (found["gained"], found["lost"], found["before"], found["after"]) == (1, 6, 10, 5)
    assert found["p"] == pytest.approx(0.125)  # 2 (C(7,0) + C(7,1)) / 2^7


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_concordance_counts_a_shift_as_disagreement():
    one_C = np.array([1.0, 2, 3])
    assert concordance(one_C, one_C + 1) == pytest.approx(2 * (2 / 3) / (2 * (2 / 3) + 1), abs=1e-4)
