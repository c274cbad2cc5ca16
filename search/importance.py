"""How much each searched setting mattered, as Optuna sees it; its record is only read, also while a study runs."""

import warnings
from typing import NamedTuple

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from preprocessing.storage import AnyPath
from search.journal import FILE, open_to_look
from search.warm_start import EARLIER

MIN_BEST = 5
"""Trials that count as the best, at least: Optuna's documentation advises it. A tenth, which is its default, is one
trial alone in most searches here, and whatever only that one has would count for everything."""
MIN_TRIALS = 2 * MIN_BEST
"""Complete trials below which an importance would be noise."""


class Importances(NamedTuple):
    """What Optuna's complete trials tell of the settings."""

    shares: dict[str, float]
    """By setting, largest first; they sum to 1. Empty below `MIN_TRIALS` complete trials or where nothing varied."""
    num_complete: int
    """Complete trials that Optuna knows, those of earlier studies among them."""
    num_earlier: int
    """How many of these came by warm start; they are no trials of this study."""


def importances(study: AnyPath, name: str, url: str = "") -> Importances:
    """Importance of the settings that complete trials have, by PED-ANOVA: for being among the best.

    The best are a tenth of the complete trials, and `MIN_BEST` at least. A setting that only some trials have, such as
    the weight of a loss that one head uses, is judged among those alone, and that is weighed by their share of the
    best, squared, over their share of all.

    Source: Watanabe, Bansal, Hutter, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary
    subspaces", IJCAI 2023, and for settings that not all trials have "Conditional PED-ANOVA: hyperparameter importance
    in hierarchical & dynamic search spaces", arXiv 2601.20800; Optuna's own implementation.

    Args:
        study: The study's folder.
        name: Its name there.
        url: Of its database; empty: its journal.

    Raises:
        StorageError: The database cannot be reached.
    """
    if not url and not (study / FILE).exists():
        return Importances({}, 0, 0)  # no trial has begun
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        opened = optuna.load_study(study_name=name, storage=open_to_look(study, url))
        complete = opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        num_earlier = sum(EARLIER in trial.user_attrs for trial in complete)
        if len(complete) < MIN_TRIALS:
            return Importances({}, len(complete), num_earlier)
        best = PedAnovaImportanceEvaluator(target_quantile=max(0.1, MIN_BEST / len(complete)))
        found = get_param_importances(opened, evaluator=best)
    return Importances(dict(sorted(found.items(), key=lambda item: -item[1])), len(complete), num_earlier)
