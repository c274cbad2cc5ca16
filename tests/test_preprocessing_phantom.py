"""Phantoms: reproducible, monotone in bone age, in the RSNA layout, and bone age is in the bones alone."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from preprocessing.__main__ import main
from preprocessing.drawing.ossification import CARPALS, CENTRES, EPIPHYSES, Sex, maturity, shaft_growth, timetable
from preprocessing.drawing.variants import VARIANTS
from preprocessing.drawing.wrong import KINDS
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


def varied(*variants: str, seed: int = 5, months: float = 150, bones_visible: bool = True) -> Phantom:
    rng = np.random.default_rng(seed)
    return draw_phantom(months, "male", rng, height=192, variants=variants, bones_visible=bones_visible)


def thumb_is_on_the_left(drawn: Phantom) -> bool:
    """In the hand's own frame, fingers up."""
    marks = drawn.pose["landmarks"]
    up = np.subtract(marks["middle_fingertip"], marks["wrist"])
    to_thumb = np.subtract(marks["1_proximal"], marks["5_proximal"])
    return bool(up[0] * to_thumb[1] - up[1] * to_thumb[0] < 0)


def test_without_variants_a_folder_holds_what_it_always_held(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "boneage-training-dataset",
        "boneage-training-dataset.csv",
        "masks",
        "poses.json",
    ]
    poses = json.loads((written / "poses.json").read_text())
    assert set(poses["10001"]) == {"height", "width", "rotation_deg", "pixels_per_mm", "landmarks"}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_alone_is_drawn_with_its_truth(name: str) -> None:
    for seed in range(3):
        drawn = varied(name, seed=seed)
        assert drawn.image.shape == drawn.mask.shape == drawn.bones.shape
        assert drawn.image.shape == (drawn.pose["height"], drawn.pose["width"])
        assert drawn.pose["variants"] == name
        assert drawn.pose["inverted"] == (name == "inverted")
        assert drawn.pose["side"] == {"right": "right", "pair": "both"}.get(name, "left")
        assert drawn.pose["hands"] == (2 if name == "pair" else 1)
        assert bool(drawn.pose["cut"]) == (name == "cut")
        assert (drawn.image.dtype == np.uint16) == (name == "deep") == (drawn.pose["bits"] > 8)
        assert not (drawn.bones[drawn.mask == 0] > 0).any()
        assert set(np.unique(drawn.mask)) == {0, 255}
        json.dumps(drawn.pose)


def test_all_variants_at_once_are_drawn_the_same_from_the_same_seed() -> None:
    first, second = varied(*VARIANTS), varied(*VARIANTS)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.pose == second.pose


@pytest.mark.parametrize("others", [(), ("posed", "turned"), ("framed", "deep"), ("inverted", "atlas")])
def test_a_right_hand_has_its_thumb_on_the_other_side(others: tuple[str, ...]) -> None:
    for seed in range(6):
        assert not thumb_is_on_the_left(varied(*others, seed=seed))
        assert thumb_is_on_the_left(varied("right", *others, seed=seed))


@pytest.mark.parametrize("variants", [("posed",), ("turned",), ("right", "turned"), ("framed", "posed"), ("atlas",)])
def test_rotation_is_that_of_the_landmarks(variants: tuple[str, ...]) -> None:
    for seed in range(6):
        pose = varied(*variants, seed=seed).pose
        # The base of the middle metacarpal lies straight above the wrist.
        x, y = np.subtract(pose["landmarks"]["3_metacarpal"], pose["landmarks"]["wrist"])
        assert abs((np.degrees(np.arctan2(x, -y)) - pose["rotation_deg"] + 180) % 360 - 180) < 6


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"cut", "framed"}))
def test_landmarks_of_a_variant_lie_on_the_hand(name: str) -> None:
    for seed in range(4):
        drawn = varied(name, "posed", seed=seed)
        for mark, (x, y) in drawn.pose["landmarks"].items():
            near = drawn.mask[max(0, round(y) - 3) : round(y) + 4, max(0, round(x) - 3) : round(x) + 4]
            assert near.any(), (seed, mark)


def test_what_is_cut_lies_outside_the_picture() -> None:
    seen = set()
    for seed in range(12):
        drawn = varied("cut", seed=seed)
        inside = {
            name: 0 <= x < drawn.pose["width"] and 0 <= y < drawn.pose["height"]
            for name, (x, y) in drawn.pose["landmarks"].items()
        }
        seen.add(drawn.pose["cut"])
        lost = {"fingers": "middle_fingertip", "wrist": "wrist"}.get(drawn.pose["cut"])
        assert not (inside[lost] if lost else all(inside.values()))
    assert seen == {"fingers", "wrist", "side"}


def test_a_pair_is_two_hands_apart_each_with_its_landmarks() -> None:
    for seed in range(4):
        marks = varied("pair", seed=seed).pose["landmarks"]
        first, second = marks["middle_fingertip"], marks["second_middle_fingertip"]
        assert abs(first[0] - second[0]) > 40
        assert marks["1_proximal"][0] > marks["5_proximal"][0]  # the left hand's thumb is on its right
        assert marks["second_1_proximal"][0] < marks["second_5_proximal"][0]


def test_inversion_is_the_last_step_and_exact() -> None:
    plain, inverted = varied("framed"), varied("framed", "inverted")
    np.testing.assert_allclose(inverted.image.astype(int), 255 - plain.image.astype(int), atol=1)


def test_a_deep_picture_holds_more_levels_than_eight_bits_can() -> None:
    seen = set()
    for seed in range(6):
        deep = varied("deep", seed=seed)
        seen.add(deep.pose["bits"])
        assert np.unique(deep.image).size > 400
        assert deep.image.max() <= 2 ** deep.pose["bits"] - 1
    assert seen == {12, 16}


def test_low_contrast_uses_few_levels_and_saturation_loses_some() -> None:
    for seed in range(4):
        faded = varied("low_contrast", seed=seed).image
        assert np.subtract(*np.percentile(faded, (98, 2)).astype(int)) < 75
        clipped = varied("saturated", seed=seed)
        ends = np.isin(clipped.image[clipped.mask > 0], (0, 255)).mean()
        assert ends > 0.05


def test_all_but_the_bones_of_a_variant_is_the_same_at_every_bone_age() -> None:
    for name in VARIANTS:
        child, adult = (varied(name, "posed", months=months, bones_visible=False) for months in (20, 210))
        np.testing.assert_array_equal(child.image, adult.image)
        np.testing.assert_array_equal(child.mask, adult.mask)
        assert child.pose == adult.pose


def test_ossified_area_never_shrinks_in_a_posed_hand() -> None:
    areas = [int((varied("posed", months=months).bones > 0).sum()) for months in range(12, 220, 16)]
    assert areas == sorted(areas)


def test_a_folder_with_variants_has_a_truth_table_and_wrong_inputs(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"num_cases": 6, "seed": 2, "variants": tuple(VARIANTS), "num_wrong": 3}
    write_phantoms(tmp_path / "one", num_workers=1, **arguments)
    write_phantoms(tmp_path / "two", num_workers=2, **arguments)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    with (tmp_path / "one" / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    poses = json.loads((tmp_path / "one" / "poses.json").read_text())
    assert [row["id"] for row in rows] == list(poses)
    for row in rows:
        image = cv2.imread(str(tmp_path / "one" / "boneage-training-dataset" / f"{row['id']}.png"), -1)
        assert image is not None
        assert image.dtype == (np.uint8 if row["bits"] == "8" else np.uint16)
        assert image.shape == (int(row["height"]), int(row["width"]))
        assert float(row["rotation_deg"]) == poses[row["id"]]["rotation_deg"]
    with (tmp_path / "one" / "wrong.csv").open(newline="") as file:
        wrong = list(csv.DictReader(file))
    assert [row["kind"] for row in wrong] == list(KINDS[:3])
    assert all((tmp_path / "one" / row["file"]).is_file() for row in wrong)


def test_refuses_an_unknown_variant(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"variants must be among posed, .*; got upside_down\. Name those\."):
        varied("upside_down")
    with pytest.raises(ValueError, match="got upside_down"):
        write_phantoms(tmp_path / "out", num_cases=1, seed=0, variants=("upside_down",))


def test_a_variant_may_have_a_share_of_its_own(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "plates", num_cases=4, seed=2, num_workers=1, variants=("atlas:1", "right:0"))
    truth = (tmp_path / "plates" / "truth.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in truth] == ["atlas"] * 4


@pytest.mark.parametrize("word", ["atlas:2", "atlas:", "atlas:all", "atlas:nan"])
def test_a_share_that_is_none_is_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"lies within 0..1, got {word}"):
        write_phantoms(tmp_path / "out", num_cases=1, seed=0, variants=(word,))


def test_the_command_draws_named_variants_and_wrong_inputs(tmp_path: Path) -> None:
    out = tmp_path / "hands"
    arguments = ["phantom", str(out), "--cases", "2", "--variants", "right,deep", "--wrong", "2"]
    assert main(arguments) == 0
    assert (out / "truth.csv").is_file()
    assert len(list((out / "wrong").iterdir())) == 2
    assert main(["phantom", str(tmp_path / "no"), "--variants", "sideways"]) == 2
