"""The locked test: every reading of it is noted in the registry, and says which one it is."""

import json
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import ensemble
from ensemble.__main__ import main
from ensemble.evaluate import evaluate
from ensemble.explain import explain
from ensemble.locked import READ, first_figures, readings
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from preprocessing.cohort import Cohort
from preprocessing.recipe import SHIPPED
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("locked")
    make_study(root / "study", make_cohort(root / "cohort"), states=("complete",) * 2)
    assert main(["build", str(root / "study"), str(root / "registry"), "--method", "equal"]) == 0
    return root


@pytest.fixture
def folders(made, tmp_path):
    """A registry of its own; cohort and study are only read."""
    shutil.copytree(made / "registry", tmp_path / "registry")
    for name in ("study", "cohort"):
        (tmp_path / name).symlink_to(made / name)
    return tmp_path


def stopped(*_, **__):
    raise ValueError("far enough")


def noted(folders, cohort="cohort"):
    return readings(Registry(folders / "registry"), Cohort.load(folders / cohort).hash)


def test_the_first_reading_is_recorded_and_later_ones_are_told_of_it(folders, capsys):
    words = ["evaluate", str(folders / "registry"), str(folders / "cohort"), "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["locked_test"]["says"].startswith("Reading 1 of this cohort's locked test")
    registry, cohort = Registry(folders / "registry"), Cohort.load(folders / "cohort").hash
    first = first_figures(registry, registry.aliases()["champion"], "full", cohort)
    assert (first["n"], first["mae_months"]) == (6, said["mae_months"])
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert f"was read on it before, on {first['time']}: {first['mae_months']:.2f} months" in err
    assert json.loads(out)["locked_test"]["reading"] == 2


def as_table(folders, tmp_path):
    """The cases of the locked test as a labelled table, their pictures noise."""
    cohort = Cohort.load(folders / "cohort")
    cases = cohort.cases.iloc[cohort.test_rows()]
    rng = np.random.default_rng(0)
    for case_id in cases["case_id"]:
        picture = rng.integers(0, 256, (90, 70)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{case_id}.png"), picture)
    table = cases[["case_id", "sex", "bone_age_months"]].assign(file=cases["case_id"] + ".png")
    table.to_csv(tmp_path / "cases.csv", index=False)
    return str(tmp_path / "cases.csv")


@pytest.mark.parametrize("command", ["evaluate", "stress"])
def test_a_folder_with_its_cases_is_the_locked_test_too(folders, tmp_path, capsys, command):
    words = [command, str(folders / "registry"), as_table(folders, tmp_path)]
    assert main([*words, *(["--families", "flip"] if command == "stress" else [])]) == 0
    assert [change["command"] for change in noted(folders)] == [command]
    out, err = capsys.readouterr()
    assert "Reading 1 of this cohort's locked test" in out + err


def test_what_is_explained_of_it_lacks_the_references_and_is_no_reading(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ensemble.explain.explain", partial(explain, methods=("cam",)))  # the quickest map
    words = ["explain", str(folders / "registry"), as_table(folders, tmp_path), str(tmp_path / "maps"), "--no-checks"]
    assert main(words) == 0
    assert "6 of 6 cases are of the locked test" in capsys.readouterr().err
    explained = json.loads((tmp_path / "maps" / "summary.json").read_text())["cases"]
    assert [case["case_id"] for case in explained] == [f"{number:04d}" for number in range(6)]  # not by bone age
    assert {case["reference_months"] for case in explained} == {None}
    assert noted(folders) == []


def test_no_site_is_calibrated_by_the_locked_test(folders, tmp_path, capsys):
    words = ["calibrate", str(folders / "registry"), as_table(folders, tmp_path), "--site", "north"]
    assert main(words) == 2
    assert "trained or tested on" in capsys.readouterr().err
    assert noted(folders) == []


def test_a_reading_by_a_version_that_was_removed_and_published_again_is_noted_too(folders):
    words = ["build", str(folders / "study"), str(folders / "registry")]
    assert main([*words, "--method", "single"]) == 0
    registry = Registry(folders / "registry")
    (other,) = {row["version"] for row in registry.versions()} - set(registry.aliases().values())
    registry.remove(other)
    assert main([*words, "--method", "single"]) == 0
    assert main(["evaluate", f"{folders / 'registry'}@{other}", str(folders / "cohort")]) == 0
    assert [change["version"] for change in noted(folders)] == [other]


def test_every_command_that_reads_it_is_noted_however_the_bundle_is_named(folders, capsys):
    registry, cohort = str(folders / "registry"), str(folders / "cohort")
    version = Registry(registry).aliases()["champion"]
    page = folders / "page.html"
    assert main(["report", registry, "--study", str(folders / "study"), "--cohort", cohort, "--out", str(page)]) == 0
    assert "Reading 1 of this cohort&#39;s locked test" in page.read_text()
    capsys.readouterr()
    assert main(["compare", f"{registry}@{version}", f"{registry}@{version}", cohort, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["locked_test"]["b"]["reading"] == 3
    assert main(["evaluate", f"{registry}/bundles/{version}", cohort]) == 0
    assert "Reading 4 of this cohort's locked test" in capsys.readouterr().out
    assert [change["command"] for change in noted(folders)] == ["report", "compare", "compare", "evaluate"]
    assert noted(folders)[1]["purpose"] == f"to compare it with {registry}@{version}"


def test_another_version_does_not_read_the_test_for_the_first_time(folders, capsys):
    registry, cohort = folders / "registry", folders / "cohort"
    assert main(["evaluate", str(registry), str(cohort)]) == 0
    assert main(["build", str(folders / "study"), str(registry), "--max-members", "1", "--alias", "other"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(registry), str(cohort), "--version", "other"]) == 0
    said = capsys.readouterr().out
    assert "Reading 2 of this cohort's locked test" in said
    assert "by 2 versions of this registry" in said


def test_each_profile_has_first_figures_of_its_own(folders):
    registry, cohort = Registry(folders / "registry"), folders / "cohort"
    version, of = registry.aliases()["champion"], Cohort.load(cohort).hash
    assert main(["evaluate", str(registry.path), str(cohort), "--profile", "fast"]) == 0
    assert first_figures(registry, version, "fast", of)["n"] == 6
    assert first_figures(registry, version, "full", of) is None


def test_cohorts_are_counted_apart(folders):
    other = make_cohort(folders / "other", seed=1)
    assert main(["evaluate", str(folders / "registry"), str(other)]) == 0
    assert (len(noted(folders)), len(noted(folders, "other"))) == (0, 1)


def test_what_cannot_be_recorded_says_so(folders, capsys):
    cohort = folders / "cohort"
    (bundle,) = (folders / "registry" / "bundles").iterdir()
    shutil.copytree(bundle, folders / "alone")
    assert main(["evaluate", str(folders / "alone"), str(cohort), "--predictions", str(folders / "said.csv")]) == 0
    out, err = capsys.readouterr()
    assert "could not be recorded" in out
    assert "lies in no registry. Name it as REGISTRY@VERSION" in err
    assert main(["evaluate", str(folders / "said.csv"), str(cohort), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["locked_test"]["recorded"] is False
    assert "could not be recorded: predictions of another system" in err


def test_whoever_is_judged_by_it_is_noted_with_whoever_stands_beside(folders, monkeypatch, capsys):
    monkeypatch.setattr("ensemble.examination.examine", stopped)
    registry, cohort = str(folders / "registry"), str(folders / "cohort")
    assert main(["stress", registry, cohort]) == 2
    assert "Reading 1 of this cohort's locked test" in capsys.readouterr().err
    assert main(["build", str(folders / "study"), registry, "--max-members", "1", "--gate", cohort]) == 2
    said = [(change["command"], change["version"]) for change in noted(folders)]
    champion = Registry(registry).aliases()["champion"]
    assert [command for command, _ in said] == ["stress", "build --gate", "build --gate"]
    assert said[0][1] == said[2][1] == champion != said[1][1]


def test_a_few_families_read_it_too_and_the_figures_afterwards_are_not_called_the_first(folders, monkeypatch, capsys):
    monkeypatch.setattr("ensemble.stress.stress", stopped)
    registry, cohort = str(folders / "registry"), str(folders / "cohort")
    assert main(["stress", registry, cohort, "--families", "flip"]) == 2
    assert "Reading 1 of this cohort's locked test" in capsys.readouterr().err
    assert [change["command"] for change in noted(folders)] == ["stress"]
    without = "once before, without figures that were kept of this profile, first by stress"
    for _ in range(2):
        assert main(["evaluate", registry, cohort]) == 0
        said = capsys.readouterr().out
        assert without in said
        assert "the one to quote" not in said
    assert "Those are the first figures that were kept, and not of its first reading" in said


def test_a_service_that_is_asked_for_it_lies_in_no_registry(folders, monkeypatch, capsys):
    monkeypatch.setattr("ensemble.stress.stress", stopped)
    assert main(["stress", "http://127.0.0.1:1", str(folders / "cohort")]) == 2
    assert "could not be recorded: predictions of another system or service" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("evaluate {r} {c} --profile fats", "has the profiles full"),
        ("compare {r} {r}@ens-000000000000 {c}", "ens-000000000000"),
        ("compare {r} {t}/strangers.csv {c}", "share no case"),
        (
            "report {r} --study {t}/study --cohort {c} --answer {t}/answer.json --out {t}/p.html",
            "Ask the service again",
        ),
        ("stress {r} {c} --cases 1", "needs 2 cases or more"),
        ("stress {r} {c} --device cud", "The device must be one that torch finds here"),
        ("stress {r} {c} --against champoin", "has no bundle 'champoin'. It has champion"),
        ("build {t}/study {r} --max-members 1 --gate {c} --device cud", "The device must be one that torch finds here"),
    ],
)
def test_what_is_refused_for_its_words_is_no_reading(folders, capsys, words, says):
    (folders / "strangers.csv").write_text("id,predicted_months\nx,100\n")
    (folders / "answer.json").write_text(json.dumps({"answer": {"version": "ens-000000000000"}, "sex": "male"}))
    assert main(words.format(r=folders / "registry", c=folders / "cohort", t=folders).split()) == 2
    assert says in capsys.readouterr().err
    assert noted(folders) == []


def test_a_second_bundle_of_another_recipe_is_refused_before_the_first_reads_the_test(folders, tmp_path, capsys):
    other = make_cohort(tmp_path / "other", views=("full", "crop"), segmenter=SHIPPED.read_bytes())
    make_study(tmp_path / "others", other, states=("complete",) * 2)
    registry = str(tmp_path / "of_others")
    assert main(["build", str(tmp_path / "others"), registry, "--method", "equal"]) == 0
    assert main(["compare", str(folders / "registry"), registry, str(folders / "cohort")]) == 2
    assert "must be prepared by the bundle's recipe" in capsys.readouterr().err
    assert noted(folders) == []


@pytest.mark.parametrize(("option", "value", "least"), [("--cases", "0", 1), ("--cases", "-2", 1), ("--seed", "-1", 0)])
def test_a_stress_test_of_numbers_that_cannot_be_is_no_reading(folders, capsys, option, value, least):
    with pytest.raises(SystemExit):
        main(["stress", str(folders / "registry"), str(folders / "cohort"), option, value])
    assert f"it must be {least} or more, got {value}" in capsys.readouterr().err
    assert noted(folders) == []


def test_it_is_noted_before_anything_is_predicted(folders, monkeypatch):
    predictor = Predictor(Registry(folders / "registry").resolve())

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "predict", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(predictor, folders / "cohort")
    assert len(noted(folders)) == 1


def test_a_record_from_before_cohorts_were_named_counts(folders, capsys):
    registry = Registry(folders / "registry")
    version = registry.aliases()["champion"]
    figures = {"n": 6, "mae_months": 7.5, "mae_ci95": [5.0, 9.0], "bias_months": 0.0, "within_12_months": 0.9}
    registry.note({"event": READ, "version": version, **figures})
    assert main(["evaluate", str(registry.path), str(folders / "cohort")]) == 0
    said = capsys.readouterr().out
    assert "Reading 2 of this cohort's locked test" in said
    assert "7.50 months (5.00 to 9.00), n = 6. That reading is the one to quote" in said


def test_a_record_from_before_is_of_its_versions_cohort_although_that_was_removed_and_published_again(folders):
    words = ["build", str(folders / "study"), str(folders / "registry"), "--method", "single"]
    assert main(words) == 0
    registry = Registry(folders / "registry")
    (other,) = {row["version"] for row in registry.versions()} - set(registry.aliases().values())
    registry.note({"event": READ, "version": other, "n": 6, "mae_months": 7.5})
    registry.remove(other)
    assert main(words) == 0
    assert registry.folder_of(other).name == f"{other}.2"
    make_cohort(folders / "another", seed=1)
    assert (len(noted(folders)), len(noted(folders, "another"))) == (1, 0)


def test_no_other_module_hands_out_locked_rows():
    stage = Path(ensemble.__file__).parent
    asking = {path.name for path in stage.glob("*.py") if ".test_rows(" in path.read_text()}
    assert asking == {"locked.py"}
