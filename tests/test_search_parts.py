"""Part relation and selection: which parts it takes, what they learn by, and the control by chance."""

import pytest
import torch

from search.model import BoneAgeNet
from search.models.anchors import MAX_IOU, anchor_boxes, choose
from search.space import TrialConfig


def network(parts: str = "ranked") -> BoneAgeNet:
    torch.manual_seed(0)
    return BoneAgeNet(TrialConfig(backbone="prs_r:test_resnet", parts=parts))


def overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    common = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp_min(0).prod()
    return float(common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common))


IMAGES = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_boxes_lie_within_the_picture_and_have_their_share() -> None:
    boxes = anchor_boxes([(12, 12), (6, 6), (3, 3)], torch.zeros(()))
    assert boxes.shape == ((144 + 36 + 9) * 9, 4)
    assert (boxes >= 0).all()
    assert (boxes <= 1).all()
    middle = boxes[(6 * 12 + 6) * 9 + 1]  # square and of scale 1, on the first level
    assert (middle[2:] - middle[:2]).tolist() == pytest.approx([0.15, 0.15], abs=1e-6)


def test_the_best_boxes_that_hardly_overlap_are_chosen() -> None:
    boxes = anchor_boxes([(12, 12), (6, 6), (3, 3)], torch.zeros(()))
    scores = torch.randn(5, len(boxes), generator=torch.Generator().manual_seed(0))
    chosen = choose(scores, boxes, 4)
    assert torch.equal(chosen[:, 0], scores.argmax(dim=1))
    for row, picked in zip(scores, chosen, strict=True):
        assert row[picked].tolist() == sorted(row[picked].tolist(), reverse=True)
        assert all(overlap(boxes[a], boxes[b]) <= MAX_IOU for i, a in enumerate(picked) for b in picked[:i])


def test_a_map_of_one_cell_still_gives_as_many_parts() -> None:
    boxes = anchor_boxes([(1, 1)] * 3, torch.zeros(()))
    chosen = choose(torch.randn(2, len(boxes)), boxes, 4)
    assert all(len(set(row.tolist())) == 4 for row in chosen)


def test_random_parts_differ_from_ranked_ones_and_do_not_follow_the_picture() -> None:
    with torch.inference_mode():
        ranked, random = (network(parts).eval() for parts in ("ranked", "random"))
        random.load_state_dict(ranked.state_dict())
        by_score, by_chance = (model.backbone.find(model.maps(IMAGES)).boxes_BK4 for model in (ranked, random))
        assert not torch.equal(by_score, by_chance)
        assert torch.equal(by_chance[0], by_chance[1])
        sex = torch.ones(3)
        assert not torch.equal(ranked(IMAGES, sex), random(IMAGES, sex))


def test_random_parts_learn_no_ranking() -> None:
    model = network("random").train()
    model.training_loss(IMAGES, torch.ones(3), torch.full((3,), 90.0), TrialConfig(backbone="prs_r:test_resnet"))
    _, loss = model.backbone.features_and_loss(model.maps(IMAGES), torch.ones(3), torch.zeros(3), torch.tensor(3.4))
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.backbone.score.parameters())


def test_the_scores_learn_by_their_order_without_shaping_the_map() -> None:
    model = network().train()
    maps = model.maps(IMAGES).detach().requires_grad_()
    parts = model.backbone.find(maps)
    parts.scores_BK.sum().backward()
    assert maps.grad is None
    assert any(p.grad is not None and p.grad.any() for p in model.backbone.score.parameters())


def test_without_their_weight_the_parts_learn_by_the_answer_alone() -> None:
    config = TrialConfig(backbone="prs_r:test_resnet", weight_parts=0.0)
    model = network().train()
    model.training_loss(IMAGES, torch.ones(3), torch.full((3,), 90.0), config).backward()
    assert model.backbone.part_age.weight.grad is None
    assert model.backbone.part[1].weight.grad.any()
