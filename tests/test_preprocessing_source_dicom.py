"""Folders of DICOM, and identifiers that must stay in them."""

import io
import logging
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing.__main__ import main
from preprocessing.dicom_identity import Identity
from preprocessing.dicom_patients import name_patients
from preprocessing.header import Header, hash_patient
from preprocessing.source import Source, SourceError, SourceOptions
from preprocessing.sources import read_salt, read_source
from tests.conftest import plain_recipe
from tests.dicom_files import BIRTH, DEFLATED, NAME, PATIENT, dicom
from tests.label_sources import picture, write_dicom, write_picture

SALT = b"a secret of this hospital"
SECRETS = (PATIENT, BIRTH, "Quixotic", "Zebedee", "1.2.826")


def told(source: Source) -> str:
    """Everything of a source that may be written down."""
    tables = (source.cases, source.problems, source.notes)
    return "".join(table.to_csv() for table in tables) + repr(source) + str(sorted(source.hidden))


def write(root: Path, table: str, count: int = 3, **elements: object) -> Path:
    for i in range(count):
        write_dicom(root / "scans" / f"{i}.dcm", i, **elements)
    (root / "labels.csv").write_text(table)
    return root


def test_facts_come_from_the_headers(tmp_path: Path) -> None:
    source = read_source(write(tmp_path, "id,boneage\n0,100\n1,110\n2,120\n"))
    assert source.layout == "dicom"
    assert source.cases["bone_age_months"].tolist() == [100, 110, 120]
    assert set(source.cases["sex"]) == {"female"}
    assert set(source.cases["side"]) == {"left"}
    assert source.cases["chronological_age_months"].round(1).tolist() == [120.0] * 3
    assert set(source.cases["patient"]) == {"patient-000001"}
    assert source.problems.empty


def test_an_age_of_the_table_outlives_a_birth_date_that_cannot_be(tmp_path: Path) -> None:
    table = "id,boneage,chronological_age_months\n0,100,110\n1,110,\n"
    source = read_source(write(tmp_path, table, 2, PatientBirthDate="19000101"))
    ages = source.cases.set_index("case_id")["chronological_age_months"]
    assert ages["0"] == 110
    assert pd.isna(ages["1"])
    assert source.notes.empty


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ("SOPInstanceUID", ["1.2.826.9.0", "1.2.826.9.1", "1.2.826.9.2"]),
        ("id", ["1.2.826.9.0", "1.2.826.9.1", "1.2.826.9.2"]),
        ("StudyInstanceUID", ["1.2.826.8.0", "1.2.826.8.1", "1.2.826.8.2"]),
        ("id", ["1.2.826.8.0", "1.2.826.8.1", "1.2.826.8.2"]),
        ("file", ["scans/0.dcm", "scans\\1.dcm", "2.dcm"]),
        ("id", ["0", "1.dcm", "2"]),
    ],
)
@pytest.mark.parametrize("salt", [b"", SALT])
def test_a_row_finds_its_file_and_no_identifier_is_kept(
    column: str, keys: list[str], salt: bytes, tmp_path: Path
) -> None:
    lines = "".join(f"{key},{100 + i}\n" for i, key in enumerate(keys))
    source = read_source(write(tmp_path, f"{column},boneage\n{lines}"), SourceOptions(salt=salt))
    assert sorted(source.cases["bone_age_months"]) == [100, 101, 102]
    assert not any(secret in told(source) for secret in SECRETS)


@pytest.mark.parametrize("column", ["patient", "id"])
def test_rows_by_patient_id_find_their_files(column: str, tmp_path: Path) -> None:
    for i in range(3):
        write_dicom(tmp_path / f"{i}.dcm", i, PatientID=f"MRN-000{i}")
    (tmp_path / "labels.csv").write_text(f"{column},boneage\nMRN-0001,50\nMRN-0002,60\nMRN-0000,70\n")
    source = read_source(tmp_path, SourceOptions(salt=SALT))
    assert source.cases.set_index("file")["bone_age_months"].to_dict() == {"0.dcm": 70, "1.dcm": 50, "2.dcm": 60}
    assert source.cases.set_index("file").loc["1.dcm", "patient"] == hash_patient(SALT, "MRN-0001")
    assert "MRN" not in told(source)


def test_a_private_mapping_translates_ids(tmp_path: Path) -> None:
    root = write(tmp_path / "dicom", "id,boneage\nC1,100\nC2,110\nC3,120\nC9,90\n")
    (tmp_path / "private.csv").write_text("sop,id\n1.2.826.9.0,C3\n1.2.826.9.1,C1\n1.2.826.9.2,C2\n1.2.826.9.7,C9\n")
    source = read_source(root, SourceOptions(mapping=str(tmp_path / "private.csv")))
    assert source.cases.set_index("case_id")["file"].to_dict() == {
        "C1": "scans/1.dcm",
        "C2": "scans/2.dcm",
        "C3": "scans/0.dcm",
    }
    assert source.problems["detail"].tolist() == ["labels.csv, line 5: No DICOM file has the row's id."]
    assert not any(secret in told(source) for secret in SECRETS)


def test_table_and_header_that_contradict_each_other_are_reported_by_row(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        f"id,boneage,sex,patient,chronological_age_months,side\n0,100,F,{PATIENT},120,left\n1,110,M,{PATIENT},120,left\n"
        f"2,120,F,MRN-0815,120,left\n3,130,F,{PATIENT},150,right\n4,99,F,{PATIENT},{BIRTH},left\n",
        count=5,
    )
    source = read_source(root)
    assert source.cases["case_id"].tolist() == ["0", "3", "4"]
    assert source.problems[["case_id", "reason"]].to_numpy().tolist() == [
        ["1", "sex_contradicted"],
        ["2", "patient_contradicted"],
    ]
    assert source.problems["detail"].str.startswith(("labels.csv, line 3: ", "labels.csv, line 4: ")).all()
    assert set(source.notes["reason"]) == {
        "age_contradicted",
        "side_contradicted",
        "right_hand",
        "bad_chronological_age",
    }
    assert source.cases.set_index("case_id").loc["3", "chronological_age_months"] == pytest.approx(120, abs=0.1)
    assert not any(secret in told(source) for secret in SECRETS)


def test_a_faulty_row_leaves_its_file_to_the_next_one(tmp_path: Path) -> None:
    root = write(tmp_path, "id,boneage,patient\n0,,Zoe\n0,100,Yve\n0,110,Yve\n1,120,Yve\n2,130,Zoe\n", PatientID=None)
    source = read_source(root)
    assert source.cases["bone_age_months"].tolist() == [100, 120, 130]
    assert groups(source) == [["0", "1"], ["2"]]  # by the row that is used
    assert source.problems[["reason", "detail"]].to_numpy().tolist() == [
        ["bad_bone_age", "labels.csv, line 2: boneage must be 0..239 months, got ''."],
        ["duplicate_id", "labels.csv, line 4: The file is labelled already, by labels.csv, line 3."],
    ]


def test_a_site_may_call_its_patients_otherwise_than_the_headers(tmp_path: Path) -> None:
    source = read_source(write(tmp_path, "id,boneage,patient\n0,100,P1\n1,110,P1\n2,120,P2\n"))
    assert len(source.cases) == 3


def test_files_named_after_their_patient_get_a_pseudonym_and_are_still_read(tmp_path: Path) -> None:
    lines = ["file,boneage"]
    for i in range(12):
        path = tmp_path / "dicom" / f"Quixotic_Zebedee_{BIRTH}" / f"{PATIENT}_{i}"
        write_dicom(path, i, PatientID=f"{PATIENT}_{i}")  # one patient's cases would share a fold
        lines.append(f"{PATIENT}_{i},{100 + i}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    out = tmp_path / "cohort"
    arguments = [
        "prepare",
        str(tmp_path / "dicom"),
        str(out),
        "--table",
        str(tmp_path / "labels.csv"),
        "--size",
        "64",
        "--recipe",
        str(plain_recipe(tmp_path)),
    ]
    assert main([*arguments, "--test", "0"]) == 0
    cases = pd.read_parquet(out / "cases.parquet")
    assert sorted(cases["bone_age_months"]) == list(range(100, 112))
    written = b"".join(path.read_bytes() for path in out.iterdir()).decode("latin-1") + cases.to_csv()
    assert not any(secret in written for secret in SECRETS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    around=st.tuples(st.sampled_from(["", "IM", "scan_", "2020-"]), st.sampled_from(["", "_1", ".v2", "hand"])),
    who=st.sampled_from([PATIENT, BIRTH, "2010-01-31", "Renée", "Li", "Grünwald", "孝", "1.2.826.9.7", "1.2.826.8.7"]),
    case=st.sampled_from([str, str.upper, str.lower]),
    form=st.sampled_from(["NFC", "NFD"]),
)
def test_no_spelling_of_an_identifier_stays_in_a_name(
    around: tuple[str, str], who: str, case: Callable[[str], str], form: Literal["NFC", "NFD"], tmp_path: Path
) -> None:
    separator = "-" if who == "Li" else ""  # so short a name counts as a word of its own
    name = unicodedata.normalize(form, around[0] + separator + case(who) + separator + around[1])
    path = tmp_path / "names" / f"{name}.dcm"
    write_dicom(path, 7, PatientName="Grünwald^Renée Li=孝", SpecificCharacterSet="ISO_IR 192")
    (path.parent / "labels.csv").write_text(f"file,boneage\n{path.name},100\n")
    source = read_source(path.parent)
    path.unlink()
    assert source.cases["file"].tolist() == ["dicom-000001.dcm"]
    assert source.cases["case_id"].tolist() == ["dicom-000001"]
    assert source.paths == [path.name]


def test_bad_files_are_reported_without_their_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    root = write(tmp_path, "id,boneage\n0,100\n1,110\n2,120\nZebedee,90\n")
    whole = dicom(picture())
    (root / "Zebedee.dcm").write_bytes(whole[:400])
    (root / "Quixotic.dcm").write_bytes(b"no DICOM at all")
    (root / "no_pixels").write_bytes(whole[:450])
    source = read_source(root)
    assert len(source.cases) == 3
    assert sorted(source.problems["reason"]) == ["missing_image", "unreadable", "unreadable", "unsupported_format"]
    assert not any(secret in told(source) + caplog.text for secret in SECRETS)


def test_several_files_of_one_study_are_not_guessed_at(tmp_path: Path) -> None:
    root = write(tmp_path, "study,boneage\n1.2.826.8.5,100\n", StudyInstanceUID="1.2.826.8.5")
    source = read_source(root)
    assert source.cases.empty
    assert source.problems["reason"].tolist() == ["duplicate_image"]


@pytest.mark.filterwarnings("ignore:The value")
def test_a_header_with_a_long_element_and_a_deflated_file_are_read(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", 1, ImageComments="x" * 600_000)
    (tmp_path / "b.dcm").write_bytes(dicom(picture(2), DEFLATED))
    (tmp_path / "labels.csv").write_text("id,boneage\na,100\nb,110\n")
    assert read_source(tmp_path).cases["sex"].tolist() == ["female", "female"]


def test_files_of_one_name_in_several_folders_stay_apart(tmp_path: Path) -> None:
    for i in range(3):
        write_dicom(tmp_path / f"series{i}" / "IM0001", i)
    (tmp_path / "labels.csv").write_text("sop,boneage\n1.2.826.9.0,90\n1.2.826.9.1,100\n1.2.826.9.2,110\n")
    assert read_source(tmp_path).cases["case_id"].tolist() == [f"series{i}/IM0001" for i in range(3)]


def test_sex_is_needed_from_one_of_the_two(tmp_path: Path) -> None:
    root = write(tmp_path, "id,boneage,sex\n0,100,F\n1,110,\n2,100,boy\n", PatientSex=None)
    source = read_source(root)
    assert source.cases["sex"].tolist() == ["female", "male"]
    assert source.problems["reason"].tolist() == ["missing_sex"]


def test_a_short_salt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARPAL_SALT", "pepper")
    with pytest.raises(SourceError, match=r"16 bytes or more.*has 6"):
        read_salt()
    (tmp_path / "salt").write_bytes(SALT + b"\n")
    assert read_salt(str(tmp_path / "salt")) == SALT
    monkeypatch.setenv("CARPAL_SALT", SALT.decode())
    assert read_salt() == SALT
    assert SALT.decode() not in repr(SourceOptions(salt=SALT))


def test_pictures_beside_dicom_are_read_as_before(tmp_path: Path) -> None:
    write_dicom(tmp_path / "1.dcm", 1)
    write_picture(tmp_path / "2.png", 2)
    (tmp_path / "labels.csv").write_text("id,boneage,male\n1,100,False\n2,110,True\n")
    source = read_source(tmp_path)
    assert (source.layout, len(source.cases)) == ("rsna", 2)


def test_the_name_in_the_files_of_these_tests_is_there_to_be_found() -> None:
    assert NAME.encode() in io.BytesIO(dicom(picture())).getvalue()


TWO_PATIENTS = "id,boneage,patient\n0,100,Zoe\n1,110,Zoe\n2,120,Yve\n3,120,Yve\n"


def groups(source: Source) -> list[list[str]]:
    """Case ids that share a patient, in order."""
    return source.cases.groupby("patient", sort=False)["case_id"].agg(list).tolist()


@pytest.mark.parametrize("salt", [b"", SALT])
@pytest.mark.parametrize(
    ("ids", "notes"),
    [([None] * 4, 0), (["a", "b", "c", "d"], 4), (["a", "a", "b", "b"], 0), (["anonymous"] * 4, 4)],
    ids=["no id", "an id a study", "ids of their own", "one id for all"],
)
def test_cases_of_one_patient_in_the_table_stay_together(
    ids: list[str | None], notes: int, salt: bytes, tmp_path: Path
) -> None:
    for i, patient in enumerate(ids):
        write_dicom(tmp_path / f"{i}.dcm", i, PatientID=patient)
    (tmp_path / "labels.csv").write_text(TWO_PATIENTS)
    source = read_source(tmp_path, SourceOptions(salt=salt))
    assert groups(source) == [["0", "1"], ["2", "3"]]
    assert source.notes["reason"].tolist() == ["patients_disagree"] * notes
    assert not any(word in told(source) for word in ("Zoe", "Yve"))


def test_cases_of_one_patient_by_header_or_table_are_joined_in_chains(tmp_path: Path) -> None:
    for i, patient in enumerate(["a", "a", "b", None, "c"]):
        write_dicom(tmp_path / f"{i}.dcm", i, PatientID=patient)
    (tmp_path / "labels.csv").write_text("id,boneage,patient\n0,90,\n1,100,Zoe\n2,110,Zoe\n3,120,Zoe\n4,130,Yve\n")
    source = read_source(tmp_path)
    assert groups(source) == [["0", "1", "2", "3"], ["4"]]
    assert source.notes["case_id"].tolist() == ["0", "1", "2", "3"]
    assert "all 4 files" in source.notes["detail"][0]


def names_of(files: list[tuple[str, str]], salt: bytes) -> list[str]:
    """Names of the patients of files, each with an id in its header and the table's word."""
    headers = {
        i: (Header(patient_hash=hash_patient(salt, patient) if patient else None), Identity(patient=patient))
        for i, (patient, _) in enumerate(files)
    }
    return list(name_patients(headers, {i: word for i, (_, word) in enumerate(files)}, salt=salt)[0].values())


@given(st.lists(st.tuples(st.sampled_from(["", *"abcdef"]), st.sampled_from(["", *"uvwxyz"])), max_size=14))
def test_files_are_one_patient_s_where_ids_and_words_lead_from_one_to_the_other(files: list[tuple[str, str]]) -> None:
    if len({patient for patient, _ in files} - {""}) == 1:
        files.append(("g", ""))  # an id that all headers have in common tells nobody apart
    together = [{i} for i in range(len(files))]
    for _ in files:  # each round one step further
        together = [
            {j for i in known for j, other in enumerate(files) if j == i or shared(files[i], other)}
            for known in together
        ]
    for salt in (b"", SALT):
        found = names_of(files, salt)
        assert [bool(name) for name in found] == [any(file) for file in files]
        named = [i for i in range(len(files)) if found[i]]
        assert all((found[i] == found[j]) == (j in together[i]) for i in named for j in named)


def shared(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return any(mine and mine == theirs for mine, theirs in zip(one, other, strict=True))


def test_a_patient_of_many_files_takes_no_longer_than_many_patients() -> None:
    begin = time.process_time()
    assert len(set(names_of([(f"p{i}", "study") for i in range(16_000)], b""))) == 1
    assert time.process_time() - begin < 5  # where each file went through all of the patient's names: 20 s


def test_a_table_of_the_site_s_own_hashes_names_patients_as_their_headers_do(tmp_path: Path) -> None:
    hashes = [hash_patient(SALT, patient, issuer="HOSPITAL") for patient in "abcdef"]
    for i, patient in enumerate("abcdef"):
        write_dicom(tmp_path / f"{i}.dcm", i, PatientID=patient, IssuerOfPatientID="HOSPITAL")
    rows = "".join(f"{i},{90 + i},{told}\n" for i, told in enumerate(hashes))
    (tmp_path / "labels.csv").write_text(f"id,boneage,patient\n{rows}")
    source = read_source(tmp_path, SourceOptions(salt=SALT))
    assert source.cases["patient"].tolist() == hashes
    assert source.notes.empty


def test_nothing_is_noted_of_a_patient_of_one_file(tmp_path: Path) -> None:
    for i, patient in enumerate("ab"):
        write_dicom(tmp_path / f"{i}.dcm", i, PatientID=patient)
    write_picture(tmp_path / "2.png", 2)
    (tmp_path / "labels.csv").write_text("id,boneage,male,patient\n0,90,0,a\n1,100,0,c\n2,110,0,\n")
    assert read_source(tmp_path).notes.empty


@pytest.mark.parametrize("salt", [b"", SALT])
def test_a_patient_id_is_the_same_with_and_without_an_issuer(salt: bytes, tmp_path: Path) -> None:
    for i, issuer in enumerate(["HOSPITAL", "", "HOSPITAL"]):
        write_dicom(tmp_path / f"{i}.dcm", i, IssuerOfPatientID=issuer)
    for i, issuer in enumerate(["HOSPITAL", "PRACTICE"], start=3):
        write_dicom(tmp_path / f"{i}.dcm", i, PatientID="b", IssuerOfPatientID=issuer)
    (tmp_path / "labels.csv").write_text("id,boneage\n" + "".join(f"{i},{90 + i}\n" for i in range(5)))
    source = read_source(tmp_path, SourceOptions(salt=salt))
    assert groups(source) == [["0", "1", "2"], ["3"], ["4"]]
    assert not salt or source.cases["patient"][1] == hash_patient(salt, PATIENT, issuer="HOSPITAL")


def test_an_id_that_boys_and_girls_have_is_noted(tmp_path: Path) -> None:
    for i, sex in enumerate("MFM"):
        write_dicom(tmp_path / f"{i}.dcm", i, PatientID="anonymous", PatientSex=sex)
    (tmp_path / "labels.csv").write_text("id,boneage\n0,100\n1,110\n2,120\n")
    source = read_source(tmp_path)
    assert source.notes["reason"].tolist() == ["patient_of_both_sexes"] * 3
    assert "all 3 cases" in source.notes["detail"][0]


def test_dicom_without_suffixes_is_recognised_by_its_table_too(tmp_path: Path) -> None:
    for i in range(2):
        write_dicom(tmp_path / f"IM{i}", i)
    (tmp_path / "labels.csv").write_text("id,boneage\nIM0,90\nIM1,100\n")
    assert read_source(tmp_path / "labels.csv").cases.equals(read_source(tmp_path).cases)


@pytest.mark.parametrize("layout", ["auto", "dicom"])
def test_the_table_of_a_folder_of_dicom_stands_for_the_folder(layout: str, tmp_path: Path) -> None:
    for i in range(4):
        write_dicom(tmp_path / f"Quixotic_{i}.dcm", i, PatientID=f"MRN-{i // 2}")
    lines = "".join(f"Quixotic_{i},{100 + i},F\n" for i in range(4))
    (tmp_path / "labels.csv").write_text(f"id,boneage,sex\n{lines}")
    (tmp_path / "other.csv").write_text(f"id,boneage,sex\n{lines}")  # the one that is named counts
    source = read_source(tmp_path / "labels.csv", SourceOptions(layout=layout))
    assert (source.layout, source.folder) == ("dicom", tmp_path)
    assert source.cases["patient"].tolist() == ["patient-000001"] * 2 + ["patient-000002"] * 2
    assert not any(secret in told(source) for secret in ("Quixotic", "MRN"))
    assert source.paths == [f"Quixotic_{i}.dcm" for i in range(4)]


@pytest.mark.parametrize("salt", [b"", SALT])
@pytest.mark.parametrize(
    ("table", "together", "notes"),
    [
        ("id,boneage,male\n0,90,0\n1,100,0\n2,110,0\n3,120,0\n", [["0", "1"], ["2"]], 0),
        ("id,boneage,male,patient\n0,90,0,\n1,100,0,Zoe\n2,110,0,Zoe\n3,120,0,Zoe\n", [["0", "1", "2", "3"]], 4),
    ],
    ids=["rsna", "table"],
)
def test_dicom_among_pictures_is_grouped_by_its_header_too(
    table: str, together: list[list[str]], notes: int, salt: bytes, tmp_path: Path
) -> None:
    for i, patient in enumerate(["a", "a", "b"]):
        write_dicom(tmp_path / f"{i}.dcm", i, PatientID=patient)
    write_picture(tmp_path / "3.png", 3)
    (tmp_path / "labels.csv").write_text(table)
    source = read_source(tmp_path, SourceOptions(salt=salt))
    assert [ids for ids in groups(source) if ids != ["3"]] == together
    assert source.notes["reason"].tolist() == ["patients_disagree"] * notes


def test_dicom_of_the_atlas_is_grouped_by_its_header_too(tmp_path: Path) -> None:
    for i in range(3):
        write_dicom(tmp_path / "ASIF" / "ASIF05" / f"{i}.dcm", i)
    (tmp_path / "readings.csv").write_text("id,reading 1,reading 2\n0,5,5\n1,5,5.5\n2,5,6\n")
    source = read_source(tmp_path)
    assert source.layout == "atlas"
    assert source.cases["patient"].tolist() == ["patient-000001"] * 3
