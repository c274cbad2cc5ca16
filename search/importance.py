"""How much each searched setting mattered, as Optuna sees it; its record is only read, also while a study runs."""

import warnings

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from preprocessing.storage import AnyPath
from search.journal import FILE, open_to_look

MIN_BEST = 5
"""Trials that count as the best, at least: Optuna's documentation advises it. A tenth, which is its default, is one
trial alone in most searches here, and whatever only that one has would count for everything."""
MIN_TRIALS = 2 * MIN_BEST
"""Complete trials below which an importance would be noise."""


def importances(study: AnyPath, name: str, url: str = "") -> tuple[dict[str, float], int]:
    """Importance of the settings that all complete trials have, largest first, by PED-ANOVA: for being among the best.

    The best are a tenth of the complete trials, and `MIN_BEST` at least.

    Source: Watanabe, Bansal, Hutter, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary
    subspaces", IJCAI 2023; Optuna's own implementation.

    Args:
        study: The study's folder.
        name: Its name there.
        url: Of its database; empty: its journal.

    Returns:
        Shares that sum to 1, empty below `MIN_TRIALS` complete trials or where nothing varied; and how many there are.

    Raises:
        StorageError: The database cannot be reached.
    """
    if not url and not (study / FILE).exists():
        return {}, 0  # no trial has begun
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        opened = optuna.load_study(study_name=name, storage=open_to_look(study, url))
        complete = opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < MIN_TRIALS:
            return {}, len(complete)
        best = PedAnovaImportanceEvaluator(target_quantile=max(0.1, MIN_BEST / len(complete)))
        found = get_param_importances(opened, evaluator=best)
    return dict(sorted(found.items(), key=lambda item: -item[1])), len(complete)
