"""The network: a timm backbone over one grey channel, the sex beside its features, a distribution over months.

Shape letters: B batch, H height, W width, F features, M monthly bins.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import search.backbones  # noqa: F401  (makes timm know our own networks)
from search.space import TrialConfig

NUM_BINS = 240
"""Bins of one month: 0 up to 239 months."""
BIN_MONTHS = np.arange(NUM_BINS, dtype=np.float32)
"""``(M,)`` bone age that each bin stands for, in months."""


class BoneAgeNet(nn.Module):
    """Estimates the distribution of the bone age from one radiograph and the sex.

    Inputs are raw grey levels: the input scale is part of the model, so that no caller has to know it.
    """

    def __init__(self, config: TrialConfig, label_mean: float = 127.0, label_sd: float = 41.0) -> None:
        """Make the network with random weights.

        Args:
            config: Architecture; the rest of it is not used here.
            label_mean: Mean bone age of the training cases, in months: where an untrained network starts.
            label_sd: Their standard deviation, in months.

        Raises:
            ValueError: timm has no model of that name.
        """
        super().__init__()
        try:
            self.backbone = timm.create_model(config.backbone, pretrained=False, in_chans=1, num_classes=0)
        except RuntimeError as error:
            raise ValueError(f"backbone must be the name of a timm model, got {config.backbone!r}: {error}") from None
        self.sex = nn.Sequential(nn.Linear(1, config.sex_features), nn.SiLU())
        self.head_kind = config.head
        width = self.backbone.num_features + config.sex_features
        self.head = nn.Linear(width, NUM_BINS if config.head == "bins" else 2)
        self.months_M = nn.Buffer(torch.from_numpy(BIN_MONTHS))
        self.label_mean = nn.Buffer(torch.tensor(float(label_mean)))
        self.label_sd = nn.Buffer(torch.tensor(float(label_sd)))
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            if config.head == "bins":
                self.head.bias.copy_(-0.5 * ((self.months_M - self.label_mean) / self.label_sd) ** 2)

    @property
    def trunk(self) -> nn.Module:
        """The part that can be frozen."""
        return self.backbone

    def training_loss(self, image_BHW: Tensor, sex_B: Tensor, months_B: Tensor, config: TrialConfig) -> Tensor:
        """Everything that this network learns by, weighted: a scalar, mean over the batch.

        Args:
            image_BHW: ``(B, H, W)`` uint8.
            sex_B: ``(B,)`` float32, `sex_codes`.
            months_B: ``(B,)`` float32 reference bone age, in months.
            config: Of this network.
        """
        from search.losses import loss

        return loss(self(image_BHW, sex_B), months_B, config)

    def features(self, image_BHW: Tensor) -> Tensor:
        """Pooled image features, ``(B, F)``, of raw uint8 grey levels ``(B, H, W)``."""
        scaled = (image_BHW.unsqueeze(1).to(self.head.weight.dtype) - 64.0) / 64.0
        return self.backbone(scaled.contiguous(memory_format=torch.channels_last))

    def forward(self, image_BHW: Tensor, is_male_B: Tensor) -> Tensor:
        """Estimate the distribution of the bone age.

        Args:
            image_BHW: ``(B, H, W)`` uint8, as `preprocessing.standardize` returns it.
            is_male_B: ``(B,)`` bool, or `sex_codes` of it.

        Returns:
            ``(B, 240)`` float32 logits over months; their softmax is the distribution.
        """
        features = self.features(image_BHW).float()
        with torch.autocast(image_BHW.device.type, enabled=False):
            code_B = is_male_B.float() * 2 - 1 if is_male_B.dtype == torch.bool else is_male_B
            sex = self.sex(code_B.to(features.dtype).unsqueeze(1))
            out = self.head(torch.cat([features, sex], dim=1))
            if self.head_kind == "bins":
                return out
            mean = self.label_mean + self.label_sd * out[:, :1]
            width = 4.0 + nn.functional.softplus(out[:, 1:] + 2.0) * 8.0  # months; 4 keeps a bin from taking it all
            return -0.5 * ((self.months_M - mean) / width) ** 2


def sex_codes(is_male_N: Iterable[bool]) -> np.ndarray:
    """The sex as the network takes it: ``(N,)`` float32, +1 male, -1 female."""
    return np.where(np.asarray(is_male_N, bool), 1, -1).astype(np.float32)


def expected_months(logits_BM: Tensor) -> Tensor:
    """Mean of the predicted distribution, ``(B,)``, in months."""
    months = torch.arange(NUM_BINS, dtype=logits_BM.dtype, device=logits_BM.device)
    return logits_BM.softmax(dim=1) @ months


def load_model(weights: Path, config: TrialConfig, device: str | torch.device = "cpu") -> BoneAgeNet:
    """Load one trained fold, ready to predict.

    Args:
        weights: A safetensors file; nothing in it is executed.
        config: The trial that it belongs to.
        device: Where it shall run.

    Raises:
        ValueError: The file does not fit the configuration.
    """
    model = BoneAgeNet(config)
    try:
        model.load_state_dict(load_file(weights, device=str(device)))
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{weights.name} does not hold the weights of a {config.backbone}: {error}") from None
    return model.to(device).to(memory_format=torch.channels_last).eval()
