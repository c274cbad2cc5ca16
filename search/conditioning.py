"""How the sex joins the image features: four ways, all of which take an unknown sex.

The sex is a float code: +1 male, -1 female, 0 unknown. Shape letters: B batch, F image features, N cases.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn


def sex_codes(is_male_N: Any) -> np.ndarray:
    """Float codes of the sex.

    Args:
        is_male_N: ``(N,)`` bool, or with None, NaN or pandas' NA where the sex is unknown.

    Returns:
        ``(N,)`` float32: +1 male, -1 female, 0 unknown.

    Raises:
        ValueError: Something else than true, false or missing.
    """
    known_N = np.asarray(is_male_N, object)
    missing_N = np.asarray(pd.isna(known_N), bool)
    if wrong := [value for value in known_N[~missing_N] if value not in (True, False)]:
        raise ValueError(f"A sex is male (true), female (false) or missing, got {wrong[0]!r}.")
    codes_N = np.zeros(len(known_N), np.float32)
    codes_N[~missing_N] = np.where(known_N[~missing_N].astype(bool), 1.0, -1.0)
    return codes_N


class Concatenated(nn.Sequential):
    """A small layer reads the code and joins the image features, as in most bone-age networks since 16Bit's of 2017."""

    def __init__(self, num_features: int, sex_features: int) -> None:
        super().__init__(nn.Linear(1, sex_features), nn.SiLU())
        self.num_features = num_features + sex_features

    def forward(self, features_BF: Tensor, sex_B: Tensor) -> Tensor:  # type: ignore[override]
        """``(B, num_features)`` of image features and codes."""
        return torch.cat([features_BF, super().forward(sex_B.unsqueeze(1))], dim=1)


class Embedded(nn.Module):
    """A learnt vector for female, unknown and male each joins the image features."""

    def __init__(self, num_features: int, sex_features: int) -> None:
        super().__init__()
        self.table = nn.Embedding(3, sex_features)
        self.num_features = num_features + sex_features

    def forward(self, features_BF: Tensor, sex_B: Tensor) -> Tensor:
        """``(B, num_features)`` of image features and codes."""
        return torch.cat([features_BF, self.table(sex_B.round().long() + 1)], dim=1)


class Modulated(nn.Module):
    """FiLM: the sex scales and shifts each image feature; it starts as no change.

    Source: Perez et al., "FiLM: visual reasoning with a general conditioning layer", AAAI 2018.
    """

    def __init__(self, num_features: int, sex_features: int) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(1, sex_features), nn.SiLU())
        self.change = nn.Linear(sex_features, 2 * num_features)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)
        self.num_features = num_features

    def forward(self, features_BF: Tensor, sex_B: Tensor) -> Tensor:
        """``(B, num_features)`` of image features and codes."""
        scale_BF, shift_BF = self.change(self.read(sex_B.unsqueeze(1))).chunk(2, dim=1)
        return features_BF * (1 + scale_BF) + shift_BF


class Gated(nn.Module):
    """Two heads, one a sex; an unknown sex gets the mean of both heads' outputs.

    One linear head over ``[m f, (1 - m) f, m, 1 - m]`` is the same as two heads over ``f``, weighted by m and 1 - m,
    where m is 1 for male, 0 for female and a half for unknown. It has no layer of its own.
    """

    def __init__(self, num_features: int, sex_features: int) -> None:
        super().__init__()
        self.num_features = 2 * num_features + 2

    def forward(self, features_BF: Tensor, sex_B: Tensor) -> Tensor:
        """``(B, num_features)`` of image features and codes."""
        male_B1 = (1 + sex_B.unsqueeze(1)) / 2
        return torch.cat([features_BF * male_B1, features_BF * (1 - male_B1), male_B1, 1 - male_B1], dim=1)


CONDITIONINGS: dict[str, Callable[[int, int], Concatenated | Embedded | Modulated | Gated]] = {
    "concat": Concatenated,
    "embedding": Embedded,
    "film": Modulated,
    "gated": Gated,
}
"""By the name that a trial gives them."""
