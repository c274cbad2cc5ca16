"""Training batches in their order, changed anew each epoch, on the device before it needs them.

On the CPU a batch is made when it is asked for: the core that would make it ahead is the one that trains. For a GPU
threads make batches ahead (OpenCV leaves the interpreter while it works), in pinned memory, and the copy runs beside
the training. The batches are the same either way.

Shape letters: B batch, N cases, H height, W width.
"""

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from preprocessing.augment import Augmentation
from preprocessing.warp import Pose
from search.learner import Batch


@dataclass(frozen=True)
class Feed:
    """Where the batches of one fold come from."""

    pixels_NHW: np.ndarray
    """uint8, of all cases, on disk."""
    sex_N: np.ndarray
    """float32, `sex_codes`."""
    months_N: np.ndarray
    """float32."""
    rows: np.ndarray
    """Row numbers of the training cases."""
    batch_size: int
    seed: int
    augment: Augmentation
    device: str

    def batches(self, first: int, threads: int) -> Generator[Batch]:
        """Endless batches.

        Args:
            first: How many to leave out, where a training goes on.
            threads: That make batches ahead; 0 makes each when it is asked for.
        """
        order = itertools.islice(batch_rows(self.rows, self.batch_size, np.random.default_rng(self.seed)), first, None)
        if not threads:
            for epoch, rows in order:
                yield self._to_device(*self._paint(epoch, rows))
            return
        with ThreadPoolExecutor(threads, "feed") as pool:
            begun = deque(pool.submit(self._paint, *next(order)) for _ in range(threads + 2))
            try:
                while True:
                    done = begun.popleft().result()
                    begun.append(pool.submit(self._paint, *next(order)))
                    yield self._to_device(*done)
            finally:
                pool.shutdown(cancel_futures=True)

    def _paint(self, epoch: int, rows: np.ndarray) -> tuple[Batch, list[Pose]]:
        images_BHW, poses = self.augment.paint(self.pixels_NHW[rows], rows, epoch)
        batch = Batch(*map(torch.from_numpy, (images_BHW, self.sex_N[rows], self.months_N[rows])))
        if torch.device(self.device).type == "cuda":
            batch = Batch(batch.images_BHW.pin_memory(), batch.sex_B.pin_memory(), batch.months_B.pin_memory())
        return batch, poses

    def _to_device(self, batch: Batch, poses: list[Pose]) -> Batch:
        images, sex, months = (
            tensor.to(self.device, non_blocking=True) for tensor in (batch.images_BHW, batch.sex_B, batch.months_B)
        )
        return Batch(self.augment.place(images, poses), sex, months)


def batch_rows(rows: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    """Endless (epoch, row numbers); each epoch is shuffled anew and its incomplete last batch is left out."""
    for epoch in itertools.count():
        order = rng.permutation(rows)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield epoch, np.sort(order[start : start + batch_size])  # in order on disk
