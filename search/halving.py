"""Which trials are not worth a second fold: a screen by a short training, and successive halving inside fold 0.

Both compare with the M-th best and hold no state, as the rules of `search.racing` do.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from search.progress import TOLERANCE, Progress, best_complete

EARLIEST = 0.8
"""Share of fold 0 before which the rules of a study judge nothing. While the learning rate is high a measurement says
next to nothing of the end: over 19 folds of a search of real radiographs its rank correlation with the fold's final
error was -0.2, -0.1 and 0.05 after 20, 40 and 60 % of the training, and 0.66 after 80 %; over 18 folds of drawn hands
-0.1, 0.2, 0.3 and 0.7."""


@dataclass(frozen=True)
class Screen:
    """Drops the worse three quarters after the short training that comes before fold 0.

    A trial is stopped when more than a share `keep` of the trials that had theirs, and at least M of them, were better
    there, and when it is also no better than the worst of the M best complete trials was. Source: discarding after one
    epoch finds what successive halving finds (Egele et al., "The unreasonable effectiveness of early discarding after
    one epoch", 2023); the schedule of its own (see search/screen.py) and the floor of M are ours.
    """

    pool_size: int
    """M: how many good trials the ensemble shall be able to choose from."""
    keep: float = 0.25
    """Share of the trials that go on."""
    stage: str = "screen"
    needs_cases: bool = False

    def verdict(self, trial: Progress, others: Sequence[Progress]) -> str | None:
        """As `Rule.verdict`."""
        return _outranked(
            trial, others, lambda one: one.screen_months, "in the short training", self.keep, self.pool_size
        )


@dataclass(frozen=True)
class Halving:
    """Successive halving over the late measurements of fold 0.

    Like `Screen`, on the long training: first with its `keep`, then with the share of survivors that gives each stretch
    of the training the same number of image passes: measured at twice the passes, half go on. Source: Li et al., "A
    system for massively parallel hyperparameter tuning" (ASHA), MLSys 2020, whose trials also never wait for others;
    the floor of M is ours.

    It drops the worst tenth alone. A configuration of a good set may be unlucky in one fold: of 96 recorded trainings
    over five folds, with half of them going on here, an ensemble was 0.6 % worse on average over 40 draws of 64, and
    2.9 % in the worst, for 8 % fewer passes; with nine tenths 0.0 % and 0.3 %.
    """

    pool_size: int
    """M, as in `Screen`."""
    earliest: float = EARLIEST
    """Share of the training before which nothing is judged."""
    keep: float = 0.9
    """Share of the trials that pass the first measurement judged."""
    stage: str = "halving"
    needs_cases: bool = False

    def verdict(self, trial: Progress, others: Sequence[Progress]) -> str | None:
        """As `Rule.verdict`."""
        shares = [share for share, _ in trial.curve if share >= self.earliest - TOLERANCE]
        if not shares:
            return None
        keep = self.keep if len(shares) == 1 else shares[-2] / shares[-1]
        where, at = f"after {shares[-1]:.0%} of fold 1", shares[-1]
        return _outranked(trial, others, lambda one: one.measured_at(at), where, keep, self.pool_size)


def _outranked(
    trial: Progress,
    others: Iterable[Progress],
    error: Callable[[Progress], float | None],
    where: str,
    keep: float,
    pool_size: int,
) -> str | None:
    """Why a trial is not among the `keep` best of those with an error there; None where it is, or has none itself."""
    others, mae = list(others), error(trial)
    if mae is None:
        return None
    seen = [value for other in others if (value := error(other)) is not None]
    go_on = max(pool_size, math.ceil(1 / keep - 1e-9), math.ceil(keep * (len(seen) + 1) - 1e-9))
    better = sum(value < mae for value in seen)
    if better < go_on:
        return None
    best = best_complete(others, pool_size)
    then = [value for other in best if (value := error(other)) is not None]
    if len(best) == pool_size and then and mae < max(then):
        return None
    return (
        f"{mae:.2f} months {where}: {better} of {len(seen)} other trials were better there, and the best {go_on} go on"
    )
