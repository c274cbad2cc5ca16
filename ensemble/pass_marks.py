"""What a map must reach before a person believes it: the pass marks of the checks in `ensemble.faithful`.

    hand        share of the heat on the hand, 0.9 or more. The mark of the specification for any map: a map that lights
                up a marker or a border is a red flag.
    deletion    the hottest places move the answer more than places by chance, or those of most detail, do; both ends of
    insertion   the comparison are measured, so the mark needs no number. (Petsiuk et al., "RISE", BMVC 2018, who
                compare methods so.) A map that is no better than the picture's own detail is an edge filter.
    shuffled    correlation with the map of shuffled weights, either sign, 0.25 or less. Adebayo et al. (NeurIPS 2018)
                ask for the check and name no limit; this one is ours: two maps of 64 places that have nothing in common
                correlate by more once in twenty (1.96 / sqrt(62)).

Agreement between members has no mark: members may agree on what is wrong. A check that was not made has no verdict.
"""

from collections.abc import Mapping
from typing import Any

HAND_SHARE = 0.9
SHUFFLED = 0.25

CONTROLS = ("chance", "detail")
"""Orders of places that know no network: what a map must beat."""

RULES = {
    "hand": f"{100 * HAND_SHARE:.0f} % of the heat or more lies on the hand",
    "deletion": "blurring the hottest places first moves the answer more than places by chance or by detail do",
    "insertion": "the hottest places alone come closer to the answer than places by chance or by detail do",
    "shuffled": f"the map correlates with that of shuffled weights by {SHUFFLED} or less, either sign",
}
"""By check, in words."""

Verdicts = dict[str, bool | None]
"""By check: passed, failed, or None where it was not made."""


def judge(figures: Mapping[str, Any]) -> dict[str, Verdicts]:
    """Each map's verdicts.

    Args:
        figures: Of one case, as `ensemble.faithful.Checks.to_dict` gives them, or their means over cases.

    Returns:
        By method, without the controls, which are no maps.
    """
    deletion, insertion = figures["deletion_months"], figures["insertion_months"]
    return {
        name: {
            "hand": figures["inside"][name] >= HAND_SHARE if name in figures["inside"] else None,
            "deletion": deletion[name] > max(deletion[control] for control in CONTROLS),
            "insertion": insertion[name] < min(insertion[control] for control in CONTROLS),
            "shuffled": abs(figures["shuffled"][name]) <= SHUFFLED,
        }
        for name in deletion
        if name not in CONTROLS
    }


def in_words(verdicts: Verdicts) -> str:
    """``passes``, or what it fails, and what nobody could judge: ``fails hand, shuffled``."""
    failed = [check for check, passed in verdicts.items() if passed is False]
    unjudged = [check for check, passed in verdicts.items() if passed is None]
    words = f"fails {', '.join(failed)}" if failed else "passes"
    return words + (f"; {', '.join(unjudged)} not judged" if unjudged else "")
