"""Phantoms: reproducible, monotone in bone age, in the RSNA layout, and bone age is in the bones alone."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from preprocessing.drawing.ossification import CARPALS, CENTRES, EPIPHYSES, Sex, maturity, shaft_growth, timetable
from preprocessing.phantom import Phantom, draw_phantom, write_phantoms

SEXES: tuple[Sex, Sex] = ("female", "male")


def phantom(months: float, sex: Sex = "male", *, seed: int = 5, bones_visible: bool = True) -> Phantom:
    rng = np.random.default_rng(seed)
    return draw_phantom(months, sex, rng, height=192, bones_visible=bones_visible)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "six"
    write_phantoms(out, num_cases=6, seed=3, num_workers=1)
    return out


def test_same_seed_writes_the_same_bytes_with_any_number_of_workers(written: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "again", num_cases=6, seed=3, num_workers=2)
    assert files(tmp_path / "again") == files(written)


def test_a_case_does_not_depend_on_how_many_follow(written: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "two", num_cases=2, seed=3, num_workers=1)
    few, many = files(tmp_path / "two"), files(written)
    images = [name for name in few if name.endswith(".png")]
    assert len(images) == 4
    assert all(few[name] == many[name] for name in images)


def test_another_seed_draws_other_hands(written: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "other", num_cases=1, seed=4, num_workers=1)
    name = "boneage-training-dataset/10001.png"
    assert files(tmp_path / "other")[name] != files(written)[name]


def test_layout_is_that_of_rsna(written: Path) -> None:
    with (written / "boneage-training-dataset.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "boneage", "male"]
    assert [row["male"] for row in rows] == ["False", "True"] * 3
    assert all(12 <= int(row["boneage"]) <= 216 for row in rows)
    poses = json.loads((written / "poses.json").read_text())
    for row in rows:
        image = cv2.imread(str(written / "boneage-training-dataset" / f"{row['id']}.png"), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(written / "masks" / f"{row['id']}.png"), cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert mask is not None
        assert image.dtype == np.uint8
        assert image.ndim == 2
        assert image.shape == mask.shape == (poses[row["id"]]["height"], poses[row["id"]]["width"])
        assert set(np.unique(mask)) == {0, 255}


def test_progress_counts_every_case(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_phantoms(tmp_path / "out", num_cases=2, seed=0, num_workers=1, progress=lambda *done: seen.append(done))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("sex", SEXES)
@pytest.mark.parametrize("centre", CENTRES)
def test_no_centre_ever_goes_back(centre: str, sex: Sex) -> None:
    states = [maturity(centre, sex, months) for months in np.arange(0, 240, 1.0)]
    for field in ("grown", "capped", "fused", "faded"):
        values = np.array([getattr(state, field) for state in states])
        assert (np.diff(values) >= 0).all(), field
        assert 0 <= values.min() <= values.max() <= 1, field


@pytest.mark.parametrize("centre", CENTRES)
def test_girls_are_ahead_of_boys(centre: str) -> None:
    girl, boy = timetable(centre, "female"), timetable(centre, "male")
    assert girl.appears < boy.appears
    assert girl.full < boy.full
    if girl.fused is not None and boy.fused is not None:
        assert girl.fused < boy.fused
    assert shaft_growth("female", 100) > shaft_growth("male", 100)


def test_fusion_follows_the_published_order() -> None:
    for sex in SEXES:
        fused = {centre: timetable(centre, sex).fused or 0.0 for centre in EPIPHYSES}
        assert fused["3_distal"] < fused["3_proximal"] <= fused["3_middle"] < fused["ulna"] < fused["radius"]
        appears = [
            timetable(centre, sex).appears for centre in ("capitate", "hamate", "triquetral", "lunate", "scaphoid")
        ]
        assert appears == sorted(appears)
        assert max(timetable(centre, sex).appears for centre in CARPALS) == timetable("sesamoid", sex).appears


@pytest.mark.parametrize("sex", SEXES)
def test_ossified_area_never_shrinks_with_bone_age(sex: Sex) -> None:
    areas = [int((phantom(months, sex).bones > 0).sum()) for months in range(12, 220, 12)]
    assert areas == sorted(areas)
    assert areas[-1] > 1.4 * areas[0]


def test_more_bone_is_ossified_in_a_girl_than_in_a_boy() -> None:
    girl, boy = (phantom(110, sex).bones > 0 for sex in SEXES)
    assert girl.sum() > boy.sum()


def test_mask_covers_every_bone_pixel() -> None:
    for seed in range(6):
        drawn = phantom(200, seed=seed)
        assert not (drawn.bones[drawn.mask == 0] > 0).any()
        bare = phantom(200, seed=seed, bones_visible=False)
        # Scatter reaches beyond the hand; a bone drawn outside its soft tissue would stand out far more.
        difference = cv2.absdiff(drawn.image, bare.image)[drawn.mask == 0]
        assert np.percentile(difference, 99.9) < 40


def test_bones_are_brighter_than_the_flesh_beside_them() -> None:
    drawn = phantom(150)
    flesh = (drawn.mask > 0) & (cv2.dilate(drawn.bones, np.ones((5, 5), np.uint8)) == 0)
    assert drawn.image[drawn.bones > 0].mean() > drawn.image[flesh].mean()


def test_all_but_the_bones_is_the_same_at_every_bone_age_and_sex() -> None:
    child, adult = phantom(20, "male", bones_visible=False), phantom(210, "female", bones_visible=False)
    np.testing.assert_array_equal(child.image, adult.image)
    np.testing.assert_array_equal(child.mask, adult.mask)
    assert child.pose == adult.pose


def test_landmarks_lie_on_the_hand() -> None:
    for seed in range(8):
        drawn = phantom(100, seed=seed)
        assert abs(drawn.pose["rotation_deg"]) <= 15
        for name, (x, y) in drawn.pose["landmarks"].items():
            near = drawn.mask[max(0, round(y) - 3) : round(y) + 4, max(0, round(x) - 3) : round(x) + 4]
            assert near.any(), (seed, name)


@pytest.mark.parametrize("months", [5.9, 229, float("nan")])
def test_refuses_a_bone_age_that_cannot_be_drawn(months: float) -> None:
    with pytest.raises(ValueError, match=r"6 to 228 months, got .*months\."):
        phantom(months)


def test_refuses_an_unknown_sex() -> None:
    with pytest.raises(ValueError, match=r"\"female\" or \"male\", got 'F'"):
        phantom(100, "F")  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("num_cases", 0), ("seed", -1), ("num_workers", 0)])
def test_refuses_a_bad_number(tmp_path: Path, name: str, value: int) -> None:
    arguments: dict[str, Any] = {"num_cases": 1, "seed": 0, "num_workers": 1, name: value}
    with pytest.raises(ValueError, match=rf"{name} must be at least \d, got {value}\. Give"):
        write_phantoms(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_refuses_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"new or empty folder, but .* is not\. Remove it or name another"):
        write_phantoms(tmp_path, num_cases=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
