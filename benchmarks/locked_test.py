"""What trials of a study would have said of the locked test, once everything else is decided."""

from pathlib import Path

import numpy as np

from preprocessing.cohort import Cohort
from preprocessing.storage import read_json
from search.model import BIN_MONTHS, load_model, sex_codes
from search.predict import predict
from search.space import TrialConfig
from search.trial import trial_folder


def locked_error(
    study: Path, weights: dict[int, float], cohort: Cohort, folds: dict[int, list[int]] | None = None
) -> np.ndarray:
    """Absolute error of an ensemble on the locked test; a trial answers with the mean of its fold models.

    Args:
        study: Its folder, on this machine.
        weights: Of trials by number, summing to 1.
        cohort: The study's.
        folds: Which fold models a trial answers with, where not all.

    Returns:
        ``(L,)`` in months.
    """
    sex, rows = sex_codes(cohort.cases["is_male"]), cohort.test_rows()
    months = np.zeros(len(rows))
    for number, weight in weights.items():
        folder = trial_folder(study, number)
        config = TrialConfig.from_dict(read_json(folder / "config.json")["config"])
        of_trial = range(cohort.num_folds) if folds is None else folds[number]
        for fold in of_trial:
            model = load_model(folder / f"fold_{fold}.safetensors", config)
            probabilities = predict(model, cohort.view(config.view), sex, rows, "cpu")
            months += weight / len(of_trial) * (probabilities @ BIN_MONTHS)
    return np.abs(months - cohort.cases["bone_age_months"].to_numpy(np.float64)[rows])
