"""The loss terms that heads share: weighted sums over the predicted distribution, or over its mean.

Shape letters: B batch, M monthly bins. Distances are in years, so that the weights are of order one.
"""

import torch
from torch import Tensor
from torch.nn import functional

from search.months import NUM_BINS, expected_months, grid
from search.space import TrialConfig

MONTHS_PER_YEAR = 12.0


def distribution_terms(logits_BM: Tensor, months_B: Tensor, config: TrialConfig) -> Tensor:
    """Weighted terms that look at the whole distribution.

    Cross entropy to a normal label distribution around the reference (Gao et al., "Deep label distribution learning",
    2017); cross entropy to the reference's own month and the expected squared distance to the reference, which
    together are Chen's L2CE.

    Args:
        logits_BM: ``(B, 240)`` float32.
        months_B: ``(B,)`` float32 reference bone age, in months.
        config: The weights and the width of the label distribution.

    Returns:
        Scalar, mean over the batch.
    """
    log_p_BM = logits_BM.log_softmax(dim=1)
    offset_BM = grid(logits_BM) - months_B.unsqueeze(1)
    total = logits_BM.new_zeros(())
    if config.weight_ldl:
        target_BM = (-0.5 * (offset_BM / config.label_sigma_months) ** 2).softmax(dim=1)
        total = total - config.weight_ldl * (target_BM * log_p_BM).sum(dim=1).mean()
    if config.weight_ce:
        month_B = months_B.round().long().clamp(0, NUM_BINS - 1)
        total = total + config.weight_ce * functional.nll_loss(log_p_BM, month_B)
    if config.weight_spread:
        total = total + config.weight_spread * (log_p_BM.exp() * (offset_BM / MONTHS_PER_YEAR) ** 2).sum(dim=1).mean()
    return total


def cross_entropy(logits_BM: Tensor, teacher_BM: Tensor) -> Tensor:
    """Scalar cross entropy to the distributions of a teacher, less their own entropy: 0 where both say the same.

    Source: Hinton et al., "Distilling the knowledge in a neural network", 2015, at a temperature of 1.
    """
    own = torch.special.entr(teacher_BM).sum(dim=1)
    return (-(teacher_BM * logits_BM.log_softmax(dim=1)).sum(dim=1) - own).mean()


def point_terms(estimate_B: Tensor, months_B: Tensor, label_sd: Tensor, config: TrialConfig) -> Tensor:
    """Weighted terms that look at the point estimate: smooth L1 in years, L1 in standard deviations of the labels.

    Args:
        estimate_B: ``(B,)`` float32 estimated bone age, in months.
        months_B: ``(B,)`` float32 reference bone age, in months.
        label_sd: Standard deviation of the training cases' bone age, in months.
        config: The weights.

    Returns:
        Scalar, mean over the batch.
    """
    total = estimate_B.new_zeros(())
    if config.weight_l1:
        distance_B = (estimate_B - months_B) / MONTHS_PER_YEAR
        # beta 0.25 years: the quadratic part stays within the label's own noise
        total = total + config.weight_l1 * functional.smooth_l1_loss(
            distance_B, torch.zeros_like(distance_B), beta=0.25
        )
    if config.weight_z:
        total = total + config.weight_z * ((estimate_B - months_B) / label_sd).abs().mean()
    return total


def loss(logits_BM: Tensor, months_B: Tensor, config: TrialConfig, label_sd: float = 41.0) -> Tensor:
    """Both kinds of terms of one predicted distribution, a scalar; what single heads add is not in it.

    Args:
        logits_BM: ``(B, 240)`` float32.
        months_B: ``(B,)`` float32 reference bone age, in months.
        config: The weights and the width of the label distribution.
        label_sd: Standard deviation of the training cases' bone age, in months.
    """
    estimate_B = expected_months(logits_BM)
    return distribution_terms(logits_BM, months_B, config) + point_terms(
        estimate_B, months_B, torch.as_tensor(label_sd, dtype=estimate_B.dtype, device=estimate_B.device), config
    )
