"""Calibration to a site: a new bundle where nested validation shows a gain, a sentence where it does not."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ensemble.__main__ import main
from ensemble.bundle import Bundle, write_manifest
from ensemble.combine import combine
from ensemble.evaluate import EvaluationError, evaluate
from ensemble.monitors import of_outcomes, of_values, of_words, read_monitors
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from ensemble.site import SiteError, calibrate
from ensemble.unseen import leave_out, salted, seen
from preprocessing.sources import read_source
from tests.conftest import write_source
from tests.ensemble_fixtures import make_cohort, make_study

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("site")
    study = make_study(root / "study", make_cohort(root / "cohort"), states=("complete",) * 2)
    registry = Registry(root / "registry")
    registry.set_alias("champion", registry.publish(combine(study).write).version)
    return registry


@pytest.fixture(scope="module")
def predictor(registry):
    return Predictor(registry.resolve("champion"))


def site(folder: Path, predictor: Predictor, *, girls: float, boys: float, count: int = 70) -> Path:
    """Pictures whose readers read them `girls` and `boys` months older than the bundle does, give or take."""
    write_source(folder, count, seed=3)
    table = folder / "boneage-training-dataset.csv"
    labels = pd.read_csv(table)
    rng = np.random.default_rng(0)
    for row, case in labels.iterrows():
        picture = folder / "boneage-training-dataset" / f"{case['id']}.png"
        says = predictor.score(picture.read_bytes(), "male" if case["male"] else "female").bone_age_months
        labels.loc[row, "boneage"] = round(says + (boys if case["male"] else girls) + rng.normal(0, 3))
    labels.to_csv(table, index=False)
    return folder


def test_a_site_gets_a_version_of_its_own(registry, predictor, tmp_path, capsys):
    source = site(tmp_path / "site", predictor, girls=3.0, boys=9.0)
    command = ["calibrate", str(registry.path), str(source), "--site", "north", "--alias", "north"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "calibrated to north" in said
    assert "north is now ens-" in said
    before, after = registry.resolve("champion"), registry.resolve("north")
    assert after.version != before.version
    assert after.manifest["calibration"]["site"]["parent"] == before.version
    of_fast = after.manifest["profiles"]["fast"]["calibration"]
    assert of_fast["site"]["name"] == "north"
    assert of_fast["intervals"] != after.manifest["calibration"]["intervals"]
    assert [member.files[0].read_bytes() for member in after.members] == [
        member.files[0].read_bytes() for member in before.members
    ]
    pixels = np.zeros((2, 1, before.recipe.size, before.recipe.size), np.uint8)
    moved = [
        new.bone_age_months - old.bone_age_months
        for new, old in zip(
            Predictor(after).predict(pixels, np.array([False, True])),
            predictor.predict(pixels, np.array([False, True])),
            strict=True,
        )
    ]
    assert moved == pytest.approx([3, 9], abs=2)
    assert main([*command[:3], "--site", "south", "--version", "north"]) == 2
    assert f"Start from {before.version}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def calibrated(predictor, tmp_path_factory):
    """A site's folder, and the bundle that was calibrated on it."""
    root = tmp_path_factory.mktemp("calibrated")
    source = site(root / "site", predictor, girls=3.0, boys=9.0)
    (root / "bundle").mkdir()
    calibrate(predictor, source, "north").write(root / "bundle")
    return source, Bundle.load(root / "bundle")


def test_a_version_is_not_measured_by_the_cases_that_it_was_calibrated_on(calibrated):
    folder, bundle = calibrated
    source = read_source(folder)
    assert seen(bundle, source).all()
    others = replace(source, cases=source.cases.assign(case_id="0" + source.cases["case_id"]))
    both = replace(source, cases=pd.concat([source.cases.head(60), others.cases.tail(10)], ignore_index=True))
    left, about = leave_out(bundle, both)
    assert (len(left.cases), about["left_out"], about["is_training_folder"]) == (10, 60, False)
    assert f"60 of 70 cases, which {bundle.version} was calibrated on" in about["says"]
    assert left.problems["reason"].tolist() == ["site_case"] * 60
    assert "was trained or calibrated on; a case that was renamed" in leave_out(bundle, others)[1]["says"]
    with pytest.raises(EvaluationError, match="was trained or calibrated on every case"):
        evaluate(Predictor(bundle), folder)


def test_a_services_monitors_expect_what_the_version_says_of_the_site(calibrated, predictor):
    folder, bundle = calibrated
    source = read_source(folder)
    expected, parents, said = read_monitors(bundle), read_monitors(predictor.bundle), Predictor(bundle)
    answers = [
        said.score((source.folder / case.file).read_bytes(), case.sex) for case in source.cases.itertuples(index=False)
    ]
    for name, values in {
        "bone_age_months": [answer.bone_age_months for answer in answers],
        "interval_months": [high - low for low, high in (answer.intervals[90] for answer in answers)],
    }.items():
        assert expected[name] != parents[name]
        assert expected[name]["edges"] == pytest.approx(of_values(np.array(values))["edges"], abs=1e-3)
        assert expected[name]["num_cases"] == 70
    sexes = source.cases["sex"].value_counts()
    assert expected["sex"] == of_words({sex: int(sexes[sex]) for sex in ("female", "male")})
    assert set(expected) == set(parents)


def test_what_names_the_cases_of_a_site_holds_none_of_them(calibrated):
    folder, bundle = calibrated
    kept = json.loads(bundle.file("evidence/site_cases.json").read_text())
    assert (set(kept), len(kept["cases_sha256"])) == ({"salt", "cases_sha256"}, 70)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in kept["cases_sha256"])
    assert kept["cases_sha256"] != salted(read_source(folder).cases, "another")["cases_sha256"]


def test_a_version_of_before_says_that_it_does_not_know_its_cases(calibrated, tmp_path):
    folder, bundle = calibrated
    shutil.copytree(bundle.folder, tmp_path / "old")
    (tmp_path / "old" / "evidence" / "site_cases.json").unlink()
    content = {name: value for name, value in bundle.manifest.items() if name not in ("schema", "version")}
    content["files"] = {name: sha256 for name, sha256 in content["files"].items() if "site_cases" not in name}
    write_manifest(tmp_path / "old", content)
    old = Bundle.load(tmp_path / "old")
    left, about = leave_out(old, read_source(folder))
    assert (len(left.cases), about["left_out"]) == (70, 0)
    assert "that ens-" in about["says"]
    assert "calibrated on;" not in about["says"]
    assert "Which cases of north it was calibrated on is not kept" in about["says"]


def test_no_gain_no_version(registry, predictor, tmp_path, capsys):
    source, versions = site(tmp_path / "site", predictor, girls=0.0, boys=0.0), len(registry.versions())
    assert main(["calibrate", str(registry.path), str(source), "--site", "north"]) == 2
    assert "shows no gain in nested validation on 70 cases" in capsys.readouterr().err
    assert len(registry.versions()) == versions


def test_a_site_needs_cases_and_a_name(predictor, tmp_path):
    with pytest.raises(SiteError, match=r"needs 50 labelled radiographs that can be read .*, got 6\."):
        calibrate(predictor, write_source(tmp_path / "few", 6), "north")
    with pytest.raises(SiteError, match="name is a word"):
        calibrate(predictor, tmp_path, "North/Wing")


@pytest.mark.parametrize("word", ["{registry}", "{registry}@champion", "{registry}@{version}", "{folder}"])
def test_the_bundle_to_start_from_is_named_as_everywhere(registry, predictor, tmp_path, capsys, word):
    bundle = predictor.bundle
    named = word.format(registry=registry.path, version=bundle.version, folder=bundle.folder)
    assert main(["calibrate", named, str(write_source(tmp_path / "few", 6)), "--site", "north"]) == 2
    assert f"that {bundle.version} was not trained on, got 6" in capsys.readouterr().err


def test_a_version_calibrated_from_a_folder_goes_to_the_registry_around_it(registry, predictor, tmp_path, capsys):
    source = site(tmp_path / "site", predictor, girls=3.0, boys=9.0)
    assert main(["calibrate", str(predictor.bundle.folder), str(source), "--site", "around"]) == 0
    published = re.search(r"published (ens-[0-9a-f]{12})", capsys.readouterr().out)
    assert registry.resolve(published[1]).manifest["calibration"]["site"]["name"] == "around"


def test_a_bundle_in_no_registry_is_not_calibrated(predictor, tmp_path, capsys):
    shutil.copytree(predictor.bundle.folder, tmp_path / "bundle")
    assert main(["calibrate", str(tmp_path / "bundle"), str(tmp_path), "--site", "north"]) == 2
    assert "lies in no registry, so its calibrated version" in capsys.readouterr().err


def test_what_was_rejected_is_printed_and_kept_with_the_evidence(registry, predictor, tmp_path, capsys):
    source = site(tmp_path / "site", predictor, girls=3.0, boys=9.0)
    pictures = sorted((source / "boneage-training-dataset").glob("*.png"))
    pictures[0].write_bytes(b"not a picture")
    pictures[1].unlink()
    assert main(["calibrate", str(registry.path), str(source), "--site", "west", "--alias", "west"]) == 0
    said = capsys.readouterr().out
    assert "nested validation on 68 cases" in said
    assert f"{pictures[0].name}: " in said
    west = registry.resolve("west")
    assert read_monitors(west)["outcome"] == of_outcomes(68, 1)["outcome"]  # the service is sent no missing picture
    evidence = west.manifest["calibration"]["site"]["evidence"]
    assert (evidence["n"], evidence["rejected"]) == (68, 2)
    assert evidence["rejected_reasons"] == {"missing_image": 1, "unsupported_format": 1}
    assert "on 68 of its cases (2 rejected)" in (west.folder / "card.md").read_text()


def renamed(source: Path, known: pd.DataFrame) -> Path:
    """The first cases of a site become these training cases."""
    table, pictures = source / "boneage-training-dataset.csv", source / "boneage-training-dataset"
    labels = pd.read_csv(table)
    names = labels["id"].astype(str).tolist()
    for row, case in enumerate(known.itertuples()):
        (pictures / f"{names[row]}.png").rename(pictures / f"{case.case_id}.png")
        labels.loc[row, ["boneage", "male"]] = [round(case.bone_age_months), case.is_male]
        names[row] = case.case_id
    labels.assign(id=names).to_csv(table, index=False)
    return source


def test_training_cases_are_no_cases_of_a_site(registry, predictor, tmp_path):
    source = site(tmp_path / "site", predictor, girls=3.0, boys=9.0)
    known = pd.read_parquet(predictor.bundle.file("evidence/oof.parquet"))
    found = calibrate(predictor, renamed(source, known.head(7)), "east")
    assert (found.evidence["n"], found.evidence["rejected_reasons"]) == (63, {"training_case": 7})


def test_nothing_is_learnt_of_what_the_cohort_was_prepared_from(registry, predictor, tmp_path):
    known = pd.read_parquet(predictor.bundle.file("evidence/oof.parquet"))
    source = renamed(write_source(tmp_path / "site", 70, seed=3), known.head(20))
    with pytest.raises(SiteError, match=r"20 of 70 cases are .* from which nothing may be learnt"):
        calibrate(predictor, source, "east")
