"""How the difference of an experiment came to be what it is: its confidence sequence after more and more readings."""

import numpy as np

from serve.confidence import Interval, confidence_sequence
from serve.differences import paired, weighted
from serve.readings import Units

LOOKS = 40
"""Moments at most; they lie evenly in the logarithm, so the whole course costs a few times its end."""


def course(units: Units, *, is_shadow: bool, alpha: float) -> list[Interval]:
    """The confidence sequence at up to `LOOKS` moments, the last one now; empty without a reading.

    Args:
        units: Subjects in the order of their first reading.
        is_shadow: Whether both versions scored each.
        alpha: As in `confidence_sequence`.
    """
    z_U, bound_U = paired(units) if is_shadow else weighted(units)
    if not len(z_U):
        return []
    counts = np.unique(np.geomspace(1, len(z_U), LOOKS).round().astype(int))
    return [confidence_sequence(z_U[:n], bound_U[:n], alpha) for n in counts]
