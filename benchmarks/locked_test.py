"""What trials of a study would have said of the locked test, once everything else is decided."""

from pathlib import Path

import numpy as np

from preprocessing.cohort import Cohort
from preprocessing.storage import read_json
from search.model import BIN_MONTHS, load_model, sex_codes
from search.predict import predict
from search.space import TrialConfig
from search.trial import trial_folder


class LockedTest:
    """The locked test of a cohort.

    A fold model is asked once, however many ensembles have it: searches that are drawn anew link the same trainings.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.cohort, self._rows = cohort, cohort.test_rows()
        self._actual_L = cohort.cases["bone_age_months"].to_numpy(np.float64)[self._rows]
        self._months: dict[Path, np.ndarray] = {}

    def error(self, study: Path, weights: dict[int, float], folds: dict[int, list[int]] | None = None) -> np.ndarray:
        """Absolute error of an ensemble; a trial answers with the mean of its fold models.

        Args:
            study: Its folder, on this machine.
            weights: Of trials by number, summing to 1.
            folds: Which fold models a trial answers with, where not all.

        Returns:
            ``(L,)`` in months.
        """
        months_L = np.zeros(len(self._rows))
        for number, weight in weights.items():
            of_trial = range(self.cohort.num_folds) if folds is None else folds[number]
            for fold in of_trial:
                months_L += weight / len(of_trial) * self._said(trial_folder(study, number).resolve(), fold)
        return np.abs(months_L - self._actual_L)

    def _said(self, trial: Path, fold: int) -> np.ndarray:
        model_path = trial / f"fold_{fold}.safetensors"
        if model_path not in self._months:
            config = TrialConfig.from_dict(read_json(trial / "config.json")["config"])
            sex, images = sex_codes(self.cohort.cases["is_male"]), self.cohort.view(config.view)
            probabilities = predict(load_model(model_path, config), images, sex, self._rows, "cpu")
            self._months[model_path] = probabilities @ BIN_MONTHS
        return self._months[model_path]
