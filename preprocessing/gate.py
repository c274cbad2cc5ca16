"""The quality gate's thresholds: where a check refuses, repairs or warns. A site moves them in its recipe."""

import sys
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One threshold a check; a score at or beyond it counts. Infinity cannot be written: switch a check off with the
    value its description names."""

    blank: float = 4.0
    """Refused below: the picture's span (0.1 to 99.9 percentile) in grey levels of the file. 0 is off."""
    too_small: float = 32.0
    """Refused below: pixels from the wrist to the tip of the middle finger. 0 is off."""
    not_a_hand: float = 0.5
    """Refused above: 0 is surely a hand, 1 surely none. 1 is off."""
    two_hands: float = 0.5
    """Refused above: area of the second hand as a share of the first. 2 is off."""
    cut_off: float = 0.5
    """Refused above: length of the picture's edge that runs through the hand, in lengths of the hand. 9 is off."""
    saturated: float = 0.5
    """Refused above: share of the hand's pixels at the file's brightest or darkest level. 1 is off."""
    low_contrast: float = 6.0
    """Refused below: the hand's span (5 to 95 percentile) in grey levels of the file. 0 is off."""
    inverted: float = 0.5
    """Repaired above: probability that bone is dark, in the picture and no longer in its negative. 1 is off."""
    rotated: float = 30.0
    """Repaired above: degrees from upright. 180 is off."""
    right_hand: float = 0.5
    """Repaired above: probability of a right hand, or of a mirrored left one. 1 is off."""
    framed: float = 1.0
    """Warned above (repaired where no view shows it): length of straight edges beside the hand, in lengths of the
    picture's longer side. 9 is off."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (is_number(value) and 0 <= value <= sys.float_info.max):
                raise ValueError(f"The gate's threshold {item.name} must be a number of 0 or more, got {value!r}.")

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Rebuild a gate.

        Raises:
            ValueError: A check is unknown or missing.
        """
        known = {item.name for item in fields(cls)}
        if unknown := set(value) ^ known:
            raise ValueError(f"A gate has exactly the checks {sorted(known)}; these differ: {sorted(unknown)}.")
        return cls(**value)


def is_number(value: object) -> bool:
    """Whether it is an int or a float; Python counts true and false among the ints."""
    return isinstance(value, int | float) and not isinstance(value, bool)
