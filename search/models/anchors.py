"""Boxes that a part may fill, and the choice of a few that hardly overlap.

Shape letters: B batch, A anchors, K chosen parts. A box is x0, y0, x1, y1 as shares of the picture's sides.
"""

import torch
from torch import Tensor

SIDES = (0.15, 0.25, 0.4)
"""Share of the picture's side that a part takes on the three levels: a joint, a ray's end, the wrist."""
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
ASPECTS = (2 / 3, 1.0, 3 / 2)
PER_CELL = len(SCALES) * len(ASPECTS)
MAX_IOU = 0.25
"""Parts that overlap more show the same place."""


def anchor_boxes(sizes: list[tuple[int, int]], like: Tensor) -> Tensor:
    """All boxes, ``(A, 4)``, cell by cell and in a cell scale by scale.

    Args:
        sizes: Rows and columns of the cells on each level.
        like: A tensor of the type and device wanted.
    """
    levels = []
    for side, (rows, columns) in zip(SIDES, sizes, strict=True):
        y = (torch.arange(rows, dtype=like.dtype, device=like.device) + 0.5) / rows
        x = (torch.arange(columns, dtype=like.dtype, device=like.device) + 0.5) / columns
        centre = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 1, 2)
        half = side / 2 * like.new_tensor([(s / r**0.5, s * r**0.5) for s in SCALES for r in ASPECTS])
        levels.append(torch.cat([centre - half, centre + half], dim=-1).reshape(-1, 4))
    return torch.cat(levels).clamp(0, 1)


def choose(scores_BA: Tensor, boxes_A4: Tensor, count: int) -> Tensor:
    """Non-maximum suppression: the best box, then the best of those that hardly overlap it, and so on.

    Where a map is so small that every box overlaps a chosen one, the best of the rest follow.

    Returns:
        ``(B, K)`` numbers of the chosen boxes, the best first.
    """
    area_A = (boxes_A4[:, 2:] - boxes_A4[:, :2]).prod(dim=1)
    # a softmax keeps their order within 0..1: free boxes lie in 2..3, suppressed ones in 0..1, chosen ones at -1
    left_BA = scores_BA.detach().float().softmax(dim=1) + 2.0
    chosen: list[Tensor] = []
    for _ in range(count):
        best_B = left_BA.argmax(dim=1)
        chosen.append(best_B)
        box_B4 = boxes_A4[best_B].unsqueeze(1)
        low = torch.maximum(box_B4[..., :2], boxes_A4[:, :2])
        high = torch.minimum(box_B4[..., 2:], boxes_A4[:, 2:])
        common_BA = (high - low).clamp_min(0).prod(dim=-1)
        union_BA = area_A[best_B].unsqueeze(1) + area_A - common_BA
        covered_BA = common_BA > MAX_IOU * union_BA
        left_BA = torch.where(covered_BA & (left_BA > 1), left_BA - 2, left_BA)
        left_BA = left_BA.scatter(1, best_B.unsqueeze(1), -1.0)
    return torch.stack(chosen, dim=1)
