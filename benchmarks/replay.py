"""Fully trained configurations on disk, and what ways of searching would have made of them.

OUT/seed_0/optuna.journal       every configuration as just begun
OUT/seed_0/trials/0007/         as of a study (see search/trial.py), without an outcome; ``failed.json`` where it failed
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from benchmarks.spent import Spent
from preprocessing.cohort import Cohort
from preprocessing.storage import as_path, read_json, write_json
from search.control import StudyControl, result_of
from search.generations import generation_of
from search.journal import FILE
from search.progress import SCREEN, read_measurements
from search.racing import Race, make_rules
from search.sampler import Sampler
from search.screen import read_screen
from search.space import TrialConfig
from search.train import MEASURE_AT, TrainingError
from search.trial import FoldReport, all_outcomes, run_trial, trial_folder, trial_numbers

POOL = 5
"""Trials of lowest error that the ensemble chooses from; the race keeps as many."""


def sampler_of(study: Path, space: str, seed: int, num_trials: int, view: str) -> Sampler:
    """The search's own sampler of a study."""
    return Sampler(as_path(study), name="recorded", space=space, seed=seed, num_trials=num_trials, views=[view])


def draw(study: Path, space: str, seed: int, num_trials: int, view: str, images: int) -> None:
    """Draw the configurations, before any is trained: no result leads the sampler, so both sides share them."""
    sampler = sampler_of(study, space, seed, num_trials, view)
    while sampler.num_asked() < num_trials:
        sampler.ask()
    for number in range(num_trials):
        path = trial_folder(study, number) / "config.json"
        record = read_json(path)
        write_json(path, record | {"config": record["config"] | {"max_images_seen": images}})


def redrawn(recorded: Sequence[Path], study: Path, space: str, seed: int, num_trials: int, view: str) -> None:
    """A search of `num_trials` of the recorded configurations, in random order: their folders are linked."""
    known = [trial_folder(other, number) for other in recorded for number in trial_numbers(other)]
    order = np.random.default_rng(seed).permutation(len(known))[:num_trials]
    draw(study, space, seed, num_trials, view, 1)  # the journal; its configurations give way to the recorded ones
    shutil.rmtree(study / "trials")
    (study / "trials").mkdir()
    for number, index in enumerate(order):
        trial_folder(study, number).symlink_to(known[index])


def record(task: tuple[Path, Path, int]) -> None:
    """Train one configuration on every fold, from wherever it stopped before."""
    cohort, study, number = task
    torch.set_num_threads(1)
    folder = as_path(trial_folder(study, number))
    if (folder / "oof.parquet").exists() or (folder / "failed.json").exists():
        return
    config = TrialConfig.from_dict(read_json(folder / "config.json")["config"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        run_trial(folder, config, Cohort.load(cohort), device=device, screen=True)
    except TrainingError as error:
        write_json(folder / "failed.json", {"reason": str(error)})


def reports(study: Path, number: int, num_folds: int) -> Iterator[FoldReport]:
    """What a recorded trial reported, in order; a failed one up to its last finished fold."""
    maes: list[float] = []
    if screen := read_screen(as_path(trial_folder(study, number))):
        yield FoldReport(0, screen, (), False, False, is_screen=True)
    for fold in range(num_folds):
        points = read_measurements(as_path(trial_folder(study, number)), fold)
        if not points or not points[-1].final:
            return
        for point in points:
            maes += [point.mae_months] if point.final else []
            yield FoldReport(fold, point, tuple(maes), point.final, False)


def full(study: Path, num_folds: int) -> Spent:
    """Every fold of every configuration."""
    spent, complete = 0, {}
    for number in trial_numbers(study):
        finals = [report for report in reports(study, number, num_folds) if report.fold_finished]
        spent += sum(report.measurement.images_seen for report in finals)
        if len(finals) == num_folds:
            complete[number] = spent
    return Spent(spent, complete)


def race(study: Path, space: str, seed: int, view: str, num_folds: int) -> Spent:
    """The records as the search's control lets them go on: a study that is resumed with every trial just begun."""
    numbers = list(trial_numbers(study))
    with tempfile.TemporaryDirectory() as name:
        replayed = Path(name)
        shutil.copy(study / FILE, replayed / FILE)
        for number in numbers:
            trial_folder(replayed, number).mkdir(parents=True)
            shutil.copy(trial_folder(study, number) / "config.json", trial_folder(replayed, number))
        sampler = sampler_of(replayed, space, seed, len(numbers), view)
        rules = Race(make_rules("matched", True, POOL))
        control = StudyControl(sampler, rules, num_folds=num_folds, generation=generation_of(len(numbers)))
        done: list[tuple[int, bool]] = []
        while following := control.next():
            number, is_screen = following.number, following.fold == SCREEN
            fold = SCREEN if is_screen else None
            done.append((number, is_screen))
            told = [report for report in reports(study, number, num_folds) if report.is_screen == is_screen]
            for report in told:
                if control.on_result(number, result_of(report), fold=fold):
                    break
            else:
                failed = trial_folder(study, number) / "failed.json"
                if failed.exists() and not (is_screen and told):
                    control.on_result(number, {"failed": read_json(failed)["reason"]}, fold=fold)
            control.on_end(number, crashed=False, fold=fold)
        outcomes = {outcome["number"]: outcome for outcome in all_outcomes(replayed)}
    spent, complete = 0, {}
    for number, is_screen in done:
        measured = read_screen(as_path(trial_folder(study, number)))
        of_screen = measured.images_seen if measured else 0
        spent += of_screen if is_screen else outcomes[number]["images_seen"] - of_screen
        if not is_screen and outcomes[number]["state"] == "complete":
            complete[number] = spent
    return Spent(spent, complete)


def stock(study: Path, num_folds: int) -> Spent:
    """The records as ASHA lets them go on, at its defaults, with the measurement as its time."""
    scheduler = ASHAScheduler(time_attr="training_iteration", metric="mae", mode="min", max_t=len(MEASURE_AT))
    spent, complete, folds = 0, {}, {}
    for number in trial_numbers(study):
        finished: dict[int, int] = {}
        told = list(reports(study, number, num_folds))
        for fold in range(num_folds):  # Repeater begins every fold, whatever became of the others
            trial: Any = SimpleNamespace(trial_id=f"{number}-{fold}")
            controller: Any = None  # ASHA asks it nothing
            scheduler.on_trial_add(controller, trial)
            images, is_finished = 0, False
            of_fold = [report for report in told if report.fold == fold and not report.is_screen]
            for step, report in enumerate(of_fold, start=1):
                images = report.measurement.images_seen
                result = {"training_iteration": step, "mae": report.measurement.mae_months}
                decision = scheduler.on_trial_result(controller, trial, result)
                is_finished = report.fold_finished
                if decision == TrialScheduler.STOP:
                    break
            spent += images
            if is_finished:
                finished[fold] = spent
        folds[number] = finished
        if len(finished) == num_folds:
            complete[number] = spent
    return Spent(spent, complete, folds)
