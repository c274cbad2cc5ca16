"""TensorBoard logs of a study: one curve a fold over the image passes that it has seen.

Tune's own callback draws all that a trial reports against the number of the report, so that folds follow each other
in one saw-tooth; this one takes its place. Show them with ``tensorboard --logdir STUDY/tune``.
"""

from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.logger import TBXLoggerCallback

from preprocessing.storage import AnyPath, is_local

FLUSH_SECONDS = 5
"""How late a measurement may reach the log."""


class FoldCurves(TBXLoggerCallback):
    """Writes each measurement under the tag of its fold."""

    def __init__(self, study: AnyPath) -> None:
        """Log into ``study/tune``: at once where that is local, through Tune's uploads where it is not."""
        super().__init__()
        self._logs = Path(str(study)) / "tune" if is_local(study) else None

    def log_trial_start(self, trial: Trial) -> None:
        """Open the trial's log; one that is replayed, goes on or is assisted gets a further file in the same folder."""
        if trial in self._trial_writer:
            self._trial_writer[trial].close()
        trial.init_local_path()
        folder = trial.local_path if self._logs is None else str(self._logs / f"trial_{trial.config['number']:04d}")
        self._trial_writer[trial] = self._summary_writer_cls(folder, flush_secs=FLUSH_SECONDS)
        self._trial_result[trial] = {}

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Write one report."""
        if "fold" not in result or trial.config.get("is_second"):
            return  # a failure or a full disk has no figures; the second partition's folds are no trial's curves
        if trial not in self._trial_writer:
            self.log_trial_start(trial)
        writer = self._trial_writer[trial]
        for tag, (value, step) in scalars(result).items():
            writer.add_scalar(tag, value, global_step=step)
        if maes := result["fold_mae_months"]:
            self._trial_result[trial] = {"mae_months": sum(maes) / len(maes)}  # beside the settings, at its end


def scalars(result: dict[str, Any]) -> dict[str, tuple[float, int]]:
    """Tags of a report, each with its value and step: image passes of the fold, or the number of finished folds."""
    name = "short_training" if result["is_screen"] else f"fold_{result['fold'] + 1}"
    images = int(result["images_seen"])
    found = {
        f"mae_months/{name}": (float(result["measured_mae_months"]), images),
        f"train_loss/{name}": (float(result["train_loss"]), images),
    }
    if maes := result["fold_finished"] and result["fold_mae_months"]:  # an assistant knows of no other folds
        found["mae_months/mean_of_folds"] = (sum(maes) / len(maes), len(maes))
    return found
