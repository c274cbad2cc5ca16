"""Labelled folders as people have them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocessing.sources import Source, SourceError, SourceOptions, read_rsna, read_source


def folder(path: Path, csv: bytes, *files: str) -> Path:
    for file in files:
        target = path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), np.eye(40, dtype=np.uint8))
    (path / "labels.CSV").write_bytes(csv)
    return path


def rows(source: Source) -> list[tuple[str, str, float]]:
    return list(source.cases[["case_id", "sex", "bone_age_months"]].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    "csv",
    [
        b"id,boneage,male\n7,100,True\n8,90,False\n",
        b"id,boneage,male,\n7,100,True,\n8,90,False,\n",
        b"id;boneage;male\n7;100;True\n8;90;False\n",
        b"id\tboneage\tmale\r\n7\t100\tTrue\r\n8\t90\tFalse\r\n",
        b"\xef\xbb\xbfid,boneage,male\n7,100,TRUE\n8,90,FALSE\n",
        b"Image ID,male,Bone Age (months)\n7,TRUE,100\n8,FALSE,90\n",
        b"id,boneage,sex\n7,100,M\n8,90,F\n",
        b"id,boneage,male\n7.png,100,1\n8.png,90,0\n",
        b'"id","boneage","male"\n"7"," 100","True "\n"8","90","False"\n',
    ],
)
def test_a_table_is_read_however_it_was_exported(csv: bytes, tmp_path: Path) -> None:
    source = read_rsna(folder(tmp_path, csv, "a/7.png", "b/8.PNG"))
    assert rows(source) == [("7", "male", 100.0), ("8", "female", 90.0)]
    assert source.problems.empty


def test_two_pictures_of_one_id_are_reported_and_neither_is_used(tmp_path: Path) -> None:
    source = read_rsna(folder(tmp_path, b"id,boneage,male\n7,100,True\n8,90,False\n", "7.png", "sub/7.png", "8.png"))
    assert rows(source) == [("8", "female", 90.0)]
    assert source.problems["reason"].tolist() == ["duplicate_image"]


def test_a_stray_table_beside_the_labels_is_passed_over(tmp_path: Path) -> None:
    root = folder(tmp_path, b"id,boneage,male\n7,100,True\n", "7.png")
    (root / "notes.csv").write_text("a,b\n1,2\n")
    (root / "empty.csv").write_text("")
    (root / "log.csv").write_text("x" * 200_000)
    assert len(read_rsna(root).cases) == 1


def test_the_error_names_the_columns_that_were_found(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"labels\.CSV \(id, age\)"):
        read_rsna(folder(tmp_path, b"id,age\n7,100\n", "7.png"))


def test_a_folder_that_is_itself_called_masks_is_read(tmp_path: Path) -> None:
    assert len(read_rsna(folder(tmp_path / "masks", b"id,boneage,male\n7,100,True\n", "7.png")).cases) == 1


def test_the_layout_and_its_table_can_be_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", b"id,boneage,male\n7,100,True\n", "7.png")
    (tmp_path / "better.csv").write_text("id,boneage,sex\n7,120,1\n")
    source = read_source(root, SourceOptions(layout="rsna", table=str(tmp_path / "better.csv")))
    assert rows(source) == [("7", "male", 120.0)]
