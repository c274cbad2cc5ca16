"""The first fidelity: fold 0 in a quarter of its passes or more, as a short training with a schedule of its own.

trials/0007/screen.json         what it measured at its end; nothing else of it is kept
trials/0007/screen.checkpoint   while it trains

A measurement in the middle of the long training cannot take its place: while the learning rate is high it says next to
nothing of the end. Over 16 configurations of the space `quick` on real radiographs (96 pixels, fold 0, 6,000 image
passes) the Spearman correlation with the final error was 0.1 after a fifth and after two fifths of the training, 0.7
after three fifths, and 0.7 for the short training.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace

from preprocessing.cohort import Cohort
from preprocessing.storage import AnyPath, read_json, write_json
from search.checkpoint import FoldCheckpoint
from search.numerics import Numerics
from search.space import TrialConfig
from search.train import Measurement, train_fold

SHARE = 0.25
"""Of the image passes of a fold, or more where that makes fewer than `LEAST_STEPS`."""
LEAST_STEPS = 96
"""Before that many a network says no more than the median of the training cases, and a short training ranks by luck:
over 36 configurations of the space `quick` (1,918 radiographs, 64 pixels, batches of 16) its rank correlation with the
error out of fold was 0.23 after 39 steps, a quarter of 2,500 passes, and 0.88 after 94. Over 12 draws of 28 of them the
ensemble was 5.9 % worse than that of full cross-validation, and 0.01 % so; over as many of 36 others, of 4,000 passes,
3.2 % after 62 steps, 0.04 % after 94 and 0.08 % after 125, for 3.5, 3.4 and 3.1 times fewer passes."""
CHECKPOINT = "screen.checkpoint"
_FILE = "screen.json"


def shortened(config: TrialConfig, num_rows: int) -> TrialConfig:
    """The configuration of the short training on so many cases: everything that counts in passes shrinks alike."""
    images = config.planned_images(num_rows)
    short = min(images, max(LEAST_STEPS * config.batch_size, math.ceil(SHARE * images)))
    return replace(config, max_images_seen=short, frozen_epochs=short / images * config.frozen_epochs)


def read_screen(folder: AnyPath) -> Measurement | None:
    """What a trial's short training measured at its end, or None where there was none."""
    path = folder / _FILE
    return Measurement(**read_json(path)) if path.exists() else None


def run_screen(
    folder: AnyPath, config: TrialConfig, cohort: Cohort, *, device: str, numerics: Callable[[], tuple[Numerics, int]]
) -> tuple[Measurement, bool]:
    """Run the short training of a trial, or read what it measured.

    Args:
        folder: The trial's folder.
        config: Of the whole training.
        cohort: What to train on; fold 0 is measured.
        device: Where.
        numerics: Called where it is trained, for the precision and the parts in which a batch passes.

    Returns:
        The measurement at its end, and whether it was read.

    Raises:
        TrainingError: The configuration cannot be trained.
    """
    if known := read_screen(folder):
        return known, True
    checkpoint, (precision, parts) = folder / CHECKPOINT, numerics()
    trained = train_fold(
        shortened(config, len(cohort.train_rows(0))),
        cohort,
        0,
        device=device,
        checkpoint=checkpoint,
        numerics=precision,
        parts=parts,
        measure_at=(1.0,),
    )
    write_json(folder / _FILE, asdict(trained.history[-1]))
    FoldCheckpoint(checkpoint).remove()
    return trained.history[-1], False
