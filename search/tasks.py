"""What the driver and its workers tell each other: a task to a free worker, its reports as Ray Tune carries them."""

import traceback
from typing import Any, NamedTuple

from search.trial import FoldReport

MAX_LENGTH = 300
"""Characters of an error's message that are kept: some print whole tables of shapes."""


class Task(NamedTuple):
    """What a free worker is given."""

    number: int
    """The trial."""
    settings: dict[str, Any]
    fold: int | None = None
    """The one to train, as an assistant, or `SCREEN`: the short training; None: the whole trial, as its own worker."""
    is_second: bool = False
    """Whether it is a fold of the trial's second partition."""


def given_up(cause: str | None) -> str:
    """Why a trial fails whose workers die; what one of them raised, where any came to say it."""
    return f"its worker ended again and again{f': {cause}' if cause else ' without saying why'}"


def cause_of(error: BaseException) -> str:
    """What was raised and where, in one line: in the code that called a library, not in the library."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    message = " ".join(str(error).split())[:MAX_LENGTH]
    return f"{type(error).__name__}: {message} ({where[-1].filename}:{where[-1].lineno})"


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
