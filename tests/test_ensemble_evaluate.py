"""Figures of an evaluation, by hand where they can be counted."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from ensemble.__main__ import main
from ensemble.answers import EvaluationError
from ensemble.bundle import Bundle, write_manifest
from ensemble.combine import combine
from ensemble.evaluate import evaluate, evaluate_table
from ensemble.predictions import read_references
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from ensemble.unseen import SITE_FILE, salted
from preprocessing.cohort import Cohort, cohort_hash
from preprocessing.quality import Finding
from preprocessing.rows import BAD_AGE
from preprocessing.source import problem, problem_table
from preprocessing.sources import SourceError, SourceOptions
from preprocessing.storage import read_json, sha256_file, write_json
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("evaluate")
    cohort = make_cohort(root / "cohort")
    Registry(root / "registry").publish(combine(make_study(root / "study", cohort)).write)
    return root


@pytest.fixture(scope="module")
def predictor(folders):
    registry = Registry(folders / "registry")
    return Predictor(registry.resolve(registry.versions()[0]["version"]))


def labelled_folder(folder, *, good: int = 5, broken: int = 1, missing: int = 1, unlabelled: int = 1):
    """A folder in the RSNA layout with noise pictures and everything that can be wrong."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(good + unlabelled):
        picture = rng.integers(0, 256, (80, 60)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{index + 1}.png"), picture)
    ids = [*range(1, good + 1), *range(100, 100 + broken), *range(200, 200 + missing)]
    for index in range(100, 100 + broken):
        (folder / "images" / f"{index}.png").write_bytes(b"not a picture")
    table = pd.DataFrame({"id": ids, "boneage": np.linspace(20, 200, len(ids)).round(), "male": True})
    table.to_csv(folder / "labels.csv", index=False)
    return folder


def test_a_cohort_is_measured_on_its_locked_test_only(predictor, folders):
    evaluation = evaluate(predictor, folders / "cohort")
    cohort = Cohort.load(folders / "cohort")
    assert evaluation.cases["case_id"].tolist() == cohort.cases.loc[cohort.cases["is_test"], "case_id"].tolist()
    assert evaluation.report["cohort_of_bundle"] is True


def test_cases_of_the_locked_test_that_a_site_was_calibrated_on_are_left_out(predictor, folders, tmp_path):
    locked = Cohort.load(folders / "cohort").cases[lambda cases: cases["is_test"]]
    shutil.copytree(predictor.bundle.folder, tmp_path / "bundle")
    write_json(tmp_path / "bundle" / SITE_FILE, salted(locked.head(1), "salt"))
    content = {name: value for name, value in predictor.bundle.manifest.items() if name not in ("schema", "version")}
    files = content["files"] | {SITE_FILE: sha256_file(tmp_path / "bundle" / SITE_FILE)}
    write_manifest(tmp_path / "bundle", content | {"files": files})
    report = evaluate(Predictor(Bundle.load(tmp_path / "bundle")), folders / "cohort").report
    assert (report["cohort_of_bundle"], report["n"]) == (True, len(locked) - 1)
    assert report["rejected_reasons"] == {"site_case": 1}


def test_ages_that_cannot_be_are_told_of_a_cohort_as_its_preparation_noted_them(predictor, tmp_path):
    folder = make_cohort(tmp_path / "cohort")
    cases = pd.read_parquet(folder / "cases.parquet").assign(chronological_age_months=[np.nan, np.nan, *[60.0] * 28])
    cases.to_parquet(folder / "cases.parquet", index=False)
    about = read_json(folder / "cohort.json")
    sha256 = cohort_hash(cases, folder / "pixels.npy", predictor.bundle.recipe)
    write_json(folder / "cohort.json", about | {"hash": sha256})
    assert "ages" not in evaluate(predictor, folder).report
    noted = [problem(case_id, "", BAD_AGE, "It cannot be.") for case_id in ("0001", "0029")]  # one of them is no test
    problem_table(noted).to_csv(folder / "notes.csv", index=False)
    says = evaluate(predictor, folder).report["ages"]["says"]
    assert "1 of 6 cases have a chronological age that cannot be (0001)" in says
    cases.assign(predicted_months=90)[["case_id", "predicted_months"]].to_csv(tmp_path / "said.csv", index=False)
    assert evaluate_table(tmp_path / "said.csv", folder).report["ages"]["doubtful"] == 1


def test_what_was_noticed_of_a_case_stands_beside_its_prediction(predictor, tmp_path):
    finding = Finding("inverted", "repaired", 0.9, 0.5, "The picture was inverted.")
    other = Finding("near_duplicate", "warned", 3, 36, "It resembles another case.")  # no matter of the picture's
    cohort = make_cohort(tmp_path / "cohort", findings=[("0003", finding), ("0004", other)])
    warnings = evaluate(predictor, cohort).cases.set_index("case_id")["warnings"]
    assert warnings.index[warnings.str.contains("was inverted")].tolist() == ["0003"]
    assert not warnings.str.contains("resembles").any()


def test_every_file_that_cannot_be_used_is_listed_with_its_reason(predictor, tmp_path):
    evaluation = evaluate(predictor, labelled_folder(tmp_path / "raw"))
    assert evaluation.report["n"] == 5
    assert evaluation.report["rejected"] == 3
    assert evaluation.report["rejected_reasons"] == {
        "missing_image": 1,
        "missing_label": 1,
        "unsupported_format": 1,
    }
    assert {row["case_id"] for row in evaluation.report["rejected_files"]} == {"100", "200", "6"}


def test_pictures_are_measured_against_any_table(predictor, tmp_path):
    folder = labelled_folder(tmp_path / "raw")
    (folder / "labels.csv").rename(tmp_path / "labels.csv")
    table = pd.read_csv(tmp_path / "labels.csv").rename(columns={"boneage": "reading", "male": "boy"})
    table.assign(reading=table["reading"] / 12).to_csv(tmp_path / "labels.csv", index=False)
    columns = {"bone_age_years": "reading", "is_male": "boy"}
    evaluation = evaluate(predictor, folder, SourceOptions(table=str(tmp_path / "labels.csv"), columns=columns))
    assert evaluation.report["n"] == 5
    assert evaluation.cases["bone_age_months"].min() == pytest.approx(20)
    assert "labels.csv, line 8: " in " ".join(row["detail"] for row in evaluation.report["rejected_files"])


def test_figures_do_not_depend_on_the_batch_size(predictor, tmp_path, monkeypatch):
    folder = labelled_folder(tmp_path / "raw", good=7)
    whole = evaluate(predictor, folder)
    monkeypatch.setattr("ensemble.evaluate.BATCH", 2)
    parts = evaluate(predictor, folder)
    np.testing.assert_allclose(whole.cases["predicted_months"], parts.cases["predicted_months"], atol=1e-3)


def test_files_and_predictions_stay_together_behind_a_broken_file(predictor, tmp_path):
    folder = labelled_folder(tmp_path / "raw", good=4, broken=2)
    for row in evaluate(predictor, folder).cases.itertuples():
        alone = predictor.score((folder / row.file).read_bytes(), row.sex)
        assert row.predicted_months == pytest.approx(alone.bone_age_months, abs=1e-3)


def test_the_report_is_json(predictor, tmp_path):
    report = evaluate(predictor, labelled_folder(tmp_path / "raw")).report
    wanted = {
        "n",
        "rejected",
        "mae_months",
        "mae_ci95",
        "rmse_months",
        "bias_months",
        "within_12_months",
        "top1_year",
        "top2_year",
        "median_predictor_mae_months",
        "bundle",
    }
    assert wanted <= json.loads(json.dumps(report, allow_nan=False)).keys()


def test_a_folder_with_only_broken_pictures_is_refused_with_the_reasons(predictor, tmp_path):
    folder = labelled_folder(tmp_path / "raw", good=0, broken=3, missing=0, unlabelled=0)
    with pytest.raises(EvaluationError, match="3 x unsupported_format"):
        evaluate(predictor, folder)


def test_a_cohort_of_another_recipe_is_refused(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.ensemble_fixtures.SIZE", 72)
    with pytest.raises(EvaluationError, match="recipe"):
        evaluate(predictor, make_cohort(tmp_path / "other"))


def test_a_cohort_without_locked_test_is_refused(predictor, tmp_path):
    with pytest.raises(EvaluationError, match="locks no test split"):
        evaluate(predictor, make_cohort(tmp_path / "open", num_test=0))


def training_folder(folder, cohort, *, new: int):
    """The training cases of a cohort as a labelled folder, and some that the bundle has not seen."""
    labelled_folder(folder, good=30, broken=0, missing=0, unlabelled=0)
    cases = Cohort.load(cohort).cases[lambda cases: ~cases["is_test"]]
    rows = [(case.case_id, case.bone_age_months, case.is_male) for case in cases.itertuples()]
    rows += [(f"new{index}", 100, True) for index in range(new)]
    for index, (case_id, *_) in enumerate(rows, start=1):
        (folder / "images" / f"{index}.png").rename(folder / "images" / f"{case_id}.png")
    for left in folder.glob("images/[0-9].png"), folder.glob("images/[0-9][0-9].png"):
        for path in left:
            path.unlink()
    pd.DataFrame(rows, columns=["id", "boneage", "male"]).to_csv(folder / "labels.csv", index=False)
    return folder


def test_cases_that_the_bundle_was_trained_on_are_left_out_and_counted(predictor, folders, tmp_path, capsys):
    folder = training_folder(tmp_path / "raw", folders / "cohort", new=3)
    report = evaluate(predictor, folder).report
    assert report["locked_test"]["cohort"] == Cohort.load(folders / "cohort").hash
    assert (report["n"], report["training_cases"]["left_out"], report["training_cases"]["of"]) == (3, 24, 27)
    assert report["rejected_reasons"] == {"training_case": 24}
    bundle = f"{folders / 'registry'}@{predictor.bundle.version}"
    assert main(["evaluate", bundle, str(folder)]) == 0
    out, err = capsys.readouterr()
    for stream in (out, err):
        assert "Left out: 24 of 27 cases, which ens-" in stream
        assert "Most were, so these are taken for its cohort's locked test" in stream
    assert "rejected: 24 x training_case" in out
    assert out.count("trained on") == 1  # and no line for each
    assert main(["compare", bundle, bundle, str(folder), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert (compared["n"], compared["training_cases"]["b"]["left_out"]) == (3, 24)


def test_nothing_but_training_cases_is_refused(predictor, folders, tmp_path):
    with pytest.raises(EvaluationError, match="was trained or calibrated on every case of it"):
        evaluate(predictor, training_folder(tmp_path / "raw", folders / "cohort", new=0))


def test_new_cases_are_said_to_be_new(predictor, tmp_path):
    report = evaluate(predictor, labelled_folder(tmp_path / "raw")).report
    said = report["training_cases"]
    assert said["left_out"] == 0
    assert "locked_test" not in report
    assert said["says"].startswith("None of the cases has id, sex and bone age of one that ens-")


def test_a_sex_in_digits_is_refused_of_a_table_alone_too(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,boneage,sex\n0,90,0\n1,100,1\n")
    with pytest.raises(SourceError, match="--columns is_male=sex; else write M and F"):
        read_references(tmp_path / "labels.csv")
    for options in (SourceOptions(layout="rsna"), SourceOptions(columns={"is_male": "sex"})):
        assert read_references(tmp_path / "labels.csv", options).cases["sex"].tolist() == ["female", "male"]
