"""Reading a labelled folder, splitting it and writing the cohort."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.__main__ import main
from preprocessing.cohort import Cohort
from preprocessing.folds import assign
from preprocessing.gate import Gate
from preprocessing.prepare import prepare
from preprocessing.recipe import VERSION, Recipe
from preprocessing.sources import SourceError, read_rsna
from preprocessing.standardize import Reader
from preprocessing.storage import StorageError, canonical_hash, read_json, sha256_file, write_json
from tests.conftest import plain_recipe, write_source
from tests.dicom_files import dicom


def prepared(source: Path, out: Path, *arguments: str) -> Cohort:
    plain = plain_recipe(out.parent)
    assert main(["prepare", str(source), str(out), "--size", "64", "--recipe", str(plain), *arguments]) == 0
    return Cohort.load(out)


def test_cohort_pixels_are_what_the_server_would_see(cohort: Cohort) -> None:
    reader = Reader(cohort.recipe)
    for row in (0, 7, 31):
        data = (Path(cohort.source) / cohort.cases["file"].iloc[row]).read_bytes()
        assert np.array_equal(cohort.pixels[row], reader.read(data).pixels)


def test_pixels_stay_on_disk_so_that_all_workers_of_a_machine_share_one_copy(cohort: Cohort) -> None:
    for pixels in (cohort.pixels, *map(cohort.view, cohort.recipe.views)):
        assert isinstance(pixels, np.memmap)
        assert pixels.mode == "r"


def test_each_case_is_in_the_test_split_or_in_one_fold(cohort: Cohort) -> None:
    rows = [cohort.test_rows(), *(cohort.fold_rows(fold) for fold in range(cohort.num_folds))]
    assert sorted(np.concatenate(rows)) == list(range(len(cohort.cases)))


def test_training_rows_hold_neither_the_fold_nor_the_locked_test(cohort: Cohort) -> None:
    for fold in range(cohort.num_folds):
        assert not set(cohort.train_rows(fold)) & (set(cohort.fold_rows(fold)) | set(cohort.test_rows()))


def test_the_same_source_gives_the_same_cohort(source: Path, cohort: Cohort, tmp_path: Path) -> None:
    assert prepared(source, tmp_path / "again").hash == cohort.hash


def test_bad_rows_and_files_are_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = write_source(tmp_path / "rsna", 30)
    pictures = source / "boneage-training-dataset"
    (pictures / "1000.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (pictures / "1001.png").unlink()
    cv2.imwrite(str(pictures / "9999.png"), np.eye(64, dtype=np.uint8) * 255)
    labels = pd.read_csv(source / "boneage-training-dataset.csv")
    labels["boneage"] = labels["boneage"].astype(object)
    labels.loc[2, "boneage"] = "old"
    labels.loc[len(labels)] = [1005, 100, True]
    labels.to_csv(source / "boneage-training-dataset.csv", index=False)
    cohort = prepared(source, tmp_path / "cohort")
    rejected = pd.read_csv(tmp_path / "cohort" / "rejected.csv", dtype=str).set_index("reason")["case_id"]
    assert rejected.to_dict() == {
        "unreadable": "1000",
        "missing_image": "1001",
        "bad_bone_age": "1002",
        "duplicate_id": "1005",
        "missing_label": "9999",
    }
    assert (len(cohort.cases), cohort.num_refused) == (27, 1)  # a service is sent no rows and no labels


def test_copies_of_one_picture_stay_together(tmp_path: Path) -> None:
    source = write_source(tmp_path / "rsna", 30)
    pictures = source / "boneage-training-dataset"
    for i in (1003, 1010, 1021):
        (pictures / f"{i}.png").write_bytes((pictures / "1000.png").read_bytes())
    cohort = prepared(source, tmp_path / "cohort")
    cases, copies = cohort.cases.set_index("case_id"), ["1000", "1003", "1010", "1021"]
    assert cases.loc[copies, ["group", "fold"]].nunique().tolist() == [1, 1]
    assert cohort.quality.loc[cohort.quality["code"] == "near_duplicate", "case_id"].tolist() == copies


@pytest.mark.parametrize("kind", ["missing", "empty", "no_csv", "no_picture", "two_csv"])
def test_a_folder_in_another_layout_is_refused_with_a_sentence(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rsna"
    if kind != "missing":
        folder.mkdir()
    if kind in ("no_picture", "two_csv"):
        (folder / "labels.csv").write_text("id,boneage,male\n1,100,True\n")
    if kind == "two_csv":
        (folder / "more.csv").write_text("id,boneage,male\n1,100,True\n")
    with pytest.raises(SourceError):
        read_rsna(folder)
    assert main(["prepare", str(folder), str(tmp_path / "cohort")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_cohort_is_never_overwritten(source: Path, cohort_folder: Path) -> None:
    before = (cohort_folder / "cohort.json").read_bytes()
    plain = plain_recipe(cohort_folder.parent)
    assert main(["prepare", str(source), str(cohort_folder), "--recipe", str(plain)]) == 2
    assert (cohort_folder / "cohort.json").read_bytes() == before


def copied(cohort_folder: Path, out: Path) -> tuple[Path, pd.DataFrame]:
    """A copy of a cohort to be changed, and its cases."""
    shutil.copytree(cohort_folder, out)
    return out, pd.read_parquet(out / "cases.parquet")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("group", 1_000_000),
        ("sex", "other"),
        ("is_male", None),
        ("patient", "another"),
        ("chronological_age_months", 7.5),
        ("side", "right"),
        ("bone_age_months", 7.5),
        ("fold", 7),
    ],
)
def test_a_case_that_was_changed_in_any_column_is_noticed(
    column: str, value: object, cohort_folder: Path, tmp_path: Path
) -> None:
    folder, cases = copied(cohort_folder, tmp_path / "cohort")
    cases.loc[3, column] = not cases.loc[3, column] if value is None else value
    cases.to_parquet(folder / "cases.parquet", index=False)
    with pytest.raises(StorageError, match="were changed after it was prepared"):
        Cohort.load(folder).verify()


def test_a_column_that_is_taken_away_or_added_is_noticed(cohort_folder: Path, tmp_path: Path) -> None:
    folder, cases = copied(cohort_folder, tmp_path / "cohort")
    for changed in (cases.drop(columns="group"), cases.assign(race="")):
        changed.to_parquet(folder / "cases.parquet", index=False)
        with pytest.raises(StorageError, match="were changed after it was prepared"):
            Cohort.load(folder).verify()


def test_how_the_table_of_cases_is_stored_does_not_matter(cohort_folder: Path, tmp_path: Path) -> None:
    folder, cases = copied(cohort_folder, tmp_path / "cohort")
    cases = cases[sorted(cases, reverse=True)].astype({"sex": "category"})
    cases.to_parquet(folder / "cases.parquet", index=False, compression="gzip", row_group_size=7)
    Cohort.load(folder).verify()


@pytest.mark.parametrize("format", ["carpal-cohort-2", None])
def test_a_cohort_of_a_release_before_is_verified_by_the_columns_that_its_hash_covers(
    format: str | None, cohort_folder: Path, tmp_path: Path
) -> None:
    folder, cases = copied(cohort_folder, tmp_path / "cohort")
    about = read_json(folder / "cohort.json")
    covered = cases[["case_id", "is_male", "bone_age_months", "fold", "is_test"]]
    content = {
        "cases": covered.to_csv(index=False),
        "pixels": sha256_file(folder / "pixels.npy"),
        "recipe": about["recipe_hash"],
    }
    del about["format"]
    told = {"format": format} if format else {}
    write_json(folder / "cohort.json", about | told | {"hash": canonical_hash(content)})
    Cohort.load(folder).verify()
    cases.assign(fold=(cases["fold"] + 1) % 3).to_parquet(folder / "cases.parquet", index=False)
    with pytest.raises(StorageError, match="were changed after it was prepared"):
        Cohort.load(folder).verify()


def test_a_cohort_of_a_later_release_is_not_said_to_be_changed(cohort_folder: Path, tmp_path: Path) -> None:
    folder, _ = copied(cohort_folder, tmp_path / "cohort")
    write_json(folder / "cohort.json", read_json(folder / "cohort.json") | {"format": "carpal-cohort-4"})
    with pytest.raises(StorageError, match="made by another release"):
        Cohort.load(folder)


def test_readings_that_are_not_there_for_every_case_do_not_change_the_hash_in_storage(tmp_path: Path) -> None:
    source = read_rsna(write_source(tmp_path / "rsna", 30))
    readings = pd.Series([100, None] * 15, dtype=object)
    source = replace(source, cases=source.cases.assign(reading_2_months=readings))
    prepare(source, tmp_path / "c", Recipe(size=64), num_folds=3, test_fraction=0.1, seed=0, progress=lambda done: None)
    Cohort.load(tmp_path / "c").verify()


def test_an_unfinished_cohort_is_not_opened(cohort_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cases.parquet").write_bytes((cohort_folder / "cases.parquet").read_bytes())
    with pytest.raises(StorageError, match=r"cohort\.json"):
        Cohort.load(tmp_path)


@pytest.mark.parametrize(("name", "kept"), [("pixels.npy", -1), ("pixels.npy", 0), ("cases.parquet", -1)])
def test_a_file_that_is_cut_short_is_a_fault_of_the_storage(
    name: str, kept: int, cohort_folder: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "cohort"
    shutil.copytree(cohort_folder, damaged)
    (damaged / name).write_bytes((damaged / name).read_bytes()[:kept])
    with pytest.raises(StorageError, match=rf"{name} must be whole, and is not \(.*\). Restore it"):
        Cohort.load(damaged)


@settings(max_examples=50, deadline=None)
@given(num_cases=st.integers(60, 400), num_folds=st.integers(2, 5), test=st.sampled_from([0.0, 0.1, 0.25]))
def test_split_sizes_are_exact_and_balanced(num_cases: int, num_folds: int, test: float) -> None:
    rng = np.random.default_rng(num_cases)
    cases = pd.DataFrame({"is_male": rng.random(num_cases) < 0.5, "bone_age_months": rng.uniform(0, 228, num_cases)})
    fold, is_test = assign(cases, np.arange(num_cases), num_folds=num_folds, test_fraction=test, seed=1)
    assert abs(is_test.sum() - num_cases * test) <= 1
    sizes = np.bincount(fold[~is_test], minlength=num_folds)
    assert sizes.max() - sizes.min() <= 1
    males = [cases["is_male"][fold == k].sum() for k in range(num_folds)]
    assert max(males) - min(males) <= 2
    assert ((fold == -1) == is_test).all()


def test_recipe_round_trip_keeps_its_hash() -> None:
    recipe = Recipe(size=128)
    assert Recipe.from_dict(recipe.to_dict()).hash == recipe.hash != Recipe().hash


def test_a_recipe_of_another_release_is_refused_by_its_version() -> None:
    with pytest.raises(ValueError, match=rf"must be {VERSION}, got 1.*prepare the cohort again"):
        Recipe.from_dict({"version": 1, "size": 96, "clip_percentiles": [1.0, 99.0]})


@pytest.mark.parametrize("views", [(), ("crops",), ("full", "full")])
def test_views_are_those_there_are_each_once(views: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"Recipe\.views"):
        Recipe(views=views)


def test_a_view_that_was_not_prepared_is_refused_with_those_there_are(cohort: Cohort) -> None:
    assert np.array_equal(cohort.view("full"), cohort.pixels[:, 0])
    with pytest.raises(StorageError, match=r"has the views full, not 'masked'"):
        cohort.view("masked")


def test_a_header_that_contradicts_its_row_is_kept_beside_the_case(tmp_path: Path) -> None:
    source = write_source(tmp_path / "rsna", 30)
    pictures = source / "boneage-training-dataset"
    for name in ("1000", "1001"):  # a girl's and a boy's row; the header says female
        image = cv2.imread(str(pictures / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        (pictures / f"{name}.png").unlink()
        (pictures / f"{name}.dcm").write_bytes(dicom(image))
    cohort = prepared(source, tmp_path / "cohort")
    assert cohort.quality[["case_id", "code", "action"]].values.tolist() == [["1001", "contradiction", "warned"]]
    assert "female" in cohort.findings()["1001"][0].message


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"align": "false"}, "Recipe.align must be true or false, got 'false'."),
        ({"repair_inversion": 0}, "Recipe.repair_inversion must be true or false, got 0."),
        ({"size": "96"}, "Recipe.size must be a whole number, got '96'."),
        ({"size": 96.0}, "Recipe.size must be a whole number, got 96.0."),
        ({"clahe_tiles": True}, "Recipe.clahe_tiles must be a whole number, got True."),
        ({"clahe_clip": "2"}, "Recipe.clahe_clip must be a number, got '2'."),
        ({"clip_percentiles": 5}, "Recipe.clip_percentiles must be a list of two numbers, got 5."),
        ({"clip_percentiles": [1, "x"]}, "Recipe.clip_percentiles must be a list of two numbers, got (1, 'x')."),
        ({"clip_percentiles": [1, 2, 3]}, "Recipe.clip_percentiles must be a list of two numbers, got (1, 2, 3)."),
        ({"views": "crop"}, "Recipe.views must be a list of texts, got 'crop'."),
        ({"views": [["crop"]]}, "Recipe.views must be a list of texts, got (['crop'],)."),
        ({"pad": ["black"]}, "Recipe.pad must be a text, got ('black',)."),
        ({"segmenter": 5}, "Recipe.segmenter must be a text, got 5."),
        ({"gate": 3}, "Recipe.gate must be an object of thresholds, got 3."),
        ({"gate": None}, "Recipe.gate must be an object of thresholds, got None."),
        ({"gate": {"blank": 10**400}}, f"The gate's threshold blank must be a number of 0 or more, got 1{'0' * 400}."),
        ({"gate": {"blank": True}}, "The gate's threshold blank must be a number of 0 or more, got True."),
    ],
)
def test_a_setting_of_a_wrong_type_is_refused_by_name(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Recipe.standard(**settings)


@pytest.mark.parametrize("settings", [{"align": "false"}, {"size": "96"}, {"gate": None}, {"gate": {"blank": 4.0}}])
def test_a_stored_recipe_is_read_as_strictly(settings: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"^(Recipe\.\w+ must be|A gate has exactly).* prepare the cohort, search and build again\.$"
    ):
        Recipe.from_dict(Recipe().to_dict() | settings)


def test_an_unknown_check_in_a_recipe_file_is_one_sentence(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.json").write_text('{"gate": {"foo": 1}}')
    recipe = str(tmp_path / "recipe.json")
    assert main(["prepare", str(source), str(tmp_path / "cohort"), "--recipe", recipe]) == 2
    assert re.fullmatch(r"preprocessing: A gate has exactly .* differ: \['foo'\]\.\n", capsys.readouterr().err)


def test_a_site_names_only_the_thresholds_that_it_moves() -> None:
    moved = Recipe.standard(gate={"rotated": 180})
    assert moved.gate == Gate(rotated=180)
    assert Recipe.from_dict(moved.to_dict()).hash == moved.hash


def test_the_hash_of_a_recipe_that_cohorts_hold_does_not_change() -> None:
    assert Recipe(size=64).hash == "ddbb6be54ef15975c1003706647108d20e4546a3eb5105f2ef9b8cfd8afa499c"


def test_recipe_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="colour"):
        Recipe.from_dict(Recipe().to_dict() | {"colour": 1})
