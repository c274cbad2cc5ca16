"""Every network with every head: it learns, decodes to months, and keeps what the maps of its picture say."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from search.heads import HEADS
from search.model import BoneAgeNet, expected_months, load_model, probed
from search.space import HEAD_TERMS, TERMS, TrialConfig
from search.spaces import _GPU_BACKBONES

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them

OWN = [
    "slim_resnet10",
    "slim_resnet18",
    "memon_cuomo",
    "chen_vgg16",
    "chen_googlenet",
    "residual_vgg16",
    "slim_residual_vgg16",
    "attention_vgg16",
    "slim_attention_vgg16",
    "prs_r",
    "prs_r:test_resnet",
]
LARGE = {"chen_vgg16", "residual_vgg16", "attention_vgg16"}
NETWORKS = [*OWN, "test_resnet", "test_vit", "test_convnext"]
WITHOUT_MAP = {
    "coat_tiny": 64,
    "coat_lite_tiny": 64,
    "crossvit_tiny_240": 240,
    "efficientformer_l1": 224,
    "efficientvim_m1": 96,
    "hiera_tiny_224": 64,
    "pit_xs_224": 64,
    "twins_svt_small": 64,
    "volo_d1_224": 224,
}
"""With the size of picture: branches, a class token alone, or tokens in an order of their own."""


def config_of(head: str, **settings: object) -> TrialConfig:
    """A configuration whose every loss term is at work."""
    terms = {name: 0.5 * (name in HEAD_TERMS[head]) for name in TERMS}
    return TrialConfig(**{"backbone": "test_resnet", "head": head, "weight_sex": 0.1, **terms, **settings})  # type: ignore[arg-type]


def pictures(size: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, size, size), dtype=torch.uint8, generator=generator)
    return images, torch.tensor([1.0, -1.0]), torch.tensor([60.0, 170.0])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("network", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in NETWORKS])
def test_every_network_with_every_head_learns_and_decodes_to_months(network: str, head: str) -> None:
    torch.manual_seed(0)
    config = config_of(head, backbone=network)
    model = BoneAgeNet(config).train()
    images, sex, months = pictures()
    learn_one_step(model, config, images, sex, months)
    with torch.inference_mode():
        logits = model.eval()(images, sex)
        again = model.from_maps(model.maps(images), sex)
    assert logits.shape == (2, 240)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, again)
    assert logits.softmax(dim=1).sum(dim=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert ((expected_months(logits) >= 0) & (expected_months(logits) <= 239)).all()


@pytest.mark.parametrize(("network", "size"), WITHOUT_MAP.items())
def test_a_network_that_ends_in_no_map_learns_and_has_one_all_the_same(network: str, size: int) -> None:
    torch.manual_seed(0)
    config = config_of("bins", backbone=network, image_size=size)
    model = BoneAgeNet(config).train()
    images, sex, months = pictures()
    learn_one_step(model, config, images, sex, months)
    with torch.inference_mode():
        maps = model.eval().maps(images)
        assert torch.equal(model(images, sex), model.from_maps(maps, sex))
    assert maps.ndim == 4
    assert maps.shape[2] == maps.shape[3] > 1


@pytest.mark.parametrize(("network", "size"), [("csatv2", 64), ("efficientformer_l1", 64), ("halonet26t", 0)])
def test_a_network_that_takes_no_such_picture_is_refused_by_name(network: str, size: int) -> None:
    model = BoneAgeNet(TrialConfig(backbone=network, image_size=size))
    with pytest.raises(ValueError, match=f"backbone {network} takes no grey picture of 64 x 64"):
        probed(model, 64)


def test_a_probe_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = BoneAgeNet(TrialConfig(backbone="prs_r:test_resnet", parts="random")).train()
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    assert probed(model, 64).training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def learn_one_step(
    model: BoneAgeNet, config: TrialConfig, images: torch.Tensor, sex: torch.Tensor, months: torch.Tensor
) -> None:
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.0)
    loss = model.training_loss(images, sex, months, config)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(value).all() for value in model.parameters())
    for part in ("backbone.", "head."):
        moved = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
        assert any(name.startswith(part) for name in moved)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("network", sorted({*_GPU_BACKBONES} - {*OWN}))
def test_every_network_of_the_gpu_space_with_every_head_learns_and_keeps_its_maps(network: str, head: str) -> None:
    torch.manual_seed(0)
    config = config_of(head, backbone=network)
    model = BoneAgeNet(config).train()
    images, sex, months = pictures(96)
    learn_one_step(model, config, images, sex, months)
    with torch.inference_mode():
        logits = model.eval()(images, sex)
        assert torch.equal(logits, model.from_maps(model.maps(images), sex))


@pytest.mark.parametrize("network", ["slim_attention_vgg16", "prs_r:test_resnet", "test_vit", "chen_googlenet"])
def test_trained_weights_come_back(network: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = config_of("ordinal", backbone=network, sex="film", image_size=64)
    model = BoneAgeNet(config, label_mean=100.0).eval()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "fold_0.safetensors")
    images, sex, _ = pictures()
    with torch.inference_mode():
        loaded = load_model(tmp_path / "fold_0.safetensors", config)(images, sex)
        assert torch.allclose(loaded, model(images, sex), atol=1e-5)


def test_a_default_network_bears_the_names_that_stored_weights_have() -> None:
    names = {n for n in BoneAgeNet(TrialConfig(backbone="test_resnet")).state_dict() if not n.startswith("backbone.")}
    assert names == {
        "sex.0.weight",
        "sex.0.bias",
        "head.weight",
        "head.bias",
        "months_M",
        "label_mean",
        "label_sd",
    }


@pytest.mark.parametrize("network", ["slim_resnet10", "test_vit", "slim_attention_vgg16", "prs_r:test_resnet"])
def test_pictures_are_resized_to_the_size_asked_for(network: str) -> None:
    torch.manual_seed(0)
    model = BoneAgeNet(TrialConfig(backbone=network, image_size=64)).eval()
    images, sex, _ = pictures(size=128)
    smaller = torch.nn.functional.avg_pool2d(images[:, None].float(), 2)[:, 0]
    with torch.inference_mode():
        assert torch.allclose(model(images, sex), model(smaller, sex), atol=1e-5)


@pytest.mark.parametrize("size", [65, 96, 100])
@pytest.mark.parametrize("network", ["slim_attention_vgg16", "slim_residual_vgg16", "memon_cuomo", "prs_r"])
def test_networks_take_any_size(network: str, size: int) -> None:
    with torch.inference_mode():
        images, sex, _ = pictures(size)
        assert torch.isfinite(BoneAgeNet(TrialConfig(backbone=network)).eval()(images, sex)).all()


def test_a_transformer_takes_the_size_of_the_cohort() -> None:
    model = BoneAgeNet(TrialConfig(backbone="test_vit")).eval()
    assert model.maps(pictures(96)[0]).shape[2:] == (6, 6)


def test_a_network_of_one_size_asks_for_it() -> None:
    with pytest.raises(ValueError, match=r"cait_xxs24_224 is made for one size.*Set image_size"):
        BoneAgeNet(TrialConfig(backbone="cait_xxs24_224"))


def test_a_frozen_trunk_leaves_the_rest_to_learn() -> None:
    config = config_of("bins", backbone="slim_attention_vgg16")
    model = BoneAgeNet(config).train()
    model.trunk.requires_grad_(False)
    model.training_loss(*pictures(), config).backward()
    assert all(p.grad is not None for p in model.backbone.score.parameters())


def test_attention_weighs_each_layer_by_shares() -> None:
    model = BoneAgeNet(TrialConfig(backbone="slim_attention_vgg16")).eval()
    with torch.inference_mode():
        shares = model.backbone.attention(model.maps(pictures()[0]))
    assert shares.shape == (2, 3, 8, 8)
    assert shares.sum(dim=(2, 3)).flatten().tolist() == pytest.approx([1.0] * 6, abs=1e-5)


def test_repeating_a_coarse_layer_does_not_change_its_attention() -> None:
    torch.manual_seed(0)
    backbone = BoneAgeNet(TrialConfig(backbone="slim_attention_vgg16")).eval().backbone
    with torch.inference_mode():
        maps = backbone.forward_features(torch.randn(1, 1, 64, 64))
        twice = maps.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        # the global feature is read from a grid of a quarter of the side: the same one for both
        g = maps.chunk(3, dim=1)[2]
        assert torch.equal(g[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3), g)
        attention, spread = backbone.attention(maps), backbone.attention(twice)
    assert attention.shape[2:] == (8, 8)
    assert spread.shape[2:] == (16, 16)


def test_the_shortcut_of_the_residual_vgg_adds_the_first_convolution() -> None:
    torch.manual_seed(0)
    network = BoneAgeNet(TrialConfig(backbone="slim_residual_vgg16")).eval().backbone
    layers = network.features[network.stages[0]]
    with torch.inference_mode():
        x = torch.randn(1, 1, 16, 16)
        first = layers[:3](x).clone()
        expected = (layers[4](layers[3](first)) + first).relu()
        assert torch.allclose(network.stage(0, x), expected, atol=1e-6)
