"""TensorBoard shows one curve a fold."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from search.tensorboard import FoldCurves, scalars


class Trial(SimpleNamespace):
    """What a callback sees of a trial of Tune."""

    __hash__ = object.__hash__

    def __init__(self, number: int, **attributes: Any) -> None:
        config = {"number": number}
        super().__init__(config=config, init_local_path=lambda: None, local_path="/nowhere", **attributes)


def result(fold: int, images_seen: int, *, finished: bool = False) -> dict[str, Any]:
    return {
        "fold": fold,
        "fold_finished": finished,
        "is_screen": False,
        "fold_mae_months": [12.0] * (fold + finished),
        "measured_mae_months": 20.0,
        "train_loss": 1.5,
        "images_seen": images_seen,
    }


def written(folder: Path) -> set[tuple[str, int]]:
    """Tag and step of every scalar in a log; a record is its length, a checksum, an event and a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = set()
    for path in folder.glob("events.out.tfevents.*"):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + size])
            found |= {(value.tag, event.step) for value in event.summary.value if value.HasField("simple_value")}
            content = content[16 + size :]
    return found


def test_each_fold_has_tags_of_its_own_over_its_image_passes() -> None:
    assert scalars(result(1, 300)) == {"mae_months/fold_2": (20.0, 300), "train_loss/fold_2": (1.5, 300)}


def test_the_mean_of_the_folds_steps_by_folds() -> None:
    assert scalars(result(1, 900, finished=True))["mae_months/mean_of_folds"] == (12.0, 2)


def test_the_log_lies_in_the_study_and_a_failure_has_no_figures(tmp_path: Path) -> None:
    trial = Trial(3, evaluated_params={"learning_rate": 0.1})
    curves = FoldCurves(tmp_path)
    curves.log_trial_result(1, trial, result(0, 300))
    curves.log_trial_result(2, trial, {"failed": "nan"})
    curves.log_trial_end(trial, failed=True)
    tags = {("mae_months/fold_1", 300), ("train_loss/fold_1", 300)}
    assert written(tmp_path / "tune" / "trial_0003") == tags


def test_an_assistants_fold_lies_in_the_log_of_its_trial(tmp_path: Path) -> None:
    trial = Trial(3, evaluated_params={"number": 3})
    curves = FoldCurves(tmp_path)
    curves.log_trial_result(1, trial, result(2, 900, finished=True) | {"fold_mae_months": []})
    curves.log_trial_end(trial)
    assert written(tmp_path / "tune" / "trial_0003") == {("mae_months/fold_3", 900), ("train_loss/fold_3", 900)}
