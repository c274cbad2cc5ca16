"""Pass marks of maps: what fails is named, and what nobody checked passes nothing."""

import pytest

from ensemble.explain_commands import lines, summary
from ensemble.pass_marks import HAND_SHARE, SHUFFLED, in_words, judge


def figures(
    hand: float | None = 0.95, deletion: float = 9.0, insertion: float = 1.0, shuffled: float = 0.0, detail: float = 5.0
) -> dict:
    return {
        "hand_share": 0.4,
        "inside": {} if hand is None else {"cam": hand},
        "deletion_months": {"cam": deletion, "chance": 5.0, "detail": detail},
        "insertion_months": {"cam": insertion, "chance": 5.0, "detail": detail},
        "shuffled": {"cam": shuffled},
        "agreement": {"cam": 0.8},
    }


def test_a_map_at_the_marks_passes():
    assert in_words(judge(figures(hand=HAND_SHARE, shuffled=-SHUFFLED))["cam"]) == "passes"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"hand": 0.62}, "fails hand"),
        ({"deletion": 5.0}, "fails deletion"),
        ({"detail": 9.5}, "fails deletion"),
        ({"detail": 0.5}, "fails insertion"),
        ({"insertion": 5.0}, "fails insertion"),
        ({"shuffled": 0.48}, "fails shuffled"),
        ({"shuffled": -0.48, "hand": 0.8}, "fails hand, shuffled"),
        ({"hand": None}, "passes; hand not judged"),
    ],
)
def test_what_a_map_fails_is_named(bad, said):
    assert in_words(judge(figures(**bad))["cam"]) == said


def view(checks: dict) -> dict:
    return {"view": "crop", "share_of_answer": 1.0, "members": ["s/0"], "checks": checks, "passed": judge(checks)}


def test_opposite_signs_of_the_correlation_do_not_cancel():
    (mean,) = summary([view(figures(shuffled=0.7)), view(figures(shuffled=-0.7))])
    assert mean["shuffled"]["cam"] == 0.7
    assert mean["passed"]["cam"]["shuffled"] is False


def test_views_are_not_mixed_and_each_counts_the_cases_that_pass():
    good, poor = view(figures()), view(figures(hand=0.5))
    crop, full = summary([good, poor, poor | {"view": "full"}])
    assert (crop["cases_passed"]["cam"], crop["n"]) == (1, 2)
    assert (full["cases_passed"]["cam"], full["n"]) == (0, 1)
    assert any("0 of 1" in line and "fails hand" in line for line in lines(full))
