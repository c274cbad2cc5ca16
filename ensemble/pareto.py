"""Error against time: the best ensemble that each latency allows, as a table and a drawing.

Shape letters: T candidates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ensemble.bootstrap import repeat
from ensemble.candidates import Candidates
from ensemble.select import Rules, select
from preprocessing.charts import ACCENT, GREY, INK, empty, plain
from search.greedy import shares

NUM_BUDGETS = 10
ROUNDS = 50
_UNBOUNDED = Rules()


@dataclass(frozen=True)
class Front:
    """Ensembles by what they cost."""

    table: pd.DataFrame
    """latency_ms, members, trials, mae_months, low, high (BBC-CV and its 95 % interval), on_front; by latency."""

    def lines(self) -> list[str]:
        """The table for a person; a star marks the front: nothing is both faster and better."""
        lines = ["  ms a radiograph  members    MAE   95 % interval   trials"]
        for row in self.table.itertuples():
            star = "*" if row.on_front else " "
            lines.append(
                f"{star} {row.latency_ms:15.1f}  {row.members:7}  {row.mae_months:5.2f}   "
                f"{row.low:5.2f} to {row.high:5.2f}   {row.trials}"
            )
        return lines


def front(
    candidates: Candidates,
    latency_T: np.ndarray,
    *,
    method: str = "greedy",
    rules: Rules = _UNBOUNDED,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Front:
    """Choose within a row of budgets, from the fastest candidate to all members that the rules allow.

    Args:
        candidates: What is chosen from.
        latency_T: ``(T,)`` milliseconds that each takes for one radiograph, with all its models.
        method: By which the members are weighed.
        rules: What may be chosen; their budget is set here.
        progress: Called with the budgets done and in all.
    """
    error_TC, share_C = candidates.error_TC, shares(None, len(candidates.cases))
    free = select(error_TC, share_C, method, rules)
    top = max(float(latency_T[free > 0].sum()), float(latency_T.min()))
    rows: dict[tuple[int, ...], dict[str, object]] = {}
    budgets = np.geomspace(latency_T.min() * (1 + 1e-9), top * (1 + 1e-9), NUM_BUDGETS)
    for index, budget in enumerate(budgets):
        bounded = Rules(**{**rules.__dict__, "budget": float(budget)})
        weights_T = select(error_TC, share_C, method, bounded, cost_T=latency_T)
        members = tuple(np.flatnonzero(weights_T).tolist())
        repeated = repeat(error_TC, bounded, methods=(method,), cost_T=latency_T, num_rounds=ROUNDS)
        if members not in rows and repeated is not None:
            score = repeated.of(method)
            trials = [candidates.trials[member] for member in members]
            rows[members] = {
                "latency_ms": float(latency_T[list(members)].sum()),
                "members": len(members),
                "trials": " ".join(f"{trial.study}-{trial.trial.number}" for trial in trials),
                "mae_months": score.mae_months,
                "low": score.ci95[0],
                "high": score.ci95[1],
            }
        progress(index + 1, NUM_BUDGETS)
    table = pd.DataFrame(list(rows.values())).sort_values(["latency_ms", "mae_months"], ignore_index=True)
    best_before = table["mae_months"].cummin().shift(fill_value=np.inf)
    return Front(table.assign(on_front=table["mae_months"] < best_before))


def drawing(found: Front) -> Figure:
    """MAE with its interval against milliseconds; the front is joined by a step line."""
    figure = empty(5.4, 3.6)
    axes = plain(figure.add_subplot())
    table, best = found.table, found.table[found.table["on_front"]]
    axes.vlines(table["latency_ms"], table["low"], table["high"], color=GREY, linewidth=1)
    axes.step(best["latency_ms"], best["mae_months"], where="post", color=ACCENT, linewidth=1.5)
    axes.plot(table["latency_ms"], table["mae_months"], "o", color=GREY, markersize=5)
    axes.plot(best["latency_ms"], best["mae_months"], "o", color=ACCENT, markersize=6)
    for row in best.itertuples():
        axes.annotate(
            str(row.members),
            (row.latency_ms, row.mae_months),
            (4, 5),
            textcoords="offset points",
            fontsize=9,
            color=INK,
        )
    axes.set(xlabel="milliseconds a radiograph", ylabel="MAE by BBC-CV, months")
    axes.set_xlim(left=0)
    return figure
