"""Maps of a network: months that each place adds, exact where they say so, and the same twice."""

import numpy as np
import pytest
import torch

from ensemble import maps
from ensemble.maps import METHODS, Months
from search.model import BoneAgeNet, expected_months
from search.space import TrialConfig
from search.spaces import _GPU_BACKBONES

SIDE = 64
IMAGES = torch.randint(0, 256, (2, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SEX = torch.tensor([1.0, -1.0])


def network(**settings) -> BoneAgeNet:
    torch.manual_seed(0)
    net = BoneAgeNet(
        TrialConfig(**{"backbone": "test_resnet", "head": "bins", "weight_l1": 1.0, "weight_ldl": 0.0, **settings})
    ).eval()
    with torch.no_grad():
        net.head.weight.mul_(100)  # an untrained head hardly looks at the picture
    return net


@pytest.mark.parametrize("head", ["bins", "normal", "ordinal", "laplace", "quantiles"])
def test_relevance_is_the_answer_less_the_answer_without_the_place(head):
    net = network(head=head, sex="film")
    found = maps.relevance(net, IMAGES, SEX)
    with torch.inference_mode():
        features = net.maps(IMAGES)
        whole = expected_months(net.from_maps(features, SEX))
        features[:, :, 1, 0] = 0
        without = expected_months(net.from_maps(features, SEX))
    cells = found.shape[1] * found.shape[2]
    torch.testing.assert_close(found[:, 1, 0], (whole - without) * cells / 64, atol=1e-3, rtol=1e-3)


def test_integrated_gradients_add_up_to_what_the_detail_adds():
    net = network()
    found = maps.integrated_gradients(net, IMAGES[:1], SEX[:1])
    with torch.inference_mode():
        model = Months(net)
        added = model(IMAGES[:1].float(), SEX[:1]) - model(maps.blurred(IMAGES[:1]), SEX[:1])
    assert added.abs() > 1
    torch.testing.assert_close(found.sum(dim=(1, 2)) * 64 / SIDE**2, added, atol=0, rtol=0.1)


def test_where_a_picture_has_no_detail_nothing_is_integrated():
    picture = IMAGES[:1].clone()
    picture[:, :, : SIDE // 2] = 90
    found = maps.integrated_gradients(network(), picture, SEX[:1])[0]
    far = SIDE // 4  # blurring reaches over the edge
    assert found[:, :far].abs().max() < 0.01 * found.abs().max()


def test_cam_is_gradient_times_activation():
    net = network()
    features = net.maps(IMAGES).detach().requires_grad_()
    expected_months(net.from_maps(features, SEX)).sum().backward()
    cells = features.shape[2] * features.shape[3]
    expected = (features * features.grad).sum(dim=1).detach() * cells / 64
    torch.testing.assert_close(maps.cam(net, IMAGES, SEX), expected, atol=1e-4, rtol=1e-3)


def test_occlusion_is_what_blurring_a_place_takes_away():
    net = network()
    found = maps.occlusion(net, IMAGES[:1], SEX[:1])
    patch = SIDE // 8
    blurred = IMAGES[:1].float().clone()
    blurred[:, :patch, :patch] = maps.blurred(IMAGES[:1])[:, :patch, :patch]
    with torch.inference_mode():
        model = Months(net)
        change = model(IMAGES[:1].float(), SEX[:1]) - model(blurred, SEX[:1])
    corner = found[0, : patch // 2, : patch // 2]  # no other patch covers it
    torch.testing.assert_close(corner, change.expand(corner.shape), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_map_is_finite_and_the_same_twice(method):
    net = network()
    one, other = (METHODS[method](net, IMAGES, SEX) for _ in range(2))
    assert torch.isfinite(one).all()
    assert one.abs().max() > 0
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "backbone",
    [
        "test_vit",
        "test_convnext",
        "slim_resnet10",
        "slim_attention_vgg16",
        "slim_residual_vgg16",
        "memon_cuomo",
        "chen_googlenet",
        "chen_vgg16",
        "prs_r:test_resnet",
    ],
)
def test_every_kind_of_network_can_be_asked(backbone):
    net = network(backbone=backbone, image_size=160 if backbone == "test_vit" else 0)
    for method in ("integrated_gradients", "relevance", "cam", "grad_cam"):
        found = METHODS[method](net, IMAGES[:1], SEX[:1])
        assert found.ndim == 3
        assert torch.isfinite(found).all()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", sorted({*_GPU_BACKBONES}))
def test_every_network_of_the_gpu_space_can_be_asked(backbone):
    net = network(backbone=backbone, image_size=96)
    for method in ("relevance", "cam", "grad_cam"):
        found = METHODS[method](net, IMAGES[:1], SEX[:1])
        assert found.ndim == 3
        assert torch.isfinite(found).all()


def test_attention_is_a_share_of_the_places():
    look = maps.attention(network(backbone="slim_attention_vgg16"), IMAGES)
    torch.testing.assert_close(look.sum(dim=(1, 2)), torch.ones(2))
    assert maps.attention(network(), IMAGES) is None


def test_selected_parts_lie_in_the_picture():
    boxes, weights = maps.parts(network(backbone="prs_r:test_resnet"), IMAGES)
    assert boxes.shape == (2, 4, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert maps.parts(network(), IMAGES) is None


def test_a_map_keeps_its_level_at_another_size():
    found = maps.resized(np.full((4, 4), 2.5), 96)
    assert found.shape == (96, 96)
    np.testing.assert_allclose(found, 2.5)
