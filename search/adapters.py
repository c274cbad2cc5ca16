"""Ray Tune's searcher and scheduler interfaces, answered by `StudyControl`.

A trial is a trial to Tune too. An assistant, which trains one fold of another worker's trial, is one by name only:
``assistant_0007_fold_4`` stands in Tune's own account, and nowhere else. So does ``screen_0007``, a short training.

Tune's own OptunaSearch tells Optuna COMPLETE with a partial error for stopped trials, leaves zombies after NaN and
loses results on restore (measured on Ray 2.60), and Tune drops its scheduler's state in a snapshot. Here both sides
keep no state of their own: it lies in the study's folder.

Where that cannot be written, or the database is away, the study halts with a sentence: what Tune makes of an exception
here is a traceback, or a trial begun anew that has ended.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from preprocessing.storage import StorageError
from search.control import StudyControl, Task
from search.journal import DATABASE_AWAY, why_not_kept
from search.progress import SCREEN
from search.weights import WeightsError

UNWRITABLE = (OSError, StorageError, *DATABASE_AWAY)
"""What a full disk, a store or a database that is away raise."""
Answer = TypeVar("Answer")


def _asked(control: StudyControl, question: Callable[[], Answer], otherwise: Answer) -> Answer:
    """The control's answer; where it cannot keep its record, the study is halted."""
    try:
        return question()
    except WeightsError as error:  # the network that was drawn has no file: nothing is wrong with the record
        control.halt(str(error))
        return otherwise
    except UNWRITABLE as error:
        control.halt(why_not_kept(error))
        return otherwise


class StudySearcher(Searcher):
    """Passes Tune's requests for configurations on."""

    def __init__(self, control: StudyControl) -> None:
        super().__init__()
        self._control: StudyControl | None = control
        self._tasks: dict[str, Task] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration with its Optuna number, or which fold of which trial to assist with."""
        assert self._control is not None
        task = _asked(self._control, self._control.next, None)
        if task is None:
            return None if self._control.may_have_more else Searcher.FINISHED
        self._tasks[trial_id] = task
        if task.fold is not None:
            return {"number": task.number, "fold": task.fold, "is_second": task.is_second}
        return {"number": task.number, **task.settings}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Close the trial, unless it was only interrupted."""
        assert self._control is not None
        control, task = self._control, self._tasks[trial_id]
        end = partial(control.on_end, task.number, crashed=error, fold=task.fold, is_second=task.is_second)
        _asked(control, end, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study's folder is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: `python -m search resume` reads the study's folder."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into snapshots; the open study stays out of them."""
        return {**self.__dict__, "_control": None}


class RaceScheduler(FIFOScheduler):
    """Stops a trial when the race says so, and lets no death count that a later worker has made up for."""

    def __init__(self, control: StudyControl) -> None:
        super().__init__()
        self._control: StudyControl | None = control
        self._furthest: dict[str, tuple[int, int]] = {}
        """How far each trial's workers have come: fold, image passes in it."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide after each report."""
        assert self._control is not None
        if self._is_further(trial.trial_id, result):
            trial.run_metadata.num_failures = 0  # Tune itself counts over a trial's whole life
        fold, is_second = trial.config.get("fold"), trial.config.get("is_second", False)
        ask = partial(self._control.on_result, trial.config["number"], result, fold=fold, is_second=is_second)
        stop = _asked(self._control, ask, True)
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE

    def _is_further(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a measurement is none that a worker of the trial has made before, as one does after each restart."""
        if "fold" not in result:
            return False
        place = (SCREEN if result["is_screen"] else result["fold"], result["images_seen"])
        before = self._furthest.get(trial_id)
        self._furthest[trial_id] = max(place, before or place)
        return before is None or place > before

    def __getstate__(self) -> dict[str, Any]:
        """As for the searcher."""
        return {**self.__dict__, "_control": None}


class RayWatch(Callback):
    """Ends a run whose own Ray has died under it: Tune would wait for another machine for ever."""

    SECONDS = 2.0
    """Between two looks."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._last = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look whether its processes live; Ray itself takes half a minute to tell, and then tells nobody."""
        if time.monotonic() - self._last > self.SECONDS:
            self._last = time.monotonic()
            own = ray._private.worker._global_node
            if {name for name, process in own.dead_processes()} & {"raylet", "gcs_server"}:
                raise ConnectionError(f"Ray has died. Go on with: python -m search resume {self._study}")
