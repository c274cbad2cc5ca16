"""Pretrained weights: timm's without network, local files, one grey channel for three colours."""

import os
import subprocess
import sys
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import googlenet, vgg16, vgg16_bn

from preprocessing.storage import StorageError
from search.model import BoneAgeNet
from search.pretrained import make_backbone
from search.sampler import settings_of
from search.space import TrialConfig
from search.trial import all_outcomes
from tests.conftest import ROOT


def stored(network: torch.nn.Module, file: Path) -> Path:
    """Write a network's weights as safetensors, or by torch."""
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    return file


def published(name: str) -> torch.nn.Module:
    torch.manual_seed(3)
    return timm.create_model(name, num_classes=1000).eval()


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_grey_picture_gives_the_maps_that_its_colours_gave(name: str, suffix: str, tmp_path: Path) -> None:
    colour = published(name)
    file = stored(colour, tmp_path / f"weights{suffix}")
    model = BoneAgeNet(TrialConfig(backbone=name, pretrained=str(file))).eval()
    images = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        scaled = (images[:, None].float() - model.grey_mean) / model.grey_sd
        expected = colour.forward_features(scaled.expand(-1, 3, -1, -1))
        assert torch.allclose(model.maps(images), expected, atol=1e-4)


def test_a_transformer_s_positions_are_fitted_to_the_size(tmp_path: Path) -> None:
    file = stored(published("test_vit"), tmp_path / "vit.safetensors")
    model = BoneAgeNet(TrialConfig(backbone="test_vit", pretrained=str(file), image_size=64))
    assert model.backbone.pos_embed.shape == (1, 17, 64)


def test_pretrained_networks_see_the_grey_levels_they_learnt_from(tmp_path: Path) -> None:
    file = stored(published("test_resnet"), tmp_path / "w.safetensors")
    model = BoneAgeNet(TrialConfig(backbone="test_resnet", pretrained=str(file)))
    mean, sd = model.backbone.pretrained_cfg["mean"], model.backbone.pretrained_cfg["std"]
    assert (model.grey_mean, model.grey_sd) == pytest.approx((255 * sum(mean) / 3, 255 * sum(sd) / 3))
    assert BoneAgeNet(TrialConfig(backbone="test_resnet")).grey_mean == 64


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("chen_vgg16", vgg16),
        ("residual_vgg16", vgg16_bn),
        ("attention_vgg16", vgg16_bn),
        ("chen_googlenet", lambda: googlenet(init_weights=False)),
    ],
)
def test_torchvision_s_weights_fit_our_networks(name: str, make, tmp_path: Path) -> None:
    with torch.device("meta"):  # the names and shapes are enough, and the classifier's only names
        state = make().state_dict()
    shapes = {n: (1,) if n.startswith("classifier.") else value.shape for n, value in state.items()}
    save_file({n: torch.ones(shape) for n, shape in shapes.items()}, tmp_path / "weights.safetensors")
    model = BoneAgeNet(TrialConfig(backbone=name, pretrained=str(tmp_path / "weights.safetensors")))
    first = next(model.trunk.parameters())
    assert (first == 3).all()  # the sum over three colours


def test_the_trunk_of_parts_takes_the_weights_of_its_network(tmp_path: Path) -> None:
    colour = published("test_resnet")
    file = stored(colour, tmp_path / "w.safetensors")
    model = BoneAgeNet(TrialConfig(backbone="prs_r:test_resnet", pretrained=str(file)))
    assert torch.equal(model.trunk.state_dict()["layer4.0.bn1.weight"], colour.state_dict()["layer4.0.bn1.weight"])


def test_weights_of_another_network_are_refused_with_counts(tmp_path: Path) -> None:
    file = stored(published("test_convnext"), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors does not fit ResNet: of \d+ weights \d+ are missing"):
        BoneAgeNet(TrialConfig(backbone="test_resnet", pretrained=str(file)))


def test_weights_of_a_larger_network_are_refused(tmp_path: Path) -> None:
    file = stored(timm.create_model("slim_resnet18", num_classes=0), tmp_path / "larger.safetensors")
    with pytest.raises(ValueError, match=r" 0 are missing and 0 have another shape, 48 of the file are unknown"):
        BoneAgeNet(TrialConfig(backbone="slim_resnet10", pretrained=str(file)))


def test_a_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Path("x")}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code.pth is no file of tensors alone") as caught:
        BoneAgeNet(TrialConfig(backbone="test_resnet", pretrained=str(tmp_path / "code.pth")))
    assert "asks for pathlib." in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice: an option that nobody has here


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"w.safetensors is no file of tensors alone"):
        BoneAgeNet(TrialConfig(backbone="test_resnet", pretrained=str(tmp_path / "w.safetensors")))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="pretrained must be 'hub' or the path of a weights file, and /no/file"):
        BoneAgeNet(TrialConfig(backbone="test_resnet", pretrained="/no/file.pth"))


@pytest.mark.parametrize("name", ["test_resnet", "chen_vgg16", "prs_r:test_resnet", "slim_resnet10"])
def test_without_network_the_local_file_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **options: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(ValueError, match=r"weights of .* cannot be fetched \(.*\). Give a file of them: \w+.safeten"):
        BoneAgeNet(TrialConfig(backbone=name, pretrained="hub"))


def test_a_network_that_is_away_is_no_fault_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **options: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(StorageError, match="Give a file of them"):  # a worker that meets it halts the study
        BoneAgeNet(TrialConfig(backbone="test_resnet", pretrained="hub"))


def test_weights_that_the_hub_does_not_have_are_the_configuration_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **options: object) -> None:
        raise HTTPError("https://hub", 404, "Not Found", Message(), None)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", missing)
    with pytest.raises(ValueError, match="Give a file of them") as caught:
        BoneAgeNet(TrialConfig(backbone="test_resnet", pretrained="hub"))
    assert not isinstance(caught.value, StorageError)


@pytest.mark.parametrize("name", ["someone/else", "//huggingface.co/resnet18", "prs_r:a/b", "no_such_net.tag"])
def test_a_network_that_timm_does_not_know_is_refused_before_it_is_asked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.create_model", lambda *args, **options: pytest.fail("timm was asked"))
    with pytest.raises(ValueError, match="backbone must be the name of a timm model, got"):
        make_backbone(TrialConfig(backbone=name))


def test_timms_own_weights_of_a_network_can_be_named_by_a_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda model, **options: asked.append("weights"))
    make_backbone(TrialConfig(backbone="test_resnet.r160_in1k", pretrained="hub"))
    assert asked == ["weights"]


def test_loading_a_trained_fold_fetches_nothing() -> None:
    assert BoneAgeNet(TrialConfig(backbone="test_resnet", pretrained="hub"), fetch=False).grey_sd > 0


def test_a_model_of_a_users_own_module_is_found_by_whoever_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ward_seven.py").write_text(
        "from timm.models import register_model\n"
        "from timm.models.resnet import BasicBlock, ResNet\n\n"
        "@register_model\n"
        "def ward_seven_net(pretrained=False, **ignored):\n"
        "    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=0, in_chans=1, channels=(8, 8, 16, 16))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = TrialConfig(backbone="ward_seven_net")
    with pytest.raises(ValueError, match="CARPAL_MODELS"):
        make_backbone(config)
    monkeypatch.setenv("CARPAL_MODELS", "no_such_module")
    with pytest.raises(ValueError, match="no_such_module"):
        make_backbone(config)
    monkeypatch.setenv("CARPAL_MODELS", "ward_seven")
    assert make_backbone(config).num_features == 16


@pytest.mark.parametrize(
    ("named", "kept"), [("w/net.pth", "{here}/w/net.pth"), ("/w/net.pth", "/w/net.pth"), ("hub", "hub"), ("", "")]
)
def test_a_space_s_relative_file_is_drawn_as_an_absolute_path(
    named: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = settings_of(lambda trial: {"backbone": "test_resnet", "pretrained": named}, ["full"], None)
    assert drawn["pretrained"] == kept.format(here=tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_finds_the_file_that_a_space_names_by_a_relative_path(cohort_folder: Path, tmp_path: Path) -> None:
    stored(published("test_resnet"), tmp_path / "net.safetensors")
    (tmp_path / "mine_of_tests.py").write_text(
        "from tests.spaces_of_tests import tiny\n\n\n"
        "def near(trial):\n"
        "    return tiny(trial) | {'pretrained': 'net.safetensors'}\n"
    )
    words = ["run", str(cohort_folder), "study", "--space", "mine_of_tests:near", "--trials", "1", "--pool", "1"]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    subprocess.run(
        [sys.executable, "-m", "search", *words], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=True
    )
    assert [outcome["state"] for outcome in all_outcomes(tmp_path / "study")] == ["complete"]
