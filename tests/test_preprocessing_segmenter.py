"""Learning to find hands: pairs, samples, weights and the command."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

from preprocessing import segmenter_training
from preprocessing.__main__ import main
from preprocessing.drawing.wrong import KINDS, draw_wrong_input
from preprocessing.phantom import write_phantoms
from preprocessing.pose import Pose
from preprocessing.recipe import SHIPPED
from preprocessing.segmenter import SIDE, Segmenter, SegmenterError, build, letterbox, load_network, save, stretch
from preprocessing.segmenter_pairs import Pair, TrainingError, overlap, read_pairs
from preprocessing.segmenter_samples import draw_sample
from preprocessing.segmenter_training import Training, split, train
from tests.hands import hand


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmenter") / "hands"
    write_phantoms(folder, num_cases=6, seed=3, num_workers=1)
    return folder


def pairs_of(folder: Path) -> list[Pair]:
    return read_pairs(folder / "boneage-training-dataset", folder / "masks")


def test_pairs_come_with_the_poses_beside_them(hands: Path) -> None:
    pairs = pairs_of(hands)
    assert len(pairs) == 6
    for pair in pairs:
        assert pair.pose is not None
        assert pair.pose.is_left
        assert max(pair.image_HW.shape) <= 320
        x, y = pair.pose.matrix() @ (0, 0.4, 1)  # the palm lies in the mask
        assert pair.mask_HW[round(y), round(x)] == 255


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    for name, size in (("images", 100), ("masks", 90)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), np.zeros((size, size), np.uint8))
    with pytest.raises(TrainingError, match="as large as its picture"):
        read_pairs(tmp_path / "images", tmp_path / "masks")


def pair_of_mask(folder: Path, mask: np.ndarray, suffix: str = ".png") -> Pair:
    for name, picture, end in (("images", hand(0).image, ".png"), ("masks", mask, suffix)):
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / f"a{end}"), picture)
    (pair,) = read_pairs(folder / "images", folder / "masks")
    return pair


@pytest.mark.parametrize("levels", [(1, 1), (1, 2), (100, 100), (255, 255), (1, 255), (1, 40_000)])
def test_any_level_but_0_is_hand(tmp_path: Path, levels: tuple[int, int]) -> None:
    is_hand = hand(0).mask > 127
    upper = np.arange(len(is_hand))[:, None] < len(is_hand) // 2
    drawn = np.where(is_hand, np.where(upper, *levels), 0).astype(np.uint16 if max(levels) > 255 else np.uint8)
    kept = pair_of_mask(tmp_path, drawn).mask_HW
    size = (kept.shape[1], kept.shape[0])
    plain = cv2.resize(np.where(is_hand, np.uint8(255), np.uint8(0)), size, interpolation=cv2.INTER_AREA)
    assert np.array_equal(kept > 0, plain > 127)


def test_what_jpeg_leaves_in_the_background_of_a_mask_is_no_hand(tmp_path: Path) -> None:
    is_hand = hand(0).mask > 127
    kept = pair_of_mask(tmp_path, np.where(is_hand, np.uint8(255), np.uint8(0)), ".jpg").mask_HW
    assert (kept > 0).mean() == pytest.approx(is_hand.mean(), rel=0.01)


@pytest.mark.parametrize("colour", [(4, 0, 0), (0, 1, 0), (0, 0, 1), (255, 255, 255, 255)])
def test_any_colour_of_a_mask_is_hand_and_what_is_transparent_is_not(colour: tuple[int, ...], tmp_path: Path) -> None:
    is_hand = hand(0).mask > 127
    drawn = np.zeros((*is_hand.shape, len(colour)), np.uint8)
    if len(colour) == 4:
        drawn[..., :3] = 255
    drawn[is_hand] = colour
    for name in "ab":
        (tmp_path / name).mkdir()
    kept = pair_of_mask(tmp_path / "a", drawn).mask_HW
    assert np.array_equal(kept, pair_of_mask(tmp_path / "b", is_hand.astype(np.uint8)).mask_HW)


@pytest.mark.parametrize(("level", "what"), [(0, "nothing"), (1, "all")])
def test_a_mask_without_hand_or_background_is_refused(level: int, what: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"in \w+\.png {what} is hand\. Draw it again"):
        pair_of_mask(tmp_path, np.full(hand(0).mask.shape, level, np.uint8))


def test_a_jpeg_of_a_dark_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"brightest of a\.jpg is \d+ of 255. Store it as PNG"):
        pair_of_mask(tmp_path, np.where(hand(0).mask > 127, np.uint8(40), np.uint8(0)), ".jpg")


def test_folders_that_share_no_name_are_refused(hands: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="share no picture"):
        read_pairs(hands / "masks", tmp_path)


def test_a_missing_folder_is_named(hands: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere must be a folder"):
        read_pairs(hands / "boneage-training-dataset", tmp_path / "nowhere")


def test_without_poses_training_from_the_beginning_is_refused() -> None:
    pair = Pair(hand(0).image, hand(0).mask, None)
    with pytest.raises(TrainingError, match=r"poses\.json"):
        train([pair, pair], Training(steps=1))


@pytest.mark.parametrize("seed", range(8))
def test_a_sample_is_drawn_by_its_seed_alone(hands: Path, seed: int) -> None:
    pairs = pairs_of(hands)
    one, other = (
        draw_sample(pairs, lambda rng: draw_wrong_input(KINDS[0], rng), np.random.default_rng(seed)) for _ in range(2)
    )
    assert np.array_equal(one.image_SS, other.image_SS)
    assert one.image_SS.shape == (SIDE, SIDE)
    assert not (one.mask_SS.any() and not one.is_hand)


def test_parts_held_out_are_not_learnt_from(hands: Path) -> None:
    pairs = pairs_of(hands)
    kept, held_out = split(pairs, Training(held_out=0.5))
    assert {id(pair) for pair in kept}.isdisjoint(id(pair) for pair in held_out)
    assert len(kept) + len(held_out) == len(pairs)


def test_weights_come_back_from_their_file(tmp_path: Path) -> None:
    shipped = Segmenter(SHIPPED)
    save(load_network(SHIPPED), tmp_path / "w.safetensors", {})
    square = np.rint(letterbox(stretch(hand(1).image))[0]).astype(np.uint8)
    assert np.array_equal(Segmenter(tmp_path / "w.safetensors")(square).mask_HW, shipped(square).mask_HW)


def test_the_shipped_weights_know_drawn_hands(hands: Path) -> None:
    assert min(overlap(Segmenter(SHIPPED), pairs_of(hands)).jaccard) > 0.85


def test_files_that_are_no_segmenter_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_bytes(b"no weights")
    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "other.safetensors")
    for name in ("missing", "text", "other"):
        with pytest.raises(SegmenterError, match=name):
            Segmenter(tmp_path / f"{name}.safetensors")


def test_weights_that_are_no_numbers_find_no_hand_and_are_refused(tmp_path: Path) -> None:
    network = load_network(SHIPPED)
    next(network.parameters()).data.fill_(float("nan"))
    save(network, tmp_path / "w.safetensors", {})
    with pytest.raises(SegmenterError, match=r"w\.safetensors must hold finite numbers"):
        load_network(tmp_path / "w.safetensors")


def test_a_pose_follows_its_picture_when_it_is_reduced() -> None:
    large = cv2.resize(hand(0).image, None, fx=4, fy=4)
    from preprocessing.segmenter_pairs import IMAGE_SIDE, reduced

    pair = reduced(large, large, Pose((400.0, 800.0), 600.0, 0.0, True, 0.0))
    assert pair.pose is not None
    scale = IMAGE_SIDE / max(large.shape)
    assert pair.pose.length == pytest.approx(600 * scale, rel=0.01)


@pytest.mark.slow
def test_the_command_learns_adapts_and_says_how_masks_lie(
    hands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights.safetensors"
    pictures, masks = hands / "boneage-training-dataset", hands / "masks"
    command = ["train-segmenter", pictures, masks, out, "--start", "shipped", "--adapt", pictures, "--steps", "2"]
    assert main([str(word) for word in command]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Jaccard median") == 4
    assert "round 3: learnt from 5 of 6 radiographs" in printed
    Segmenter(out)
    assert out.with_suffix(".csv").read_text().startswith("picture,jaccard,dice\n1000")


def test_a_round_that_makes_masks_worse_is_left_aside(
    hands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = iter([load_network(SHIPPED), build()])  # the second has learnt nothing
    monkeypatch.setattr(segmenter_training, "train", lambda *pairs, **how: next(taught).eval())
    out, pictures = tmp_path / "weights.safetensors", hands / "boneage-training-dataset"
    command = ["train-segmenter", pictures, hands / "masks", out, "--start", "shipped", "--adapt", pictures]
    assert main([str(word) for word in command]) == 0
    assert "round 1 is left aside" in capsys.readouterr().out
    assert overlap(Segmenter(out), read_pairs(pictures, hands / "masks")).jaccard[0] > 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.csv", "weights.safetensors"]


def test_masks_are_written_as_the_trainer_reads_them(hands: Path, tmp_path: Path) -> None:
    assert main(["find-hands", str(hands / "boneage-training-dataset"), str(tmp_path / "found")]) == 0
    pairs = read_pairs(hands / "boneage-training-dataset", tmp_path / "found" / "masks")
    assert len(pairs) == 6
    assert all(pair.pose for pair in pairs)
    assert (tmp_path / "found" / "sheet-1.png").exists()


def test_pictures_of_one_name_in_two_folders_keep_masks_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, folder in enumerate("ab"):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "pictures" / folder / "1.png"), hand(number).image)
    assert main(["find-hands", str(tmp_path / "pictures"), str(tmp_path / "found")]) == 0
    assert "2 hands found, 0 pictures without" in capsys.readouterr().out
    pairs = read_pairs(tmp_path / "pictures", tmp_path / "found" / "masks")
    assert [pair.name for pair in pairs] == ["a/1", "b/1"]
    assert all(pair.pose for pair in pairs)
    assert min(overlap(Segmenter(SHIPPED), pairs).jaccard) > 0.9


def test_pictures_that_differ_in_their_suffix_alone_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("1.png", "1.jpg"):
        cv2.imwrite(str(tmp_path / "pictures" / name), hand(0).image)
    assert main(["find-hands", str(tmp_path / "pictures"), str(tmp_path / "found")]) == 2
    assert "1.jpg and 1.png" in capsys.readouterr().err
    assert not (tmp_path / "found").exists()
