"""Any table with named columns, and pictures wherever they lie."""

import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.__main__ import main
from preprocessing.columns import parse_columns
from preprocessing.labels import number
from preprocessing.source import Source, SourceError, SourceOptions
from preprocessing.sources import read_source
from tests.conftest import plain_recipe
from tests.label_sources import write_picture

OPTIONS = {"patient": "child", "chronological_age_years": "age at exam", "sex": "Geschlecht"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for i in range(1, 7):
        write_picture(root / "scans" / f"{i}.png", i)
    return root


def read(root: Path, table: bytes, **options: object) -> Source:
    (root.parent / "labels.csv").write_bytes(table)
    return read_source(root, SourceOptions(table=str(root.parent / "labels.csv"), **options))  # type: ignore[arg-type]


def test_named_columns_units_and_decimal_commas(pictures: Path) -> None:
    source = read(
        pictures,
        "Bild;Knochenalter;Geschlecht;child;age at exam;Hand\n"
        "scans/1.png;8,5;F;K7;8,25;L\n"
        "scans\\2.png;12;m;K7;;left\n"
        "3.png;15,75;f;;16;\n".encode("cp1252"),
        columns=OPTIONS | {"image": "Bild", "bone_age_years": "Knochenalter"},
    )
    assert source.layout == "table"
    assert source.cases["case_id"].tolist() == ["3", "scans/1", "scans/2"]
    assert source.cases["bone_age_months"].tolist() == [189.0, 102.0, 144.0]
    assert source.cases["patient"].tolist() == ["", "K7", "K7"]
    assert source.cases["chronological_age_months"].tolist()[:2] == [192.0, 99.0]
    assert np.isnan(source.cases["chronological_age_months"][2])
    assert source.cases["side"].tolist() == ["", "left", "left"]
    assert source.cases["file"].tolist() == ["scans/3.png", "scans/1.png", "scans/2.png"]
    assert set(source.problems["reason"]) == {"missing_label"}


def test_every_bad_row_is_named_by_its_line_and_stops_no_other(pictures: Path) -> None:
    source = read(
        pictures,
        b"id,boneage,sex,patient,side\n1,100,M,a,L\n2,,F,b,L\n3,300,F,c,L\n4,90,2,d,L\n1,100,M,a,L\n99,90,F,e,L\n"
        b",90,F,f,L\n5,90,F,g,R\n6,9,0,F,h,L\n7,90,F,i,sideways\n",
    )
    assert source.cases["case_id"].tolist() == ["1", "5"]
    found = {row.detail.split(":")[0]: row.reason for row in source.problems.itertuples()}
    assert found == {
        "labels.csv, line 3": "bad_bone_age",
        "labels.csv, line 4": "bad_bone_age",
        "labels.csv, line 5": "bad_sex",
        "labels.csv, line 6": "duplicate_id",
        "labels.csv, line 7": "missing_image",
        "labels.csv, line 8": "missing_id",
        "labels.csv, line 10": "bad_row",
        "labels.csv, line 11": "missing_image",
        "The picture has no row in labels.csv.": "missing_label",
    }
    assert source.notes["reason"].tolist() == ["right_hand"]


def test_a_faulty_row_leaves_its_picture_to_the_next_good_one(pictures: Path) -> None:
    rows = ("1,,scans/1.png", "1,100,scans/1.png", "1,110,scans/1.png", "2,300,", "7,,scans/3.png", "8,120,scans/3.png")
    source = read(pictures, ("id,boneage,image,sex\n" + "".join(f"{row},F\n" for row in rows)).encode())
    assert source.cases.set_index("case_id")["bone_age_months"].to_dict() == {"1": 100, "8": 120}
    found = source.problems[source.problems["reason"] != "missing_label"]
    assert found["reason"].tolist() == ["bad_bone_age", "duplicate_id", "bad_bone_age", "bad_bone_age"]
    assert found["detail"].iloc[1].endswith("The id stands in more than one row; labels.csv, line 3 is used.")
    assert source.problems.loc[source.problems["reason"] == "missing_label", "case_id"].tolist() == ["4", "5", "6"]


@pytest.mark.parametrize(
    ("ages", "unit", "match"),
    [
        ([8.5, 12, 17], None, "look like years.*--unit years"),
        ([8.5, 12, 17], "months", "largest of 3 values in 'boneage' is 17"),
        ([100, 120, 140], "years", "look like months.*--unit months"),
    ],
)
def test_a_column_in_another_unit_is_refused(pictures: Path, ages: list[float], unit: str, match: str) -> None:
    table = "id,boneage,male\n" + "".join(f"{i},{age},True\n" for i, age in enumerate(ages, start=1))
    with pytest.raises(SourceError, match=match):
        read(pictures, table.encode(), unit=unit)


def test_the_unit_can_be_trusted_and_told(pictures: Path) -> None:
    table = b"id,boneage,male\n1,8,True\n2,12,True\n3,17,True\n"
    assert read(pictures, table, trust_unit=True).cases["bone_age_months"].tolist() == [8, 12, 17]
    assert read(pictures, table, unit="years").cases["bone_age_months"].tolist() == [96, 144, 204]
    with pytest.raises(SourceError, match=r"in months by the name of its column 'Bone age \(months\)'"):
        read(pictures, table.replace(b"boneage", b"Bone age (months)"), unit="years")


def test_two_columns_that_could_be_meant_are_not_guessed_at(pictures: Path) -> None:
    table = b"id,case id,boneage,male\n1,7,100,True\n"
    with pytest.raises(SourceError, match="--columns id=NAME"):
        read(pictures, table)
    assert len(read(pictures, table, columns={"id": "id"}).cases) == 1


def test_a_missing_column_is_named_with_those_there_are(pictures: Path) -> None:
    with pytest.raises(SourceError, match=r"bone_age_months.*'id', 'male'"):
        read(pictures, b"id,male\n1,True\n")
    with pytest.raises(SourceError, match="no column 'months' for bone_age"):
        read(pictures, b"id,male\n1,True\n", columns={"bone_age": "months"})


@pytest.mark.parametrize(
    ("boy", "girl"), [("1", "0"), ("0", "1"), ("1", "2"), ("1.0", "2.0"), ("01", "02"), ("True", "False"), ("M", "0")]
)
@pytest.mark.parametrize("more", ["", ",side"])
def test_a_sex_in_digits_is_refused_with_the_way_to_say_it(boy: str, girl: str, more: str, tmp_path: Path) -> None:
    for i in range(2):
        write_picture(tmp_path / f"{i}.png", i)
    (tmp_path / "labels.csv").write_text(
        f"id,boneage,Sex{more}\n0,100,{boy}{more and ',L'}\n1,110,{girl}{more and ',L'}\n"
    )
    with pytest.raises(SourceError, match=r"'Sex' holds .*--columns is_male=Sex; else write M and F"):
        read_source(tmp_path)
    if "2" in girl:
        with pytest.raises(SourceError, match="else write M and F"):
            read_source(tmp_path, SourceOptions(layout="rsna"))
    else:
        for options in (SourceOptions(layout="rsna"), SourceOptions(columns={"is_male": "sex"})):
            assert read_source(tmp_path, options).cases["is_male"].tolist() == [boy in ("1", "True", "M"), girl == "1"]


@pytest.mark.parametrize("cell", ["../secret.png", "/etc/hand.png", "C:\\hand.png"])
def test_a_picture_outside_the_folder_is_refused(cell: str, pictures: Path) -> None:
    source = read(pictures, f"image,boneage,male\n{cell},100,True\nscans/1.png,100,True\n".encode())
    assert source.problems["reason"].tolist()[0] == "outside_folder"
    assert len(source.cases) == 1


def test_patients_are_hashed_where_the_site_has_a_salt(pictures: Path) -> None:
    table = b"id,boneage,male,patient\n1,100,True,ann\n2,100,True,ann\n3,100,True,bob\n"
    patients = read(pictures, table, salt=b"0123456789abcdef").cases["patient"]
    assert len(set(patients)) == 2
    assert patients[0] == patients[1]
    assert patients.str.fullmatch("[0-9a-f]{64}").all()


def test_a_table_beside_its_pictures_is_a_source_of_its_own(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png")
    frame = pd.DataFrame({"id": [1], "bone_age_months": [30.0], "sex": ["F"], "chronological_age_months": [31]})
    frame.to_parquet(tmp_path / "labels.parquet")
    for path in (tmp_path, tmp_path / "labels.parquet"):
        source = read_source(path)
        assert source.layout == "table"
        assert source.cases["chronological_age_months"].tolist() == [31.0]


@settings(max_examples=200, deadline=None)
@given(st.decimals(0, 239, places=3), st.sampled_from(".,"), st.sampled_from(["", " ", "0", "00"]))
def test_a_number_is_read_with_either_decimal_sign(value: object, sign: str, before: str) -> None:
    assert number(before + str(value).replace(".", sign)) == pytest.approx(float(str(value)))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=20))
def test_no_text_breaks_the_reading_of_numbers(text: str) -> None:
    value = number(text)
    assert value is None or np.isfinite(value)


IDS = st.one_of(
    st.sampled_from(["1", "2", "3", "4.0", "5.png", "6", "", "nan", "1.2E+15", "99999999999999999999999999"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
AGES = st.one_of(st.integers(0, 239).map(str), st.sampled_from(["100", "8,5", "1e400", "-1", "240", "NaN", "old", ""]))
SEXES = st.sampled_from(["True", "False", "1", "0", "M", "f", "boy", "", "2", "?"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(IDS, AGES, SEXES), max_size=12), st.sampled_from(",;\t|"))
def test_each_row_becomes_a_case_or_a_problem(pictures: Path, rows: list[tuple[str, str, str]], separator: str) -> None:
    lines = [separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    table = "\n".join([separator.join(["id", "boneage", "male"]), *lines]).encode()
    source = read(pictures, table, trust_unit=True)
    of_rows = source.problems[source.problems["reason"] != "missing_label"]
    expected = sum(any(cell.replace("\xa0", " ").strip() for cell in row) for row in rows)
    assert len(source.cases) + len(of_rows) == expected
    assert source.cases["case_id"].is_unique
    assert source.cases["file"].is_unique
    assert source.cases["bone_age_months"].between(0, 239).all()
    assert of_rows["detail"].str.match(r"labels\.csv, line \d+: ").all()


def test_columns_from_the_command_line() -> None:
    assert parse_columns(["id=a,bone_age=b c", '"sex=x,y"']) == {"id": "a", "bone_age": "b c", "sex": "x,y"}
    for word in ("id", "id=", "age=a"):
        with pytest.raises(SourceError, match="ROLE=NAME"):
            parse_columns([word])
    with pytest.raises(SourceError, match="two for id"):
        parse_columns(["id=a", "id=b"])


def test_prepare_takes_a_table_and_keeps_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["image,years,gender,who"]
    for i in range(12):
        write_picture(tmp_path / "pictures" / f"a{i}.png", i)
        lines.append(f"a{i}.png,{3 + i},{'MF'[i % 2]},p{i // 2}")
    (tmp_path / "t.csv").write_text("\n".join([*lines, "gone.png,7,F,p9"]))
    words = ["--table", str(tmp_path / "t.csv"), "--columns", "bone_age_years=years,patient=who"]
    out = tmp_path / "cohort"
    arguments = [
        "prepare",
        str(tmp_path / "pictures"),
        str(out),
        "--size",
        "64",
        "--recipe",
        str(plain_recipe(tmp_path)),
        "--test",
        "0",
        *words,
    ]
    assert main(arguments) == 0, capsys.readouterr().err
    cases = pd.read_parquet(out / "cases.parquet")
    assert cases["patient"].tolist()[:2] == ["p0", "p0"]
    assert cases["bone_age_months"].min() == 36
    assert "line 14" in (out / "rejected.csv").read_text()


def test_accents_and_suffixes_need_not_be_written_alike(tmp_path: Path) -> None:
    write_picture(tmp_path / "p" / unicodedata.normalize("NFD", "bébé.JPG"), 1)
    write_picture(tmp_path / "p" / "b.png", 2)
    source = read(tmp_path / "p", "image,boneage,male\nbébé.png,100,True\np/b.jpeg,90,True\n".encode())
    assert source.problems.empty
    assert set(source.cases["bone_age_months"]) == {100, 90}
