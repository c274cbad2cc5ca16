"""One step of learning, in any precision and in as many parts as memory asks for.

Shape letters: B batch, H height, W width, M monthly bins.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search.memory import is_out_of_memory, micro_batch, more_parts
from search.model import BoneAgeNet
from search.numerics import Numerics
from search.optimize import make_average, make_optimizer, rate_share
from search.space import TrialConfig

MAX_GRADIENT = 5.0
"""Norm that a step's gradient is clipped to."""


@dataclass(frozen=True)
class Batch:
    """Training images with what is known of them, on the training device."""

    images_BHW: Tensor
    """uint8."""
    sex_B: Tensor
    """float32: +1 male, -1 female, 0 unknown."""
    months_B: Tensor
    """float32."""
    teacher_BM: Tensor | None = None
    """float32 distributions of a teacher, where the network is distilled."""

    def part(self, rows: slice) -> "Batch":
        """Some of it, without copying."""
        teacher = None if self.teacher_BM is None else self.teacher_BM[rows]
        return Batch(self.images_BHW[rows], self.sex_B[rows], self.months_B[rows], teacher)


class Learner:
    """Network, optimiser and all that a step changes.

    A batch may pass in several parts, and out of memory makes them smaller. The loss is a mean, so gradients weighted
    by the parts' sizes add up to those of the whole batch, except where a network looks across the batch: **batch
    normalisation takes mean and spread from each part alone**, which is noisier, and moves its running statistics once
    a part instead of once a step. Such a network learns a little differently in parts; one with layer or group
    normalisation learns the same up to rounding. The number of parts is kept with the fold.
    """

    def __init__(
        self, model: BoneAgeNet, config: TrialConfig, numerics: Numerics, device: str, num_steps: int, frozen_steps: int
    ) -> None:
        """Set up the first step.

        Args:
            model: With its first weights.
            config: Loss, optimiser and schedule.
            numerics: Precision and memory layout.
            device: Where the batches will lie.
            num_steps: Length of the training.
            frozen_steps: How many of them leave the trunk alone.
        """
        layout = torch.channels_last if numerics.channels_last else torch.contiguous_format
        self.model = model.to(device).to(memory_format=layout)
        self.parts = config.accumulate
        self.notes: list[str] = []
        """What a person should know since the last measurement."""
        self._config, self._numerics, self._device = config, numerics, device
        self._num_steps, self._frozen_steps = num_steps, frozen_steps
        self._average = make_average(self.model, config.ema)
        self._optimizer = make_optimizer(self.model, config)
        self._scaler = torch.amp.GradScaler(torch.device(device).type, enabled=numerics.precision == "fp16")
        self._is_frozen: bool | None = None
        self._training_loss = self.model.training_loss
        if numerics.compiled:
            torch.compiler.reset()  # a worker that trains many networks would come to the limit of what is kept
            self._training_loss = torch.compile(self.model.training_loss)

    @property
    def kept(self) -> BoneAgeNet:
        """The network that is measured and kept: the average, where there is one."""
        return self.model if self._average is None else self._average.module

    def step(self, batch: Batch, number: int) -> Tensor:
        """Take a step; when memory runs out, in smaller parts.

        Args:
            batch: What to learn from.
            number: Of the step, from 1.

        Returns:
            The loss, a scalar that stays on the device: reading it would make the host wait for the step.

        Raises:
            TrainingError: Not even one image fits into memory.
        """
        self._prepare(number)
        share = rate_share(self._config.schedule, (number - 1) / self._num_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * share
        while (value := self._gradients(batch)) is None:
            self._shrink(len(batch.months_B), number)
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update(self.model, step=number)
        return value

    def state(self) -> dict[str, Any]:
        """All that a step changes, as `torch.save` takes it; the tensors are the living ones."""
        return {
            "model": self.model.state_dict(),
            "average": None if self._average is None else self._average.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "parts": self.parts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state; the precision may be another one."""
        self.model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.module.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._lay_moments_out()
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        self.parts = max(self.parts, state["parts"])

    def _lay_moments_out(self) -> None:
        """Moments as their weights lie in memory: those of another layout would be added to other weights, or refused.

        PyTorch keeps the strides that a moment was saved with, and its fused optimisers go by memory alone.
        """
        for weight, moments in self._optimizer.state.items():
            for name, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape == weight.shape and moment.stride() != weight.stride():
                    moments[name] = torch.empty_like(weight, dtype=moment.dtype).copy_(moment)

    def _prepare(self, number: int) -> None:
        """Training mode, which a measurement leaves; a frozen trunk keeps its weights and its statistics."""
        self.model.train()
        is_frozen = number <= self._frozen_steps
        if is_frozen:
            self.model.trunk.eval()
        if is_frozen != self._is_frozen:
            for parameter in self.model.trunk.parameters():
                parameter.requires_grad_(not is_frozen)
            self._is_frozen = is_frozen

    def _gradients(self, batch: Batch) -> Tensor | None:
        """Loss of the batch, its gradient left in the weights; None when memory ran out."""
        self._optimizer.zero_grad(set_to_none=True)
        count = len(batch.months_B)
        total = torch.zeros((), device=self._device)
        try:
            for i in range(self.parts):
                rows = slice(i * count // self.parts, (i + 1) * count // self.parts)
                part = batch.part(rows)
                value = self._loss(part) * (len(part.months_B) / count)
                self._scaler.scale(value).backward()
                total += value.detach()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None  # what the failed step holds is freed with the error, before the next try
        return total

    def _loss(self, part: Batch) -> Tensor:
        with self._numerics.autocast(self._device):
            return self._training_loss(part.images_BHW, part.sex_B, part.months_B, self._config, part.teacher_BM)

    def _shrink(self, count: int, number: int) -> None:
        before = micro_batch(count, self.parts)
        self._optimizer.zero_grad(set_to_none=True)
        self.parts = more_parts(count, self.parts)
        if torch.device(self._device).type == "cuda":
            torch.cuda.empty_cache()
        self.notes.append(
            f"Memory ran out at step {number} with {before} images at a time; "
            f"it goes on with {micro_batch(count, self.parts)}, the batch in {self.parts} parts."
        )
