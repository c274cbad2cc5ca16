"""Heads: from features to a distribution over months, and what each learns beside the common loss.

Every head gives logits over the same 240 monthly bins, so that folds, ensembles and the service need not know which
one it was. Shape letters: B batch, F features, M monthly bins, Q quantiles, T thresholds.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from search.losses import MONTHS_PER_YEAR, distribution_terms, point_terms
from search.months import NUM_BINS, expected_months, grid
from search.space import TrialConfig

START_SCALE = 0.1
"""The last layer starts this much smaller than usual: an untrained network answers with the training mean."""


class LabelScale(NamedTuple):
    """Mean and standard deviation of the training cases' bone age, in months: scalar tensors."""

    mean: Tensor
    sd: Tensor


class Head(nn.Linear):
    """A linear layer whose outputs describe a distribution over months."""

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__(num_features, num_outputs)
        with torch.no_grad():
            self.weight.mul_(START_SCALE)
            self.bias.zero_()

    def logits(self, out: Tensor, scale: LabelScale) -> Tensor:
        """``(B, 240)`` log probabilities over months, up to a constant, of this layer's own outputs."""
        raise NotImplementedError

    def loss(self, out: Tensor, months_B: Tensor, scale: LabelScale, config: TrialConfig) -> Tensor:
        """Weighted loss of a batch, a scalar, of this layer's own outputs."""
        logits_BM = self.logits(out, scale)
        return distribution_terms(logits_BM, months_B, config) + point_terms(
            expected_months(logits_BM), months_B, scale.sd, config
        )


class Bins(Head):
    """A free distribution over monthly bins; it starts as the normal distribution of the training labels."""

    def __init__(self, num_features: int, scale: LabelScale) -> None:
        super().__init__(num_features, NUM_BINS)
        with torch.no_grad():
            self.bias.copy_(-0.5 * ((grid(scale.mean) - scale.mean) / scale.sd) ** 2)

    def logits(self, out: Tensor, scale: LabelScale) -> Tensor:
        """The outputs themselves."""
        return out


class Normal(Head):
    """A mean and a width for each case, discretised to the bins."""

    def __init__(self, num_features: int, scale: LabelScale) -> None:
        super().__init__(num_features, 2)

    def logits(self, out: Tensor, scale: LabelScale) -> Tensor:
        """Log density of the normal distribution at each month."""
        mean = scale.mean + scale.sd * out[:, :1]
        width = 4.0 + functional.softplus(out[:, 1:] + 2.0) * 8.0  # months; 4 keeps a bin from taking it all
        return -0.5 * ((grid(out) - mean) / width) ** 2


class Laplace(Head):
    """Point regression on standardised months, as MMANet and Iglovikov do; one Laplace width for all cases.

    The width learns by the likelihood of the errors with the location detached, so that it describes the regression
    without taking part in it. Near either end of the grid the distribution narrows: it stays symmetrical, and its mean
    stays the location.
    """

    GAIN = 10.0
    """Of the width's logarithm: at Adam's steps it would else come too late in a short training."""
    NARROWEST_MONTHS = 0.7

    def __init__(self, num_features: int, scale: LabelScale) -> None:
        super().__init__(num_features, 1)
        self.log_width = nn.Parameter(torch.tensor(math.log(0.5) / self.GAIN))

    def _width(self) -> Tensor:
        """Mean absolute error that is expected, in standard deviations of the labels."""
        return (self.GAIN * self.log_width).exp()

    def logits(self, out: Tensor, scale: LabelScale) -> Tensor:
        """Log density of the Laplace distribution at each month."""
        location = (scale.mean + scale.sd * out).clamp(0, NUM_BINS - 1)
        to_end = torch.minimum(location, NUM_BINS - 1 - location)
        width = torch.minimum(scale.sd * self._width(), to_end / 6).clamp_min(self.NARROWEST_MONTHS)
        return -(grid(out) - location).abs() / width

    def loss(self, out: Tensor, months_B: Tensor, scale: LabelScale, config: TrialConfig) -> Tensor:
        """The point terms of the location, which has a gradient beyond the grid too, and the width's likelihood."""
        location_B = (scale.mean + scale.sd * out).squeeze(1)
        error_B = ((location_B.detach() - months_B) / scale.sd).abs()
        likelihood = (error_B / self._width()).mean() + self._width().log()
        return point_terms(location_B, months_B, scale.sd, config) + likelihood


class Ordinal(Head):
    """One score against ordered thresholds: P(older than t) is the logistic function of score minus threshold.

    After CORAL (Cao, Mirjalili, Raschka, "Rank consistent ordinal regression", 2020): one weight vector for all
    thresholds, loss by a binary cross entropy each. Unlike there the thresholds are ordered by construction, as sums of
    positive gaps, so that the differences between neighbours are a distribution during training too. There is one
    threshold a month; the gaps are learnt a quarter of a year at a time.
    """

    QUARTER = 3
    WIDTH_MONTHS = 10.0
    """Of the logistic distribution at the start."""

    def __init__(self, num_features: int, scale: LabelScale) -> None:
        super().__init__(num_features, 1)
        start = math.log(math.expm1(1 / self.WIDTH_MONTHS))  # softplus gives 1 / WIDTH_MONTHS
        self.gaps = nn.Parameter(torch.full((NUM_BINS // self.QUARTER,), start))

    def _margins(self, out: Tensor, scale: LabelScale) -> tuple[Tensor, Tensor]:
        """``(B, T)`` score minus threshold at 0.5, 1.5, ..., 238.5 months, and the ``(T - 1,)`` gaps between them."""
        gaps = functional.softplus(self.gaps).repeat_interleave(self.QUARTER)[: NUM_BINS - 2]
        thresholds = functional.pad(gaps.cumsum(0), (1, 0)) + (0.5 - scale.mean) / self.WIDTH_MONTHS
        return out * scale.sd / self.WIDTH_MONTHS - thresholds, gaps

    def logits(self, out: Tensor, scale: LabelScale) -> Tensor:
        """Log of the differences between neighbouring P(older than t), exact where both are near 0 or 1."""
        margins_BT, gaps = self._margins(out, scale)
        older, younger = functional.logsigmoid(margins_BT), functional.logsigmoid(-margins_BT)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))
        between = older[:, :-1] + younger[:, 1:] + torch.log(-torch.expm1(-gaps))
        return torch.cat([younger[:, :1], between, older[:, -1:]], dim=1)

    def loss(self, out: Tensor, months_B: Tensor, scale: LabelScale, config: TrialConfig) -> Tensor:
        """The common terms and the cross entropies, whose sum over months is divided by 12: it is in years."""
        total = super().loss(out, months_B, scale, config)
        if config.weight_ordinal:
            margins_BT, _ = self._margins(out, scale)
            older_BT = (months_B.unsqueeze(1) > grid(out)[:-1] + 0.5).to(out.dtype)
            entropy_BT = functional.binary_cross_entropy_with_logits(margins_BT, older_BT, reduction="none")
            total = total + config.weight_ordinal * entropy_BT.sum(dim=1).mean() / MONTHS_PER_YEAR
        return total


class Quantiles(Head):
    """Eleven quantiles in ascending order, joined to a piecewise linear distribution function.

    The median is free, its neighbours follow at positive distances. The outermost pieces go on as steeply until they
    meet 0 and 1; what lies beyond the grid counts to its ends. Loss: Koenker and Bassett, "Regression quantiles", 1978.
    """

    LEVELS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
    FLOOR = 1e-8
    """Least probability of a month: logarithms stay finite."""

    def __init__(self, num_features: int, scale: LabelScale) -> None:
        super().__init__(num_features, len(self.LEVELS))
        self.levels = nn.Buffer(torch.tensor(self.LEVELS), persistent=False)

    def quantiles(self, out: Tensor, scale: LabelScale) -> Tensor:
        """``(B, Q)`` months, ascending."""
        middle = len(self.LEVELS) // 2
        median = scale.mean + scale.sd * out[:, middle : middle + 1]
        # months; softplus(0) * 6 = 4 between neighbours, 42 between the outermost, at the start
        below = functional.softplus(out[:, :middle]).flip(1).cumsum(1).flip(1) * 6.0
        above = functional.softplus(out[:, middle + 1 :]).cumsum(1) * 6.0
        return torch.cat([median - below, median, median + above], dim=1)

    def logits(self, out: Tensor, scale: LabelScale) -> Tensor:
        """Log of what the distribution function gains over each month."""
        q = self.quantiles(out, scale)
        levels = functional.pad(self.levels, (1, 1))
        levels[-1] = 1.0
        low = q[:, :1] - (q[:, 1:2] - q[:, :1]) * levels[1] / (levels[2] - levels[1])
        high = q[:, -1:] + (q[:, -1:] - q[:, -2:-1]) * (1 - levels[-2]) / (levels[-2] - levels[-3])
        knots = torch.cat([low, q, high], dim=1).unsqueeze(1)  # (B, 1, Q + 2)
        edges = (grid(out)[1:] - 0.5).view(1, -1, 1)
        steps = (knots[..., 1:] - knots[..., :-1]).clamp_min(1e-3)
        below = (((edges - knots[..., :-1]) / steps).clamp(0, 1) * levels.diff()).sum(dim=2)
        below = functional.pad(functional.pad(below, (1, 0)), (0, 1), value=1.0)
        return below.diff(dim=1).clamp_min(self.FLOOR).log()

    def loss(self, out: Tensor, months_B: Tensor, scale: LabelScale, config: TrialConfig) -> Tensor:
        """The common terms and the pinball loss, summed over the levels."""
        total = super().loss(out, months_B, scale, config)
        if config.weight_pinball:
            error_BQ = (months_B.unsqueeze(1) - self.quantiles(out, scale)) / MONTHS_PER_YEAR
            pinball_BQ = torch.maximum(self.levels * error_BQ, (self.levels - 1) * error_BQ)
            total = total + config.weight_pinball * pinball_BQ.sum(dim=1).mean()
        return total


HEADS: dict[str, type[Bins | Normal | Laplace | Ordinal | Quantiles]] = {
    "bins": Bins,
    "normal": Normal,
    "laplace": Laplace,
    "ordinal": Ordinal,
    "quantiles": Quantiles,
}
"""By the name that a trial gives them."""
