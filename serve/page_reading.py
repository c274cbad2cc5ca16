"""An answer as a person reads it: what the template of a reading needs, and the drawing of its distribution.

Shape letters: M months.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT, FOOT, HEAD = 640, 210, 28, 24
"""Of the drawing, in its own units; the axis stands in the foot, the labels in the head."""
LAST_MONTH = 239


@dataclass(frozen=True)
class Drawing:
    """A distribution over bone age, in units of the drawing."""

    outline: str
    """Path of the filled distribution."""
    interval: tuple[float, float] | None
    """Ends of the interval that is drawn under it."""
    answer_x: float
    chronological_x: float | None
    ticks: tuple[tuple[float, int], ...]
    """Place and years."""
    width: int = WIDTH
    height: int = HEIGHT
    foot: int = FOOT
    head: int = HEAD


def reading_of(answer: Mapping[str, Any], sex: str) -> dict[str, Any]:
    """Values for the template.

    Args:
        answer: As ``POST /v1/score`` gives it.
        sex: As it was given.
    """
    chronology = answer.get("chronology")
    age = chronology["chronological_age_months"] if chronology else None
    return {
        "answer": answer,
        "sex": sex,
        "interval": answer["intervals"].get("90"),
        "drawing": draw(answer["distribution"], answer["bone_age_months"], answer["intervals"].get("90"), age),
    }


def draw(
    distribution_M: list[float], months: float, interval: list[float] | None, chronological_months: float | None
) -> Drawing:
    """Draw the part of the distribution that holds its mass, its interval and the chronological age."""
    mass_M = np.cumsum(distribution_M)
    wanted = [months, *(interval or ()), *([chronological_months] if chronological_months is not None else [])]
    wanted += [float(np.searchsorted(mass_M, share * mass_M[-1])) for share in (0.002, 0.998)]
    first = max(0, 12 * math.floor((min(wanted) - 4) / 12))
    last = min(LAST_MONTH + 1, 12 * math.ceil((max(wanted) + 4) / 12))

    def x(value: float) -> float:
        return round(WIDTH * (value - first) / (last - first), 1)

    shown = np.asarray(distribution_M[first : last + 1])
    y = (HEIGHT - FOOT) - (HEIGHT - FOOT - HEAD) * shown / max(shown.max(), 1e-12)
    points = " ".join(f"{x(first + index)},{value:.1f}" for index, value in enumerate(y))
    base = HEIGHT - FOOT
    step = 1 if last - first <= 132 else 2
    return Drawing(
        f"M{x(first)},{base} L{points} L{x(first + len(shown) - 1)},{base} Z",
        (x(max(interval[0], first)), x(min(interval[1], last))) if interval else None,
        x(months),
        None if chronological_months is None else x(chronological_months),
        tuple((x(12 * year), year) for year in range(first // 12, last // 12 + 1) if year % step == 0),
    )
