"""A second partition of the cases: the survivors' error, free of the luck that the first one lent them.

The M best of many trials are the best partly because this partition and these seeds suited them. When all trials have
ended, these M are trained again on another partition of the same cases, with seeds of their own; nothing was selected
there, so what they reach is what to expect.

trials/0007/partition_1/fold_k.*        as in the trial's own folder (search/trial.py), markers and checkpoints too
trials/0007/partition_1/oof.parquet     its out-of-fold table
trials/0007/partition_1/outcome.json    complete or failed, and why; written last, by the driver
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from preprocessing.cohort import Cohort
from preprocessing.folds import assign
from preprocessing.storage import AnyPath, canonical_hash, write_json
from search.board import Event
from search.fold_files import finished_folds
from search.space import TrialConfig
from search.trial import partition_folder, trial_folder

SEED_STEP = 50_021
"""Between a trial's training seeds on one partition and on the next; a study's trials differ by less."""


def repartition(cohort: Cohort, seed: int) -> Cohort:
    """The cohort on its second partition: as many folds, stratified, groups whole, the locked test left alone.

    Args:
        cohort: On its first partition.
        seed: Of the study; the same gives the same partition.
    """
    open_rows = np.flatnonzero(~cohort.cases["is_test"])
    cases = cohort.cases.iloc[open_rows].reset_index(drop=True)
    drawn = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    folds, _ = assign(cases, cases["group"].to_numpy(), num_folds=cohort.num_folds, test_fraction=0.0, seed=drawn)
    fold = cohort.cases["fold"].to_numpy().copy()
    fold[open_rows] = folds
    return replace(cohort, cases=cohort.cases.assign(fold=fold), hash=canonical_hash([cohort.hash, "partition", drawn]))


def on_second_partition(config: TrialConfig) -> TrialConfig:
    """The configuration with training seeds of its own: what a seed lent to the first result is not lent again."""
    return replace(config, seed=config.seed + SEED_STEP)


def second_predictions(trial: AnyPath, case_ids: pd.Series, num_folds: int) -> np.ndarray:
    """What the models of the second partition say out of fold, as far as they are trained.

    Args:
        trial: The trial's folder.
        case_ids: ``(C,)`` of the cases asked for.
        num_folds: Of the study.

    Returns:
        ``(C,)`` float64 bone age in months; NaN where no fold that is finished holds the case.
    """
    folder = partition_folder(trial)
    months = pd.Series(np.nan, index=case_ids.to_numpy())
    for fold in finished_folds(folder, num_folds):
        with (folder / f"fold_{fold}.parquet").open("rb") as file:
            table = pd.read_parquet(file, columns=["case_id", "predicted_months"])
        months[table["case_id"].to_numpy()] = table["predicted_months"].to_numpy(np.float64)
    return months[case_ids.to_numpy()].to_numpy(np.float64)


class SecondPartition:
    """Hands out the folds of the survivors, in any order and each once, and closes them. Nothing stops them."""

    def __init__(self, study: AnyPath, num_folds: int, count: int, say: Callable[[Event], None]) -> None:
        """Nothing is begun.

        Args:
            study: The study's folder.
            num_folds: Folds of the partition.
            count: How many survivors are wanted; 0: there is no second partition.
            say: Called with what happens.
        """
        self._study, self._num_folds, self.count, self._say = study, num_folds, count, say
        self._maes: dict[int, dict[int, float]] = {}
        self._to_begin: list[tuple[int, int]] = []
        self._at_work: set[tuple[int, int]] = set()
        self.has_begun = False

    def begin(self, survivors: Sequence[int]) -> None:
        """All trials have ended, and these, best first, are trained again; what a run before has left counts.

        Said again, it changes nothing.
        """
        if self.has_begun:
            return
        self.has_begun = True
        for number in survivors[: self.count]:
            folder = self._folder(number)
            if (folder / "outcome.json").exists():
                continue
            done = finished_folds(folder, self._num_folds)
            self._maes[number] = {fold: record["mae_months"] for fold, record in done.items()}
            missing = [(number, fold) for fold in range(self._num_folds) if fold not in done]
            self._to_begin += missing or [(number, 0)]  # its last worker was killed before it joined the folds
        # the first fold of all, then the second: should the run end early, what is known is known of each
        self._to_begin.sort(key=lambda work: work[1])

    @property
    def is_anyone_at_work(self) -> bool:
        """Whether a fold is in training."""
        return bool(self._at_work)

    @property
    def is_complete(self) -> bool:
        """Whether there is no more to do."""
        return not self.count or (self.has_begun and not self._maes)

    def next(self) -> tuple[int, int] | None:
        """A fold to train: trial and fold."""
        while self._to_begin:
            number, fold = self._to_begin.pop(0)
            if number in self._maes:  # not closed by another fold's failure
                self._at_work.add((number, fold))
                return number, fold
        return None

    def finish(self, number: int, fold: int, mae_months: float) -> None:
        """A fold has ended."""
        if number not in self._maes:
            return
        maes = self._maes[number]
        maes[fold] = mae_months
        text = f"second partition, fold {fold + 1}/{self._num_folds}: {mae_months:.1f} months"
        if len(maes) == self._num_folds:
            in_order = [maes[i] for i in range(self._num_folds)]
            self._close(number, {"state": "complete", "fold_mae_months": in_order, "reason": ""})
            text += f"; {np.mean(in_order):.2f} over all"
        self._say(Event("partition", number, (), text))

    def fail(self, number: int, reason: str) -> None:
        """A fold cannot be trained: the trial has no error on this partition."""
        if number in self._maes:
            self._close(number, {"state": "failed", "fold_mae_months": [], "reason": reason})
            self._say(Event("partition", number, (), f"second partition: failed: {reason}"))

    def is_wanted(self, number: int) -> bool:
        """Whether the trial is still trained here."""
        return number in self._maes

    def leave(self, number: int, fold: int) -> None:
        """A worker ends; a fold that it left undone is free again."""
        self._at_work.discard((number, fold))
        if number in self._maes and fold not in self._maes[number]:
            self._to_begin.append((number, fold))

    def _close(self, number: int, outcome: dict[str, object]) -> None:
        write_json(self._folder(number) / "outcome.json", outcome)
        del self._maes[number]

    def _folder(self, number: int) -> AnyPath:
        return partition_folder(trial_folder(self._study, number))
