"""How much each searched setting mattered, as Optuna sees it; the journal is only read, also while a study runs."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
from optuna.importance import get_param_importances
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from preprocessing.storage import AnyPath, is_local
from search.journal import FILE, ObjectJournal

MIN_TRIALS = 5
"""Complete trials below which an importance would be noise."""


def importances(study: AnyPath, name: str) -> tuple[dict[str, float], int]:
    """Importance of the settings that all complete trials have, largest first, by PED-ANOVA.

    Source: Watanabe, Bansal, Hutter, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary
    subspaces", IJCAI 2023; Optuna's own implementation.

    Args:
        study: The study's folder.
        name: Its name in the journal.

    Returns:
        Shares that sum to 1, empty below `MIN_TRIALS` complete trials or where nothing varied; and how many there are.
    """
    if not (study / FILE).exists():
        return {}, 0
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        opened = optuna.load_study(study_name=name, storage=_copy(study, Path(folder)))
        complete = opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < MIN_TRIALS:
            return {}, len(complete)
        found = get_param_importances(opened)
    return dict(sorted(found.items(), key=lambda item: -item[1])), len(complete)


def _copy(study: AnyPath, folder: Path) -> BaseStorage:
    """The journal as it is now, without a line that its writer has not ended yet."""
    if not is_local(study):
        return JournalStorage(ObjectJournal(study / FILE))
    content = (study / FILE).read_bytes()
    path = folder / FILE
    path.write_bytes(content[: content.rfind(b"\n") + 1])
    return JournalStorage(JournalFileBackend(str(path)))
