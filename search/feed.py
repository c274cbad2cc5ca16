"""Training batches in their order, changed anew each epoch, on the device before it needs them.

On the CPU a batch is made when it is asked for: the core that would make it ahead is the one that trains. For a GPU
threads make batches ahead (OpenCV leaves the interpreter while it works), in pinned memory, and the copy runs beside
the training. The batches are the same either way.

Shape letters: B batch, N cases, H height, W width, M monthly bins.
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
    teacher_NM: np.ndarray | None = None
    """float32 distributions of all cases, where the network is distilled."""

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
        images, sex, months = map(torch.from_numpy, (images_BHW, self.sex_N[rows], self.months_N[rows]))
        teacher = None if self.teacher_NM is None else torch.from_numpy(self.teacher_NM[rows])
        if torch.device(self.device).type == "cuda":
            images, sex, months = images.pin_memory(), sex.pin_memory(), months.pin_memory()
            teacher = None if teacher is None else teacher.pin_memory()
        return Batch(images, sex, months, teacher), poses

    def _to_device(self, batch: Batch, poses: list[Pose]) -> Batch:
        images, sex, months = (
            tensor.to(self.device, non_blocking=True) for tensor in (batch.images_BHW, batch.sex_B, batch.months_B)
        )
        teacher = None if batch.teacher_BM is None else batch.teacher_BM.to(self.device, non_blocking=True)
        return Batch(self.augment.place(images, poses), sex, months, teacher)


def batch_rows(rows: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    """Endless (epoch, row numbers); each epoch is shuffled anew and its incomplete last batch is left out."""
    for epoch in itertools.count():
        order = rng.permutation(rows)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield epoch, np.sort(order[start : start + batch_size])  # in order on disk
