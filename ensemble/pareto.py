"""Error against cost: the best ensemble that each latency, or each amount of work, allows; a table and a drawing.

Shape letters: T candidates.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ensemble.bootstrap import MEAN, repeat
from ensemble.candidates import Candidates
from ensemble.select import Rules, select
from preprocessing.charts import ACCENT, GREY, INK, empty, plain
from search.greedy import shares

COSTS = {"latency_ms": "milliseconds a radiograph", "giga_operations": "billion operations a radiograph"}
"""What may be bounded: measured on a machine, or counted, which is the same on every one."""
NUM_BUDGETS = 10
ROUNDS = 50
_UNBOUNDED = Rules()


@dataclass(frozen=True)
class Front:
    """Ensembles by what they cost."""

    table: pd.DataFrame
    """The cost, one of `COSTS`; members, trials, mae_months, low, high (BBC-CV and its 95 % interval), on_front; by
    cost."""

    @property
    def cost(self) -> str:
        """Name of the column of costs."""
        return next(name for name in COSTS if name in self.table)

    @classmethod
    def read(cls, content: bytes) -> Self:
        """From the CSV that `csv` gives."""
        return cls(pd.read_csv(io.BytesIO(content)))

    def csv(self) -> bytes:
        """The table as a file; rounded, since the last bits differ between machines."""
        return self.table.round(6).to_csv(index=False).encode()

    def lines(self) -> list[str]:
        """The table for a person; a star marks the front: nothing is both faster and better."""
        unit = {"latency_ms": "ms a radiograph", "giga_operations": "GFLOP a picture"}[self.cost]
        lines = [f"  {unit}  members    MAE   95 % interval   trials"]
        for row in self.table.rename(columns={self.cost: "cost"}).itertuples():
            star = "*" if row.on_front else " "
            lines.append(
                f"{star} {row.cost:15.1f}  {row.members:7}  {row.mae_months:5.2f}   "
                f"{row.low:5.2f} to {row.high:5.2f}   {row.trials}"
            )
        return lines


def front(
    candidates: Candidates,
    cost_T: np.ndarray,
    *,
    cost: str = "latency_ms",
    method: str = "greedy",
    rules: Rules = _UNBOUNDED,
    combination: Mapping[str, Any] = MEAN,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Front:
    """Choose within a row of budgets, from the fastest candidate to all members that the rules allow.

    Errors are those of single fold models, measured; no noise is taken off.

    Args:
        candidates: What is chosen from.
        cost_T: ``(T,)`` what each takes for one radiograph, with all its models.
        cost: What that is, one of `COSTS`.
        method: By which the members are weighed.
        rules: What may be chosen; their budget is set here.
        combination: How members are combined.
        progress: Called with the budgets done and in all.

    Raises:
        ValueError: There are too few cases for a bias-corrected score.
    """
    error_TC, share_C = candidates.error_TC, shares(None, len(candidates.cases))
    free = select(error_TC, share_C, method, rules)
    top = max(float(cost_T[free > 0].sum()), float(cost_T.min()))
    rows: dict[tuple[int, ...], dict[str, object]] = {}
    budgets = np.geomspace(cost_T.min() * (1 + 1e-9), top * (1 + 1e-9), NUM_BUDGETS)
    for index, budget in enumerate(budgets):
        bounded = Rules(**{**rules.__dict__, "budget": float(budget)})
        weights_T = select(error_TC, share_C, method, bounded, cost_T=cost_T)
        members = tuple(np.flatnonzero(weights_T).tolist())
        if members not in rows:
            repeated = repeat(
                error_TC,
                bounded,
                methods=(method,),
                combination=combination,
                cost_T=cost_T,
                num_rounds=ROUNDS,
            )
            if repeated is None:
                raise ValueError(f"{len(share_C)} cases are too few to draw error against cost. Search on more.")
            score = repeated.of(method)
            trials = [candidates.trials[member] for member in members]
            rows[members] = {
                cost: float(cost_T[list(members)].sum()),
                "members": len(members),
                "trials": " ".join(f"{trial.study}-{trial.trial.number}" for trial in trials),
                "mae_months": score.months,
                "low": score.ci95[0],
                "high": score.ci95[1],
            }
        progress(index + 1, NUM_BUDGETS)
    table = pd.DataFrame(list(rows.values())).sort_values([cost, "mae_months"], ignore_index=True)
    best_before = table["mae_months"].cummin().shift(fill_value=np.inf)
    return Front(table.assign(on_front=table["mae_months"] < best_before))


def drawing(found: Front) -> Figure:
    """MAE with its interval against milliseconds; the front is joined by a step line."""
    figure = empty(5.4, 3.6)
    axes = plain(figure.add_subplot())
    table, best = found.table, found.table[found.table["on_front"].astype(bool)]
    axes.vlines(table[found.cost], table["low"], table["high"], color=GREY, linewidth=1)
    axes.step(best[found.cost], best["mae_months"], where="post", color=ACCENT, linewidth=1.5)
    axes.plot(table[found.cost], table["mae_months"], "o", color=GREY, markersize=5)
    axes.plot(best[found.cost], best["mae_months"], "o", color=ACCENT, markersize=6)
    for members, cost, mae in best[["members", found.cost, "mae_months"]].itertuples(index=False):
        axes.annotate(
            str(members),
            (cost, mae),
            (4, 5),
            textcoords="offset points",
            fontsize=9,
            color=INK,
        )
    axes.set(xlabel=COSTS[found.cost], ylabel="MAE by BBC-CV, months")
    axes.set_xlim(left=0)
    return figure
