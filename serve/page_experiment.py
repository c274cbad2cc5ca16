"""Experiments as a person reads them: what the template needs, and the drawing of the running difference."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.audit_routes import acts
from serve.books import Books
from serve.confidence import Interval
from serve.experiment import Experiment
from serve.experiment_course import course
from serve.experiment_policy import decide
from serve.experiment_report import report_of
from serve.lifecycle import experiment_named, experiments
from serve.observations import observe

WIDTH, HEIGHT, LEFT, FOOT, HEAD, RIGHT = 860, 300, 62, 46, 12, 12
"""Of the drawing, in its own units."""
LATEST_ACTS = 12
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


@dataclass(frozen=True)
class Course:
    """The running difference, in units of the drawing."""

    line: str
    band: str
    zero_y: float
    rows: tuple[tuple[float, float], ...]
    """Place and months of the horizontal lines."""
    columns: tuple[tuple[float, int], ...]
    """Place and number of readings."""
    is_cut: bool
    """Whether the first, wide intervals reach out of the drawing."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    foot: int = FOOT
    head: int = HEAD
    right: int = RIGHT


def overview(books: Books, name: str | None) -> dict[str, Any]:
    """Values for the template; reads the ledger.

    Args:
        books: With the ledger.
        name: Of the experiment to show; None shows the running one.

    Raises:
        ExperimentError: There is none of this name.
    """
    database, state = books.ledger.database, books.state
    past = [row for row in experiments(database) if row["outcome"]]
    running = state.experiment
    shown = name or (running.name if running else None)
    values = {
        "state": state,
        "past": past,
        "history": acts(database, limit=LATEST_ACTS),
        "running": running,
        "shown": None,
    }
    if shown is None:
        return values
    row = experiment_named(database, shown)
    is_running = running is not None and running.name == shown
    experiment = running if running and is_running else Experiment.from_dict(row["definition"])
    observed = observe(database, experiment)
    found = report_of(experiment, observed)
    intervals = course(observed.units, is_shadow=experiment.mode == "shadow", alpha=experiment.policy.alpha)
    return {
        **values,
        "shown": experiment,
        "started_s": row["started_s"],
        "ended_s": row["ended_s"],
        "outcome": row["outcome"],
        "report": found,
        "decision": decide(experiment, found) if is_running else None,
        "course": draw(intervals) if len(intervals) > 1 else None,
    }


def draw(intervals: list[Interval]) -> Course:
    """Draw mean and interval against the number of readings, a logarithmic axis.

    The first intervals reach as far as their bounds do, and would press the rest into a line: the axis holds the later
    half of the looks and every mean.
    """
    count = np.array([one.n for one in intervals], float)
    low, mean, high = (np.array([getattr(one, end) for one in intervals]) for end in ("lower", "mean", "upper"))
    later = slice(len(intervals) // 2, None)
    reach = 1.08 * max(np.abs(low[later]).max(), np.abs(high[later]).max(), np.abs(mean[later]).max(), 0.5)
    first, last = np.log(count[0]), np.log(max(count[-1], 2.0))

    def x(n: float) -> float:
        return round(float(LEFT + (WIDTH - LEFT - RIGHT) * (np.log(n) - first) / (last - first)), 1)

    def y(months: float) -> float:
        inside = min(max(months, -reach), reach)
        return round(float(HEAD + (HEIGHT - HEAD - FOOT) * (reach - inside) / (2 * reach)), 1)

    def path(values: np.ndarray, order: slice = slice(None)) -> str:
        return " ".join(f"{x(n)},{y(value)}" for n, value in zip(count[order], values[order], strict=True))

    step = next((step for step in _STEPS if reach / step <= 4), _STEPS[-1])
    ticks = [step * each for each in range(-int(reach / step), int(reach / step) + 1)]
    marks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000) if n < count[-1] * 0.75]
    return Course(
        f"M{path(mean)}",
        f"M{path(high)} L{path(low, slice(None, None, -1))} Z",
        y(0.0),
        tuple((y(months), months) for months in ticks),
        tuple((x(n), int(n)) for n in [*marks, count[-1]]),
        bool((np.abs(low) > reach).any() or (np.abs(high) > reach).any()),
    )
