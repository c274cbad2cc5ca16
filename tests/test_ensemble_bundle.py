"""A bundle answers for every byte in it, and for nothing outside it."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from ensemble.bundle import Bundle, BundleError
from ensemble.combine import combine
from ensemble.manifest import version_of
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("bundle")
    study = make_study(root / "study", make_cohort(root / "cohort"))
    combine(study).write(root / "bundle")
    return root / "bundle"


@pytest.fixture
def bundle(pristine, tmp_path) -> Path:
    """A copy that a test may harm."""
    shutil.copytree(pristine, tmp_path / "bundle")
    return tmp_path / "bundle"


def rewrite(folder: Path, change) -> None:
    """Change the manifest as a forger would: with a version that fits."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest["version"] = version_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_written_bundle_loads_with_its_members(bundle):
    loaded = Bundle.load(bundle)
    assert loaded.version.startswith("ens-")
    assert sum(member.weight for member in loaded.members) == pytest.approx(1)
    assert all(len(member.files) == 2 for member in loaded.members)


def test_the_manifest_says_how_weights_and_service_differ(bundle):
    note = Bundle.load(bundle).manifest["evidence"]["weights_note"]
    assert "out-of-fold" in note
    assert "average of its fold models" in note


def test_a_flipped_bit_in_any_file_is_found(bundle):
    for path in [path for path in bundle.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        for position in (0, len(content) // 3, len(content) - 2):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            with pytest.raises(BundleError):
                Bundle.load(bundle)
        path.write_bytes(content)
    Bundle.load(bundle)


def test_another_schema_is_refused_by_name(bundle):
    rewrite(bundle, lambda manifest: manifest.update(schema="carpal-bundle-99"))
    with pytest.raises(BundleError, match="must have the schema carpal-bundle-3, got 'carpal-bundle-99'"):
        Bundle.load(bundle)


def test_a_missing_member_file_is_refused(bundle):
    next(bundle.rglob("*.safetensors")).unlink()
    with pytest.raises(BundleError, match=r"\.safetensors is missing"):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "../outside/fold_0.safetensors",
        "members/../../outside.safetensors",
        "/etc/passwd",
        "members/0-0000/../0-0000/fold_0.safetensors",
        "members/0-0000/fold_0.pt",
        "members/0-0000/fold_0.safetensors\n",
        "members\\0-0000\\fold_0.safetensors",
        "members/0-0000/refit.safetensors",
        "",
    ],
)
def test_a_file_that_is_not_a_member_inside_is_refused(bundle, name):
    rewrite(bundle, lambda manifest: manifest["members"][0]["files"][0].update(file=name))
    with pytest.raises(BundleError, match="must be named members/STUDY-"):
        Bundle.load(bundle)


def test_a_pickle_under_a_safetensors_name_is_refused(bundle):
    path = next(bundle.rglob("*.safetensors"))
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    import hashlib

    name, digest = path.relative_to(bundle).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()

    def forge(manifest):
        for member in manifest["members"]:
            for file in member["files"]:
                if file["file"] == name:
                    file["sha256"] = digest

    rewrite(bundle, forge)
    with pytest.raises(BundleError, match="no safetensors file"):
        Bundle.load(bundle)


def test_a_file_that_the_manifest_does_not_name_is_refused(bundle):
    (bundle / "members" / "extra.pkl").write_bytes(b"")
    with pytest.raises(BundleError, match=r"holds members/extra\.pkl"):
        Bundle.load(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "card.md", "members", "members/0-0000"])
def test_what_a_link_leads_to_is_no_part_of_a_bundle(bundle, tmp_path, name):
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=rf"must hold its files itself, and {name} is a symbolic link.*cp -rL"):
        Bundle.load(bundle)


def test_a_linked_weight_file_is_refused(bundle, tmp_path):
    path = next(bundle.rglob("*.safetensors"))
    path.rename(tmp_path / "weights")
    path.symlink_to(tmp_path / "weights")
    with pytest.raises(BundleError, match="is a symbolic link"):
        Bundle.load(bundle)


def test_a_bundle_is_found_behind_a_link_to_it(bundle, tmp_path):
    (tmp_path / "current").symlink_to(bundle)
    assert Bundle.load(tmp_path / "current").version == Bundle.load(bundle).version


@pytest.mark.parametrize("name", [".DS_Store", "members/._0-0000", ".nfs000000000123"])
def test_what_a_file_system_leaves_beside_the_files_does_no_harm(bundle, name):
    (bundle / name).write_bytes(b"left behind")
    Bundle.load(bundle)


@pytest.mark.parametrize("weight", [-0.5, 2.0, "1", True])
def test_weights_that_are_no_shares_are_refused(bundle, weight):
    rewrite(bundle, lambda manifest: manifest["members"][0].update(weight=weight))
    with pytest.raises(BundleError, match="weights must be 0 or more and sum to 1"):
        Bundle.load(bundle)


def test_what_is_no_number_is_refused(bundle):
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace('"trim": 0.2', '"trim": NaN'))
    with pytest.raises(BundleError, match="NaN is no number"):
        Bundle.load(bundle)


UNKNOWN = {
    "a new entry": lambda manifest: manifest.update(temperature=1.3),
    "a member's new entry": lambda manifest: manifest["members"][0].update(quantized=True),
    "a combination": lambda manifest: manifest["combination"].update(rule="product"),
    "a trim that leaves no member": lambda manifest: manifest["combination"].update(trim=0.5),
    "a profile": lambda manifest: manifest["profiles"].update(turbo=manifest["profiles"]["full"]),
    "a view": lambda manifest: manifest["views"].append("upside down"),
    "a calibration": lambda manifest: manifest.update(calibration={"magic": 1}),
    "a profile's calibration": lambda manifest: manifest["profiles"]["fast"].update(calibration={"magic": 1}),
    "a calibration beside the bundle's": lambda manifest: manifest["profiles"]["full"].update(calibration=None),
    "a way of fitting": lambda manifest: manifest["members"][0].update(fitted="distilled"),
    "a provenance": lambda manifest: manifest["provenance"].update(blessed=True),
    "a further file": lambda manifest: manifest["files"].update({"evidence/../x.json": "0" * 64}),
    "a further pickle": lambda manifest: manifest["files"].update({"evidence/x.pkl": "0" * 64}),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_this_release_does_not_know_is_refused_with_a_sentence(bundle, what):
    rewrite(bundle, UNKNOWN[what])
    with pytest.raises(BundleError, match=r"manifest\.json: .{20}"):
        Bundle.load(bundle)


def test_a_further_file_is_found_by_name_and_answered_for(pristine, tmp_path):
    import hashlib

    shutil.copytree(pristine, tmp_path / "bundle")
    (tmp_path / "bundle" / "evidence").mkdir(exist_ok=True)
    (tmp_path / "bundle" / "evidence" / "more.parquet").write_bytes(b"figures")
    digest = hashlib.sha256(b"figures").hexdigest()
    rewrite(tmp_path / "bundle", lambda manifest: manifest["files"].update({"evidence/more.parquet": digest}))
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.file("evidence/more.parquet").read_bytes() == b"figures"
    with pytest.raises(BundleError, match=r"holds no evidence/less\.json"):
        loaded.file("evidence/less.json")
    loaded.file("evidence/more.parquet").write_bytes(b"Figures")
    with pytest.raises(BundleError, match="was changed"):
        Bundle.load(tmp_path / "bundle")


def test_every_member_is_traced_to_its_trial_seed_and_folds(bundle):
    manifest = Bundle.load(bundle).manifest
    traced = {(trial["study"], trial["trial"]): trial for trial in manifest["provenance"]["trials"]}
    for member in manifest["members"]:
        trial = traced[member["study"], member["trial"]]
        assert trial["folds"] == [file["sha256"] for file in member["files"]]
        assert trial["seed"] == member["config"]["seed"]


def test_the_version_is_the_beginning_of_what_answers_name(bundle):
    loaded = Bundle.load(bundle)
    assert loaded.version == f"ens-{loaded.digest[:12]}"
    assert loaded.cohort == loaded.manifest["provenance"]["cohort_hash"]


def test_the_segmenter_travels_from_the_cohort_into_the_bundle(tmp_path):
    weights = save({"w": torch.zeros(3)})
    study = make_study(tmp_path / "study", make_cohort(tmp_path / "cohort", segmenter=weights))
    combine(study).write(tmp_path / "bundle")
    segmenter = Bundle.load(tmp_path / "bundle").segmenter
    assert segmenter is not None
    assert segmenter.read_bytes() == weights
    segmenter.write_bytes(save({"w": torch.ones(3)}))
    with pytest.raises(BundleError, match="was changed"):
        Bundle.load(tmp_path / "bundle")


def test_a_member_of_a_view_that_the_recipe_does_not_make_is_refused(bundle):
    rewrite(bundle, lambda manifest: manifest["members"][0]["config"].update(view="crop"))
    with pytest.raises(BundleError, match="sees the view 'crop'"):
        Bundle.load(bundle)


@pytest.mark.parametrize("name", ["hf-hub:some/one", "hf_hub:some/one", "local-dir:/x", "prs_r:hf-hub:a/b", ":x"])
def test_a_member_whose_network_timm_would_look_for_elsewhere_is_refused(bundle, name):
    rewrite(bundle, lambda manifest: manifest["members"][0]["config"].update(backbone=name))
    with pytest.raises(BundleError, match="backbone must be the name of a timm model, alone or after prs_r:"):
        Bundle.load(bundle)


def test_a_folder_without_manifest_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "null", "7", '{"schema": "carpal-bundle-3"}', "{", "\xff"])
def test_a_manifest_that_is_none_is_refused_with_a_sentence(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(BundleError):
        Bundle.load(tmp_path)


def test_an_incomplete_manifest_is_refused_with_a_sentence(bundle):
    for key in ("members", "recipe", "training_median_months"):
        original = (bundle / "manifest.json").read_text()
        rewrite(bundle, lambda manifest, key=key: manifest.pop(key))
        with pytest.raises(BundleError, match="incomplete"):
            Bundle.load(bundle)
        (bundle / "manifest.json").write_text(original)
