"""Train one fold: plain PyTorch.

Shape letters: B batch, N cases, M monthly bins, H height, W width.
"""

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from preprocessing.augment import Augmentation
from preprocessing.cohort import Cohort
from preprocessing.storage import AnyPath, canonical_hash
from search.checkpoint import FoldCheckpoint
from search.feed import Feed
from search.learner import Learner
from search.memory import TrainingError as TrainingError
from search.memory import is_out_of_memory, micro_batch, more_parts
from search.model import BIN_MONTHS, BoneAgeNet, probed, sex_codes
from search.numerics import Numerics, device_name, fixed, reproducible
from search.predict import guess_male, predict
from search.space import TrialConfig

MEASURE_AT = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the training after which a fold is measured. The last one counts; none of them picks the weights."""
GLANCE_CASES = 256
"""Measurements before the last take at most this many of the fold's cases: they only draw a curve."""
CHECK_STEPS = 20
"""The losses stay on the device for so many steps before they are looked at: each look makes the host wait for it."""


@dataclass(frozen=True)
class Measurement:
    """Where a fold stands."""

    epoch: float
    """Passes over the training cases so far."""
    images_seen: int
    train_loss: float
    """Mean since the measurement before."""
    mae_months: float
    """Of the fold's own cases, which it does not learn from; before the last measurement, of a sample of them."""
    final: bool = False
    """Whether training has ended; only this one counts."""
    note: str = ""
    """What a person should know of the way here: memory ran out, it goes on from a checkpoint."""


@dataclass(frozen=True)
class Run:
    """How a fold was computed; none of it is part of the configuration."""

    precision: str
    accumulate: int
    """Parts in which a batch passed at the end: more than configured where memory ran out."""
    device: str
    channels_last: bool
    compiled: bool
    seconds: float
    """Of training and measuring, in all workers that took part; what a killed one lost is not in it."""
    images_per_second: float


@dataclass(frozen=True)
class TrainedFold:
    """What training one fold leaves behind."""

    model: BoneAgeNet
    probabilities_NM: np.ndarray
    """``(N, 240)`` float32, one row a case of the fold, in the cohort's order."""
    history: list[Measurement]
    run: Run | None = None
    male_probability_N: np.ndarray | None = None
    """``(N,)`` float32 of the same cases, what the network reads from the picture; None where it does not guess it."""

    @property
    def mae_months(self) -> float:
        """Mean absolute error on the fold's own cases."""
        return self.history[-1].mae_months


@dataclass
class _Progress:
    """Where the training stands, beside what the learner holds. The order of the cases follows from the step."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    """Since the last measurement."""
    history: list[Measurement] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class _Room:
    """In how many parts a batch passes at least, since memory ran out before."""

    parts: int
    note: str = ""
    """What a person should know of it; empty where it did not."""

    def narrow(self, batch_size: int, said: str) -> None:
        """Make the parts smaller, after an error that said so.

        Raises:
            TrainingError: They are single images already.
        """
        try:
            self.parts = more_parts(batch_size, self.parts)
        except TrainingError:
            raise TrainingError(
                f"Memory must hold the network, its optimiser and what it predicts, and it does not: {said}. "
                "Choose a smaller backbone or image size, or run fewer trials at a time."
            ) from None
        size = micro_batch(batch_size, self.parts)
        self.note = f"Memory ran out ({said}); it goes on with {size} images at a time."


def steps_of(config: TrialConfig, num_rows: int) -> int:
    """Optimiser steps of a fold that learns from so many cases."""
    images = config.planned_images(num_rows)
    return max(len(MEASURE_AT), images // min(config.batch_size, num_rows))


def train_fold(
    config: TrialConfig,
    cohort: Cohort,
    fold: int | None,
    *,
    device: str = "cpu",
    report: Callable[[Measurement], None] = lambda measurement: None,
    checkpoint: AnyPath | None = None,
    replay: Callable[[Measurement], None] = lambda measurement: None,
    numerics: Numerics | None = None,
    parts: int = 1,
    measure_at: tuple[float, ...] = MEASURE_AT,
    teacher_NM: np.ndarray | None = None,
) -> TrainedFold:
    """Train on the other folds, predict this one.

    The weights after the last step are kept whatever the measurements said: picking the best epoch on the fold's own
    cases would make its out-of-fold predictions look better than they are.

    On the CPU the same arguments give the same weights to the bit, whether the training was interrupted or not.

    Args:
        config: The trial.
        cohort: The locked test split is not touched.
        fold: Which fold is left out and predicted; None leaves none out, and measures on a sample of the training
            cases, which says whether the training went well and nothing of new cases.
        device: ``cpu`` or a CUDA device.
        report: Called with each measurement, at the shares `measure_at` of the training.
        checkpoint: File that the training state is kept in, written before the reports and every minute. A training
            that finds one of its own goes on from it. It is left in place: it goes when the fold is stored.
        replay: Called with the measurements that a checkpoint brings along.
        numerics: Precision; None: the configuration's, and float32 for ``auto``.
        parts: Least number of parts in which a batch passes, as other folds of the trial came to need.
        measure_at: Shares of the training after which it is measured, ascending, the last one 1.
        teacher_NM: ``(N, 240)`` float32, for each case of the cohort a distribution to learn beside its label; of cases
            outside the training rows it is not looked at.

    Raises:
        TrainingError: The loss is not finite, or not even one image fits into memory.
        ValueError: The configuration names no model, or a precision that the device lacks.
    """
    key = canonical_hash([config.to_dict(), cohort.hash, fold, *_digest(teacher_NM)])
    saved = FoldCheckpoint(checkpoint, key) if checkpoint else None
    if numerics is None:
        numerics = Numerics() if config.precision == "auto" else fixed(config.precision, device)
    room = _Room(parts)
    while True:
        try:
            with reproducible(config.deterministic):
                return _train(
                    config, cohort, fold, device, report, replay, saved, numerics, room, measure_at, teacher_NM
                )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = str(error).strip() or type(error).__name__
        finally:
            if saved:
                saved.end()
        # not in a step, which makes do by itself: where it measured, say, or wrote its checkpoint
        room.narrow(min(config.batch_size, len(cohort.train_rows(fold))), said)


def _train(
    config: TrialConfig,
    cohort: Cohort,
    fold: int | None,
    device: str,
    report: Callable[[Measurement], None],
    replay: Callable[[Measurement], None],
    saved: FoldCheckpoint | None,
    numerics: Numerics,
    room: _Room,
    measure_at: tuple[float, ...],
    teacher_NM: np.ndarray | None,
) -> TrainedFold:
    rows, pixels = cohort.train_rows(fold), cohort.view(config.view)
    months = cohort.cases["bone_age_months"].to_numpy(np.float32)
    sex = sex_codes(cohort.cases["is_male"])
    place, what = (cohort.num_folds, "all folds") if fold is None else (fold, f"fold {fold}")
    seed = config.seed * 1009 + place  # every fold starts from weights and an order of its own
    torch.manual_seed(seed)
    model = probed(BoneAgeNet(config, float(months[rows].mean()), float(months[rows].std())), pixels.shape[-1])
    batch_size, num_steps = min(config.batch_size, len(rows)), steps_of(config, len(rows))
    frozen_steps = math.ceil(config.frozen_epochs * len(rows) / batch_size)
    learner = Learner(model, config, numerics, device, num_steps, frozen_steps)
    learner.parts = min(max(learner.parts, room.parts), batch_size)
    learner.notes += [room.note] if room.note else []
    augment = Augmentation(config.augmentation, seed, device, config.warp_on)
    feed = Feed(pixels, sex, months, rows, batch_size, seed, augment, device, teacher_NM)
    progress = _begin(learner, saved, device, batch_size)
    for measurement in progress.history:
        replay(measurement)
    measure_steps = {math.ceil(num_steps * share) for share in measure_at}
    probabilities = np.empty(0, np.float32)
    pending: list[torch.Tensor] = []
    threads = 0 if torch.device(device).type == "cpu" else max(2, torch.get_num_threads())
    before = progress.seconds
    start = time.perf_counter()
    with closing(feed.batches(progress.step, threads)) as batches:
        for step in range(progress.step + 1, num_steps + 1):
            parts_before = learner.parts
            pending.append(learner.step(next(batches), step))
            progress.step, room.parts = step, learner.parts
            if saved and learner.parts > parts_before:
                saved.narrow(learner.parts)
            is_measured = step in measure_steps
            is_kept = saved is not None and step < num_steps and saved.is_wanted(is_measured=is_measured)
            if is_measured or is_kept or step % CHECK_STEPS == 0:
                progress.losses += _read_losses(pending, step, num_steps, what)
            if is_measured:
                measured = rows if fold is None else cohort.fold_rows(fold)
                if step < num_steps or fold is None:
                    measured = measured[:: math.ceil(len(measured) / GLANCE_CASES)]
                probabilities = predict(learner.kept, pixels, sex, measured, device)
                error = np.abs(probabilities @ BIN_MONTHS - months[measured])
                if not np.isfinite(error).all():
                    raise TrainingError(f"The predictions of {what} are not finite after step {step} of {num_steps}.")
                seen, mean_loss = step * batch_size, float(np.mean(progress.losses))
                note, is_last = " ".join(learner.notes), step == num_steps
                progress.history.append(
                    Measurement(seen / len(rows), seen, mean_loss, float(error.mean()), is_last, note)
                )
                progress.losses.clear()
                learner.notes.clear()
            progress.seconds = before + time.perf_counter() - start
            if saved and is_kept:
                saved.save(_state(learner, progress, device), step, learner.parts)
            if is_measured:
                try:
                    report(progress.history[-1])
                except BaseException:  # stopped in good order: what is to go on later, goes on from here
                    if saved and not is_kept and step < num_steps:
                        saved.save(_state(learner, progress, device), step, learner.parts)
                    raise
    run = Run(
        precision=numerics.precision,
        accumulate=learner.parts,
        device=device_name(device),
        channels_last=numerics.channels_last,
        compiled=numerics.compiled,
        seconds=round(progress.seconds, 3),
        images_per_second=round(num_steps * batch_size / progress.seconds, 1),
    )
    kept = learner.kept.eval()
    guess = None if fold is None else guess_male(kept, pixels, cohort.fold_rows(fold), device)
    return TrainedFold(kept, probabilities, progress.history, run, guess)


def _digest(teacher_NM: np.ndarray | None) -> list[str]:
    """What names a teacher; nothing where there is none, so that a checkpoint's key is what it was."""
    return [] if teacher_NM is None else [hashlib.sha256(np.ascontiguousarray(teacher_NM).tobytes()).hexdigest()]


def _begin(learner: Learner, saved: FoldCheckpoint | None, device: str, batch_size: int) -> _Progress:
    """Go on from the checkpoint, or start; in smaller parts where workers were killed again and again."""
    progress = _Progress()
    if saved is None:
        return progress
    state, refusal = saved.load(device)
    if refusal:
        learner.notes.append(refusal)
    if state is not None:
        learner.restore(state["learner"])
        learner.notes.append(f"It goes on from step {state['step']}, where its worker ended.")
        progress.step, progress.losses, progress.seconds = state["step"], state["losses"], state["seconds"]
        progress.history = [Measurement(**item) for item in state["history"]]
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None and torch.device(device).type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), device)
    learner.parts, was_killed_often = saved.begin(progress.step, learner.parts)
    if was_killed_often:
        size = micro_batch(batch_size, learner.parts)
        learner.parts = more_parts(batch_size, learner.parts)
        saved.narrow(learner.parts)
        learner.notes.append(
            f"Workers were killed after step {progress.step}, as for lack of memory, with {size} images at a "
            f"time; it goes on with {micro_batch(batch_size, learner.parts)}, the batch in {learner.parts} parts."
        )
    return progress


def _state(learner: Learner, progress: _Progress, device: str) -> dict[str, Any]:
    is_cuda = torch.device(device).type == "cuda"
    return {
        "learner": learner.state(),
        "step": progress.step,
        "losses": progress.losses,
        "history": [asdict(item) for item in progress.history],
        "seconds": progress.seconds,
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(device) if is_cuda else None,
    }


def _read_losses(pending: list[torch.Tensor], step: int, num_steps: int, what: str) -> list[float]:
    """Losses of the steps up to `step` that were not read yet, in order; empties the list.

    Raises:
        TrainingError: One of them is not finite; it names the first.
    """
    losses = torch.stack(pending).tolist() if pending else []
    pending.clear()
    for i, value in enumerate(losses):
        if not math.isfinite(value):
            first = step - len(losses) + 1 + i
            raise TrainingError(f"The loss of {what} became {value} at step {first} of {num_steps}.")
    return losses
