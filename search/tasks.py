"""What the driver and its workers tell each other: a task to a free worker, its reports as Ray Tune carries them."""

from typing import Any, NamedTuple

from search.trial import FoldReport

GIVEN_UP = "its worker ended again and again without saying why"


class Task(NamedTuple):
    """What a free worker is given."""

    number: int
    """The trial."""
    settings: dict[str, Any]
    fold: int | None = None
    """The one to train, as an assistant, or `SCREEN`: the short training; None: the whole trial, as its own worker."""
    is_second: bool = False
    """Whether it is a fold of the trial's second partition."""


def result_of(report: FoldReport) -> dict[str, Any]:
    """A trial's report as the flat result that Ray Tune carries and logs."""
    maes, measured = list(report.fold_mae_months), report.measurement
    return {
        "fold": report.fold,
        "fold_finished": report.fold_finished,
        "is_screen": report.is_screen,
        "fold_mae_months": maes,
        "measured_mae_months": measured.mae_months,
        "mae_months": sum(maes) / len(maes) if maes else measured.mae_months,
        "epoch": measured.epoch,
        "images_seen": measured.images_seen,
        "train_loss": measured.train_loss,
        "replayed": report.replayed,
        "note": measured.note,
    }
