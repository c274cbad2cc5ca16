"""The Digital Hand Atlas as its archive lays it out."""

from pathlib import Path

import pytest

from preprocessing.source import SourceError, SourceOptions
from preprocessing.source_atlas import place
from preprocessing.sources import read_source
from tests.label_sources import ATLAS, write_atlas, write_dicom, write_picture


def test_two_readers_give_their_mean_and_the_floor_of_it(tmp_path: Path) -> None:
    root = write_atlas(tmp_path)
    mean, floor = (read_source(root, SourceOptions(label=label)) for label in ("mean", "floor"))
    assert mean.layout == "atlas"
    cases = mean.cases.set_index("case_id")
    assert cases["sex"].value_counts().to_dict() == {"female": 4, "male": 4}
    assert cases.loc["5012", "bone_age_months"] == 63.0
    assert cases.loc["5604", "bone_age_months"] == pytest.approx(5.52)
    assert cases.loc["3811", ["race", "file"]].tolist() == ["CAU", "JPEGimages/CAUF/CAUF09/3811.jpg"]
    assert cases.loc["5012", "chronological_age_months"] == 66
    floors = floor.cases.set_index("case_id")["bone_age_months"]
    assert floors.to_dict() == {
        name.split("/")[-1]: 12.0 * int((first + second) / 2) for name, (first, second) in ATLAS.items()
    }
    assert (floor.cases["readings_mean_months"] == mean.cases["bone_age_months"]).all()


def test_the_listing_that_the_public_downloader_writes_is_read(tmp_path: Path) -> None:
    lines = [
        f"JPEGimages/{name}.jpg,{name.split('/')[1]},1/2/1994,3/4/1999,{first},1,110,20,60,x,{first},{second}"
        for name, (first, second) in ATLAS.items()
    ]
    cases = read_source(write_atlas(tmp_path, "\n".join(lines))).cases.set_index("case_id")
    assert len(cases) == 8
    assert cases.loc["5012", "bone_age_months"] == 63.0


def test_a_listing_whose_last_columns_are_no_readings_is_refused(tmp_path: Path) -> None:
    lines = [f"JPEGimages/{name}.jpg,{first},{second},7,7" for name, (first, second) in ATLAS.items()]
    root = write_atlas(tmp_path, "\n".join(lines))
    with pytest.raises(SourceError, match="--columns reading_1=PLACE"):
        read_source(root, SourceOptions(columns={"reading_2": "5"}))
    source = read_source(root, SourceOptions(columns={"reading_1": "2", "reading_2": "3"}))
    assert len(source.cases) == 8


def test_missing_readings_contradictions_and_strays_are_named(tmp_path: Path) -> None:
    root = write_atlas(
        tmp_path,
        "id;reading 1;reading 2;sex;chronological age\n5012;5,5;;F;5,3\n5604;;;M;0,5\n4393;18;13;F;18\n"
        "3174;13;13;F;13\n3811;8,83;eight;F;9\n6120;2,5;2;M;9\n7777;3;3;F;3\n5012;5;5;F;5\n3555;11;12;F;11\n",
    )
    write_picture(root / "extra" / "1.jpg")
    source = read_source(root)
    assert source.cases["case_id"].tolist() == ["3555", "4393", "5012", "6120"]
    problems = {(row.case_id, row.reason) for row in source.problems.itertuples()}
    assert problems == {
        ("5604", "bad_bone_age"),
        ("3174", "sex_contradicted"),
        ("3811", "bad_bone_age"),
        ("7777", "missing_image"),
        ("5012", "duplicate_id"),
        ("3900", "missing_label"),
        ("1", "misplaced"),
    }
    notes = {(row.case_id, row.reason) for row in source.notes.itertuples()}
    assert notes == {("5012", "one_reader"), ("4393", "readers_disagree"), ("6120", "age_contradicted")}
    assert source.problems["detail"].str.startswith("readings.csv, line ").sum() == 5


def test_a_picture_in_two_formats_is_read_as_dicom(tmp_path: Path) -> None:
    root = write_atlas(tmp_path)
    write_dicom(root / "DICOM" / "ASIF" / "ASIF05" / "5012.dcm")
    source = read_source(root)
    assert source.cases.set_index("case_id").loc["5012", "file"] == "DICOM/ASIF/ASIF05/5012.dcm"
    assert source.problems.empty


def test_readings_in_months_are_refused_until_told(tmp_path: Path) -> None:
    rows = [f"{name.split('/')[-1]},{first * 12},{second * 12}" for name, (first, second) in ATLAS.items()]
    root = write_atlas(tmp_path, "\n".join(["id,reading1,reading2", *rows]))
    with pytest.raises(SourceError, match="look like months"):
        read_source(root)
    assert read_source(root, SourceOptions(unit="months")).cases["bone_age_months"].max() == 210


def test_folders_alone_are_no_bone_age(tmp_path: Path) -> None:
    (write_atlas(tmp_path) / "readings.csv").unlink()
    with pytest.raises(SourceError, match="not the bone age"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("JPEGimages/ASIF/ASIF05/5012.jpg", ("ASI", "female", 5)),
        ("hism/hism18/1.png", ("HIS", "male", 18)),
        ("BLKM/07/1.png", ("BLK", "male", 7)),
        ("ASIF05/5012.jpg", ("ASI", "female", 5)),
        ("ASIF/5012.jpg", None),
        ("5012.jpg", None),
        ("XXXF/XXXF05/1.jpg", None),
    ],
)
def test_folders_say_race_sex_and_age(file: str, expected: object) -> None:
    assert place(file) == expected


def test_a_faulty_row_leaves_its_picture_to_the_next_good_one(tmp_path: Path) -> None:
    root = write_atlas(tmp_path, "id,reading 1,reading 2\n5012,,\n5012,5,5\n5012,6,6\n5604,,\n")
    source = read_source(root)
    assert source.cases["bone_age_months"].tolist() == [60]
    assert source.problems["reason"].tolist()[:3] == ["bad_bone_age", "duplicate_id", "bad_bone_age"]
    assert source.problems["detail"][1].endswith("readings.csv, line 3 is used.")
    assert "5604" not in source.problems.loc[source.problems["reason"] == "missing_label", "case_id"].tolist()
