"""A folder of files in place of timm's hub: their names, what is drawn, and what a halted study takes from them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

from preprocessing.storage import StorageError, as_path, read_json
from search import study as studies
from search import tuning
from search.adapters import StudySearcher
from search.control import StudyControl
from search.placement import Share, StudyError
from search.progress import SCREEN
from search.sampler import settings_of
from search.spaces import load_space
from search.study import create, run
from search.trial import all_outcomes, read_study, trial_folder
from search.tuning import Compute, Job, trainable
from search.weights import SUFFIXES, WeightsError, check_weights, file_names, local_file
from tests.conftest import ROOT

SPACE = "tests.spaces_of_tests:from_the_hub"


def folder_of(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def filled(tmp_path: Path) -> Path:
    folder = folder_of(tmp_path)
    state = timm.create_model("test_resnet", num_classes=1000).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "test_resnet.r160_in1k.safetensors")
    return folder


def drawn(space: Any, weights: str) -> dict[str, Any]:
    return settings_of(space, ["full"], None, weights=weights)


@pytest.mark.parametrize(
    ("backbone", "file"),
    [
        ("resnet50", "resnet50.safetensors"),
        ("resnet50", "resnet50.a1_in1k.pth"),
        ("resnet50.tv_in1k", "resnet50.tv_in1k.pt"),
        ("prs_r:resnet50d", "resnet50d.safetensors"),
        ("chen_vgg16", "vgg16.safetensors"),
        ("residual_vgg16", "vgg16_bn.tv_in1k.safetensors"),
        ("attention_vgg16", "attention_vgg16.pth"),
        ("chen_googlenet", "googlenet-1378be20.pth"),
        ("slim_resnet10", "slim_resnet10.safetensors"),
    ],
)
def test_a_file_is_found_by_the_name_that_its_network_is_published_by(backbone: str, file: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, file, "other.safetensors")
    assert local_file(backbone, str(folder)) == str(folder / file)


@pytest.mark.parametrize("backbone", ["resnet50.tv_in1k", "resnet50d", "vit_base_patch16_clip_quickgelu_224"])
def test_a_file_that_may_hold_other_weights_is_not_taken(backbone: str, tmp_path: Path) -> None:
    names = ["resnet50.safetensors", "resnet50.a1_in1k.pth", "vit_base_patch16_clip_224.pth", "resnet50d.a2_in1k.pth"]
    folder = folder_of(tmp_path, *names)
    with pytest.raises(WeightsError, match=f"{folder} holds no weights of {backbone}: {backbone}.* is missing"):
        local_file(backbone, str(folder))


def test_a_network_that_timm_does_not_know_is_left_to_who_makes_it(tmp_path: Path) -> None:
    assert local_file("no_such_net", str(folder_of(tmp_path))) == "hub"
    assert file_names("resnet50.no_such_tag") == ["resnet50.no_such_tag"]


def test_a_configuration_names_the_file_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, "test_resnet.pth")
    monkeypatch.chdir(tmp_path)
    hub = {"backbone": "test_resnet", "pretrained": "hub"}
    assert drawn(lambda trial: hub, "weights")["pretrained"] == str(tmp_path / "weights" / "test_resnet.pth")
    assert drawn(lambda trial: hub, "")["pretrained"] == "hub"
    assert drawn(lambda trial: hub | {"pretrained": ""}, "weights")["pretrained"] == ""


def test_all_that_a_space_lacks_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "vgg16.pth", "resnet18.safetensors")

    def settings(trial: Any) -> dict[str, Any]:
        return settings_of(load_space("seeds_pretrained"), ["full"], trial)

    with pytest.raises(WeightsError) as caught:
        check_weights(str(folder), settings)
    assert "3 of 5 networks" in str(caught.value)
    assert "vgg16_bn.safetensors" in str(caught.value)
    assert "googlenet.safetensors" in str(caught.value)
    folder_of(tmp_path, "vgg16_bn.pth", "googlenet.pt")
    check_weights(str(folder), settings)


@pytest.mark.parametrize(
    ("space", "weights", "sentence"),
    [
        (SPACE, "nowhere", "--weights must be a folder on a disk that every node reaches"),
        (SPACE, "memory://weights", "--weights must be a folder on a disk that every node reaches"),
        (SPACE, "weights", r"test_resnet.safetensors or test_resnet.r160_in1k.safetensors. Put them there"),
        ("quick", "weights", "in 200 draws the space takes nothing from it. Leave it out"),
    ],
)
def test_a_study_that_could_not_use_its_folder_is_not_begun(
    space: str, weights: str, sentence: str, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        create(str(cohort_folder), "study", space=space, num_trials=1, pool_size=1, seed=0, weights=weights)
    assert not (tmp_path / "study").exists()


def begun(cohort_folder: Path, tmp_path: Path, weights: str = "") -> Path:
    folder = tmp_path / "study"
    create(str(cohort_folder), str(folder), space=SPACE, num_trials=3, pool_size=1, seed=0, weights=weights)
    return folder


def pretrained_of(study: Path) -> list[str]:
    return [outcome["config"]["pretrained"] for outcome in all_outcomes(study)]


def test_a_halted_study_takes_the_files_where_nothing_was_trained_yet(
    cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begun(cohort_folder, tmp_path)

    def halt(job: Job, compute: Compute, control: StudyControl) -> None:
        for number in range(2):
            task = control.next()
            assert task is not None
            assert task.number == number
        (study / "trials" / "0001" / "screen.checkpoint").touch()
        control.on_result(0, {"halted": "timm's weights cannot be fetched."}, fold=SCREEN)

    monkeypatch.setattr(studies, "fit", halt)
    with pytest.raises(StudyError, match=r"fetched. Mend that, then go on with: python -m search resume"):
        run(study, Compute())
    assert pretrained_of(study) == ["hub", "hub"]
    before = read_json(trial_folder(as_path(study), 0) / "config.json")["params"]

    monkeypatch.setattr(studies, "fit", lambda job, compute, control: None)
    with pytest.raises(StorageError, match="--weights must be a folder"):
        run(study, Compute(), weights=str(tmp_path / "nowhere"))
    file = str(filled(tmp_path) / "test_resnet.r160_in1k.safetensors")
    run(study, Compute(), weights=str(tmp_path / "weights"))
    assert pretrained_of(study) == [file, "hub"]  # the second had begun to train
    assert read_json(trial_folder(as_path(study), 0) / "config.json")["params"] == before

    def draw(job: Job, compute: Compute, control: StudyControl) -> None:
        while control.next():
            pass

    monkeypatch.setattr(studies, "fit", draw)
    run(study, Compute())  # it knows the folder by now
    assert pretrained_of(study) == [file, "hub", file]
    assert read_study(study)["weights"] == str(tmp_path / "weights")


def test_a_file_that_is_gone_when_its_network_is_drawn_halts_the_study(
    cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = filled(tmp_path)
    study = begun(cohort_folder, tmp_path, str(weights))
    for file in weights.iterdir():
        file.rename(tmp_path / file.name)

    def fit(job: Job, compute: Compute, control: StudyControl) -> None:
        StudySearcher(control).suggest("a")

    monkeypatch.setattr(studies, "fit", fit)
    with pytest.raises(StudyError, match=r"holds no weights of test_resnet: .* Put it there. Mend that, then go on"):
        run(study, Compute())
    for suffix in SUFFIXES:
        for file in tmp_path.glob(f"*{suffix}"):
            file.rename(weights / file.name)
    monkeypatch.setattr(studies, "fit", lambda job, compute, control: None)
    run(study, Compute())
    assert pretrained_of(study) == [str(weights / "test_resnet.r160_in1k.safetensors")]


def test_a_worker_tells_what_halts_it_in_one_sentence(
    cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, Any]] = []
    study = begun(cohort_folder, tmp_path, str(filled(tmp_path)))

    def fit(job: Job, compute: Compute, control: StudyControl) -> None:
        task = control.next()
        assert task is not None
        (tmp_path / "weights" / "test_resnet.r160_in1k.safetensors").unlink()  # where this node cannot reach it
        monkeypatch.setattr(tuning.tune, "report", said.append)
        monkeypatch.setattr(tuning.ray, "get_gpu_ids", list)
        trainable({"number": task.number, "fold": SCREEN}, job=job, share=Share(1, 1, 0.0))

    monkeypatch.setattr(studies, "fit", fit)
    run(study, Compute())
    (told,) = said
    assert told["halted"].startswith("pretrained must be 'hub' or the path of a weights file")
    assert told["halted"].endswith("on a disk that every node reaches.")


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_without_network_trains_from_the_folder(cohort_folder: Path, tmp_path: Path) -> None:
    filled(tmp_path)
    words = ["run", str(cohort_folder), "study", "--space", SPACE, "--trials", "1", "--pool", "1"]
    subprocess.run(
        [sys.executable, "-m", "search", *words, "--weights", "weights"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    (outcome,) = all_outcomes(tmp_path / "study")
    file = str(tmp_path / "weights" / "test_resnet.r160_in1k.safetensors")
    assert (outcome["state"], outcome["config"]["pretrained"]) == ("complete", file)
