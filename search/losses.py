"""The loss: a weighted sum of terms on the predicted distribution over months.

Shape letters: B batch, M monthly bins. Distances are in years, so that the weights are of order one.
"""

import torch
from torch import Tensor
from torch.nn import functional

from search.model import NUM_BINS
from search.space import TrialConfig

MONTHS_PER_YEAR = 12.0


def loss(logits_BM: Tensor, months_B: Tensor, config: TrialConfig) -> Tensor:
    """Weighted loss of a batch.

    The terms: smooth L1 between the distribution's mean and the reference; cross entropy to a normal label
    distribution around the reference (Gao et al., "Deep label distribution learning", 2017); the expected squared
    distance to the reference, which Chen's L2CE adds to the cross entropy.

    Args:
        logits_BM: ``(B, 240)`` float32.
        months_B: ``(B,)`` float32 reference bone age, in months.
        config: The three weights and the width of the label distribution.

    Returns:
        Scalar, mean over the batch.
    """
    grid_M = torch.arange(NUM_BINS, dtype=logits_BM.dtype, device=logits_BM.device)
    log_p_BM = logits_BM.log_softmax(dim=1)
    p_BM = log_p_BM.exp()
    total = logits_BM.new_zeros(())
    if config.weight_l1:
        distance_B = (p_BM @ grid_M - months_B) / MONTHS_PER_YEAR
        # beta 0.25 years: the quadratic part stays within the label's own noise
        total = total + config.weight_l1 * functional.smooth_l1_loss(
            distance_B, torch.zeros_like(distance_B), beta=0.25
        )
    offset_BM = grid_M - months_B.unsqueeze(1)
    if config.weight_ldl:
        target_BM = (-0.5 * (offset_BM / config.label_sigma_months) ** 2).softmax(dim=1)
        total = total - config.weight_ldl * (target_BM * log_p_BM).sum(dim=1).mean()
    if config.weight_spread:
        total = total + config.weight_spread * (p_BM * (offset_BM / MONTHS_PER_YEAR) ** 2).sum(dim=1).mean()
    return total
