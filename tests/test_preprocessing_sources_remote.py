"""The same folders on a store that is no disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
from upath import UPath

from preprocessing.sources import read_source
from tests.label_sources import write_atlas, write_dicom, write_picture


def rsna(root: Path) -> None:
    write_picture(root / "pictures" / "1.png")
    (root / "labels.csv").write_text("id,boneage,male\n1,100,True\n")


def atlas(root: Path) -> None:
    write_atlas(root)


def table(root: Path) -> None:
    write_picture(root / "pictures" / "1.png")
    (root / "labels.csv").write_text("image,bone age (years),sex\n1.png,8,M\n")


def dicom(root: Path) -> None:
    write_dicom(root / "series" / "IM1")
    (root / "labels.csv").write_text("sop,bone age (months)\n1.2.826.9.0,100\n")


@pytest.mark.parametrize("write", [rsna, atlas, table, dicom])
def test_every_layout_is_read_alike_from_a_remote_store(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    there = UPath(f"memory://{write.__name__}-sources")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            target = there.joinpath(*path.relative_to(tmp_path).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    here, far = read_source(tmp_path), read_source(str(there))
    assert far.layout == here.layout == write.__name__
    assert far.cases.equals(here.cases)
    assert len(far.cases) > 0
    assert far.problems.equals(here.problems)
    assert all((far.folder / path).read_bytes() for path in far.paths)
