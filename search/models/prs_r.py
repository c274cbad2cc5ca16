"""PRS-R: part relation and selection, our reconstruction for regression after PRSNet. It is not the authors' network.

Sources: Ji et al., "PRSNet: part relation and selection network for bone age assessment", MICCAI 2019, whose text gives
the idea without its sizes; the choice and the ranking of parts follow Yang et al., "Learning to navigate for
fine-grained classification" (NTS-Net), ECCV 2018; the relation is a non-local block, Wang et al., CVPR 2018.

The last two maps of any timm network are joined to one. Convolutions of three reaches see its context, and an affinity
between all places relates them. From that map come the global feature, the scores of all anchor boxes, and, by
RoIAlign, the features of the K best boxes that hardly overlap. Each part estimates the age by itself; a part whose
error is smaller has to score higher. `random` parts are the control: if they do as well, the selection is worth
nothing.

Unlike in NTS-Net, parts are cut out of the related map rather than of the picture, at about a tenth of the cost; and
boxes take shares of the picture's side, so that they fit any size.
"""

from typing import Any, NamedTuple

import timm
import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from search.models.anchors import PER_CELL, anchor_boxes, choose

CHANNELS = 256
AFFINITY = 64
PART_SIDE = 7
PART_FEATURES = 128
OUT_FEATURES = 512
MARGIN = 1.0
"""By which a better part has to score higher."""


class Parts(NamedTuple):
    """Where it looks and what it finds there; K parts, the best first."""

    boxes_BK4: Tensor
    """x0, y0, x1, y1 as shares of the picture's sides."""
    scores_BK: Tensor
    features_BKF: Tensor
    pooled_BC: Tensor
    """Of the whole map."""


class PartRelationSelection(nn.Module):
    """The network on top of a timm model.

    Args:
        of: Name of a timm model whose last two maps can be had (``forward_intermediates``).
        parts: ``ranked`` or ``random``.
        num_parts: K.
    """

    def __init__(
        self, of: str, pretrained: bool, in_chans: int = 3, parts: str = "ranked", num_parts: int = 4, **options: Any
    ) -> None:
        super().__init__()
        self.trunk = timm.create_model(of, pretrained=pretrained, in_chans=in_chans, num_classes=0, **options)
        if not hasattr(self.trunk, "forward_intermediates") or len(getattr(self.trunk, "feature_info", ())) < 2:
            raise ValueError(f"prs_r needs a network with two maps to relate, and {of!r} shows none. Name a CNN.")
        fine, coarse = (self.trunk.feature_info[i]["num_chs"] for i in (-2, -1))
        self.pretrained_cfg = self.trunk.pretrained_cfg
        self.num_classes, self.num_parts, self.is_random = 0, num_parts, parts == "random"
        self.num_features = CHANNELS
        self.head_hidden_size = OUT_FEATURES
        self.from_fine, self.from_coarse = nn.Conv2d(fine, CHANNELS, 1), nn.Conv2d(coarse, CHANNELS, 1)
        self.reach = nn.ModuleList(nn.Conv2d(CHANNELS, 128, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.context = nn.Sequential(nn.Conv2d(3 * 128, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), nn.ReLU())
        self.query, self.key = nn.Conv2d(CHANNELS, AFFINITY, 1), nn.Conv2d(CHANNELS, AFFINITY, 1)
        self.value = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.gamma = nn.Parameter(torch.zeros(()))
        self.down = nn.ModuleList(
            nn.Conv2d(n, 128, 3, stride=s, padding=1) for n, s in ((CHANNELS, 1), (128, 2), (128, 2))
        )
        self.score = nn.ModuleList(nn.Conv2d(128, PER_CELL, 1) for _ in range(3))
        self.part = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * PART_SIDE**2, PART_FEATURES), nn.ReLU())
        self.part_age = nn.Linear(PART_FEATURES + 1, 1)
        self.global_age = nn.Linear(CHANNELS + 1, 1)
        self.fuse = nn.Sequential(nn.Linear(CHANNELS + num_parts * PART_FEATURES, OUT_FEATURES), nn.ReLU())

    def forward_features(self, x: Tensor) -> Tensor:
        """The related map, ``(B, 256, h, w)`` at the trunk's last resolution but one."""
        fine, coarse = self.trunk.forward_intermediates(x, indices=2, intermediates_only=True)
        joined = self.from_fine(fine) + functional.interpolate(self.from_coarse(coarse), size=fine.shape[2:])
        related = self.context(torch.cat([reach(joined).relu() for reach in self.reach], dim=1))
        query, key, value = (layer(related).flatten(2) for layer in (self.query, self.key, self.value))
        affinity = (query.transpose(1, 2) @ key / AFFINITY**0.5).softmax(dim=2)
        return related + self.gamma * (value @ affinity.transpose(1, 2)).view_as(related)

    def find(self, maps: Tensor) -> Parts:
        """The parts of what `forward_features` gives, in float32."""
        maps = maps.float()
        levels, x = [], maps.detach()  # the ranking shall not shape the map, as in NTS-Net
        for down in self.down:
            levels.append(x := down(x).relu())
        scores_BA = torch.cat(
            [score(x).permute(0, 2, 3, 1).flatten(1) for score, x in zip(self.score, levels, strict=True)], dim=1
        )
        boxes_A4 = anchor_boxes([(x.shape[2], x.shape[3]) for x in levels], scores_BA)
        chosen_BK = choose(self._draw(scores_BA) if self.is_random else scores_BA, boxes_A4, self.num_parts)
        boxes_BK4 = boxes_A4[chosen_BK]
        height, width = maps.shape[2:]
        corners = boxes_BK4 * boxes_BK4.new_tensor([width, height, width, height])
        cut = roi_align(maps, list(corners), PART_SIDE, sampling_ratio=2, aligned=True)
        features_BKF = self.part(cut).view(len(maps), self.num_parts, PART_FEATURES)
        scores_BK = scores_BA.gather(1, chosen_BK)
        if self.is_random:  # else a trained score would still tell good parts from bad ones
            scores_BK = torch.zeros_like(scores_BK)
        return Parts(boxes_BK4, scores_BK, features_BKF, maps.mean(dim=(2, 3)))

    def _draw(self, scores_BA: Tensor) -> Tensor:
        """Scores by chance: new ones for each training picture, the same for all others."""
        if self.training:
            return torch.rand_like(scores_BA)
        fixed = torch.rand(scores_BA.shape[1], generator=torch.Generator().manual_seed(0))
        return fixed.to(scores_BA).expand_as(scores_BA)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Global feature and weighted parts, fused to ``(B, 512)``."""
        with torch.autocast(x.device.type, enabled=False):
            return self._fused(self.find(x))

    def _fused(self, parts: Parts) -> Tensor:
        weighted = parts.features_BKF * parts.scores_BK.softmax(dim=1).unsqueeze(2)
        return self.fuse(torch.cat([parts.pooled_BC, weighted.flatten(1)], dim=1))

    def features_and_loss(self, maps: Tensor, sex_B: Tensor, z_B: Tensor, sd_years: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward_head` gives, and what the parts learn by.

        The loss is the sum, equally weighted as in NTS-Net, of the errors of the global and of the parts' estimates in
        years; of the ranking: each pair whose order by score is not that of the errors costs what is missing to the
        margin; and of the confidence, a cross entropy between score and exp(-error).

        Args:
            maps: Of `forward_features`.
            sex_B: ``(B,)`` float codes of the sex.
            z_B: ``(B,)`` standardised reference bone age.
            sd_years: Standard deviation of the training labels, in years.
        """
        with torch.autocast(maps.device.type, enabled=False):
            parts = self.find(maps)
            sex_BK1 = sex_B[:, None, None].expand(-1, self.num_parts, 1)
            part_BK = self.part_age(torch.cat([parts.features_BKF, sex_BK1], dim=2)).squeeze(2)
            whole_B = self.global_age(torch.cat([parts.pooled_BC, sex_B[:, None]], dim=1)).squeeze(1)
            error_BK = (part_BK - z_B[:, None]).abs() * sd_years
            loss = error_BK.mean() + (whole_B - z_B).abs().mean() * sd_years
            if not self.is_random:
                error_BK, scores = error_BK.detach(), parts.scores_BK
                is_better = error_BK[:, :, None] < error_BK[:, None, :]
                lacking = (MARGIN - (scores[:, :, None] - scores[:, None, :])).relu()
                confidence = functional.binary_cross_entropy_with_logits(scores, (-error_BK).exp())
                loss = loss + (is_better * lacking).mean() + confidence
            return self._fused(parts), loss

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 512)`` of pictures ``(B, in_chans, H, W)``."""
        return self.forward_head(self.forward_features(x))


@register_model
def prs_r(pretrained: bool = False, of: str = "slim_resnet18", **options: Any) -> PartRelationSelection:
    """On a narrow residual network, 7.0 million weights; ``prs_r:NAME`` puts it on another one."""
    # the trunk has settings of published weights of its own, and timm passes those of this name
    options = {name: value for name, value in options.items() if not name.startswith(("pretrained", "num_classes"))}
    return PartRelationSelection(of, pretrained, **options)
