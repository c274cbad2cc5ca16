"""Which numerics are fastest for a network on a device: a few steps of each, once a trial.

The choice depends on the clock, so two studies may choose differently on a machine that is busy with other work. What
a trial has chosen lies in its folder, and all its folds and every restart use that; a training too short for it to
matter is not measured, and one that is `TrialConfig.deterministic` or names its precision never is. With these, a study
run again gives the same weights to the bit on the CPU.

trials/0007/precision.json               per kind of device: the choice, the seconds a step that it rests on, what
                                         failed, and the parts in which a batch passed, where they had to be several
trials/0007/precision_cpu.attempt.json   there while it is measured: who is killed meanwhile may have lacked memory
"""

import math
import time
from dataclasses import asdict, replace
from typing import Any

import torch

from preprocessing.storage import AnyPath, canonical_hash, read_json, write_json
from search.checkpoint import FoldCheckpoint
from search.learner import Batch, Learner
from search.memory import TrainingError, more_parts
from search.model import BoneAgeNet, probed
from search.numerics import Numerics, available, device_name, fixed
from search.space import TrialConfig

FILE = "precision.json"
LEAST_STEPS = 1000
"""Trainings with fewer steps over all folds are not measured: nine to fifteen steps of measuring cost a percent."""
TIMED_STEPS = 2
"""Steps of each candidate that are timed, after one that is not; the fastest counts: other work disturbs it least."""
MARGIN = 0.9
"""A candidate must take less than this share of the time to be preferred to the safer one before it."""
COMPILE_SECONDS = 600.0
"""Trainings that would take less are not compiled: compiling takes about a minute a fold and has to be won back."""


def trial_numerics(
    folder: AnyPath, config: TrialConfig, size: int, device: str, *, num_steps: int, num_folds: int
) -> tuple[Numerics, int]:
    """The numerics of a trial: what its folder says, or else what is measured now and written there.

    The system kills a worker that takes too much memory, without a word: where that has happened while it was measured,
    a batch passes in smaller parts the next time, as in a fold.

    Args:
        folder: The trial's.
        config: Its network and batch.
        size: Side of its images, in pixels.
        device: Where it trains.
        num_steps: Steps of one fold.
        num_folds: Folds.

    Returns:
        The numerics, and in how many parts a batch passes at least.

    Raises:
        ValueError: The configuration names a precision that the device lacks.
        TrainingError: Not even one image fits into memory, in whatever precision.
    """
    kind, path = torch.device(device).type, folder / FILE
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    if config.precision == "auto" and kind in known:
        return Numerics(**known[kind]["numerics"]), known[kind].get("parts", 1)
    if not _is_measured(config, num_steps * num_folds):
        return choose_numerics(config, size, device, num_steps=num_steps, num_folds=num_folds)[0], 1
    attempt = FoldCheckpoint(folder / f"precision_{kind}.checkpoint", canonical_hash(config.to_dict()))
    try:
        parts, was_killed_often = attempt.begin(0, config.accumulate)
        if was_killed_often:
            parts = more_parts(config.batch_size, parts)
            attempt.narrow(parts)
        numerics, seconds, failed = choose_numerics(
            replace(config, accumulate=parts), size, device, num_steps=num_steps, num_folds=num_folds
        )
    finally:
        attempt.end()
    record = {"device": device_name(device), "numerics": asdict(numerics), "seconds_per_step": seconds}
    found = ({"failed": failed} if failed else {}) | ({"parts": parts} if parts > config.accumulate else {})
    write_json(path, known | {kind: record | found})
    return numerics, parts


def choose_numerics(
    config: TrialConfig, size: int, device: str, *, num_steps: int, num_folds: int
) -> tuple[Numerics, dict[str, float], dict[str, str]]:
    """Measure, unless the configuration names a precision or is deterministic, or the training is too short.

    Args:
        config: Network and batch.
        size: Side of the images, in pixels.
        device: Where.
        num_steps: Steps of one fold.
        num_folds: Folds.

    Returns:
        The choice; the seconds a step of every candidate, empty when nothing was measured; and why others are none:
        they do not fit into memory, leave the range of their numbers, or cannot be compiled here.

    Raises:
        ValueError: The configuration names a precision that the device lacks.
        TrainingError: Not even one image fits into memory, in whatever precision.
    """
    total_steps = num_steps * num_folds
    if config.precision != "auto":
        return fixed(config.precision, device), {}, {}
    best = Numerics()
    if not _is_measured(config, total_steps):
        return best, {}, {}
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    least = math.inf

    def measured(numerics: Numerics) -> tuple[float, float]:
        try:
            first, later = _time_steps(config, numerics, size, device)
        except TrainingError as error:
            failed[_name(numerics)] = str(error)
        except Exception as error:
            if not numerics.compiled:
                raise
            failed[_name(numerics)] = f"{type(error).__name__}: {error}"[:300]  # no compiler on this machine, say
        else:
            seconds[_name(numerics)] = later
            return first, later
        return math.inf, math.inf

    def try_next(candidate: Numerics) -> None:
        nonlocal best, least
        if (later := measured(candidate)[1]) < MARGIN * least:
            best, least = candidate, later

    _, least = measured(best)
    for precision in available(device)[1:]:
        try_next(Numerics(precision))
    try_next(replace(best, channels_last=False))
    if math.isinf(least):
        raise TrainingError(next(iter(failed.values())))
    if torch.device(device).type == "cuda" and least * total_steps > COMPILE_SECONDS:
        compiled = replace(best, compiled=True)
        to_compile, later = measured(compiled)
        if later * total_steps + 2 * to_compile * num_folds < MARGIN * least * total_steps:
            best = compiled
    return best, seconds, failed


def _is_measured(config: TrialConfig, total_steps: int) -> bool:
    return config.precision == "auto" and not config.deterministic and total_steps >= LEAST_STEPS


def _time_steps(config: TrialConfig, numerics: Numerics, size: int, device: str) -> tuple[float, float]:
    """Seconds of the first step and of the fastest after it, on drawn images; leaves torch's random numbers alone.

    Raises:
        TrainingError: Not even one image fits into memory, or the loss is no number.
    """
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        model = probed(BoneAgeNet(config, fetch=False), size)
        learner = Learner(model, config, numerics, device, num_steps=1, frozen_steps=0)
        images = torch.randint(0, 256, (config.batch_size, size, size), dtype=torch.uint8)
        sex, months = torch.arange(config.batch_size) % 2 * 2.0 - 1, torch.linspace(20, 200, config.batch_size)
        batch = Batch(images.to(device), sex.to(device), months.to(device))
        times = []
        for _ in range(1 + TIMED_STEPS):
            start = time.perf_counter()
            loss = float(learner.step(batch, 1))  # waits for the device
            if not math.isfinite(loss):
                raise TrainingError(f"The loss is {loss} in {numerics.precision}.")
            times.append(time.perf_counter() - start)
    return times[0], min(times[1:])


def _name(numerics: Numerics) -> str:
    layout = "channels last" if numerics.channels_last else "channels first"
    return ", ".join([numerics.precision, layout] + ["compiled"] * numerics.compiled)
