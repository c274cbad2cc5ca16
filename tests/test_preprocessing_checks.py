"""The quality gate: what is refused, repaired and warned of, by code."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from preprocessing import standardize
from preprocessing.checks import CHECKS
from preprocessing.drawing.wrong import KINDS, draw_wrong_input
from preprocessing.gate import Gate
from preprocessing.hand import Hand, find
from preprocessing.radiograph import RadiographError
from preprocessing.segmenter import Segmenter
from preprocessing.standardize import QUANTUM
from tests.hands import hand, likeness, png, reader


def refusal(image: np.ndarray) -> str:
    with pytest.raises(RadiographError) as caught:
        reader().read(png(image))
    return caught.value.code


def codes(image: np.ndarray) -> dict[str, str]:
    return {finding.code: finding.action for finding in reader().read(png(image)).findings}


def test_every_check_has_a_threshold_of_its_name() -> None:
    assert {check.code for check in CHECKS} == set(Gate.__dataclass_fields__)


def test_a_clean_hand_passes_without_repair() -> None:
    assert not {"inverted", "right_hand"} & set(codes(hand(1).image))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_hand_is_refused(kind: str) -> None:
    refused = [refusal(draw_wrong_input(kind, np.random.default_rng([5, i]), height=256)) for i in range(2)]
    assert set(refused) <= {"not_a_hand", "blank", "too_small", "two_hands", "cut_off", "low_contrast", "saturated"}


def test_a_blank_picture_is_refused() -> None:
    assert refusal(np.full((200, 200), 80, np.uint8)) == "blank"


def test_two_hands_are_refused() -> None:
    image = hand(2).image
    assert refusal(np.hstack([image, image[:, ::-1]])) in ("two_hands", "not_a_hand")


def test_a_hand_without_its_fingers_is_refused() -> None:
    phantom = hand(2)
    knuckle = int(
        phantom.pose["landmarks"]["middle_fingertip"][1] * 0.45 + phantom.pose["landmarks"]["wrist"][1] * 0.55
    )
    assert refusal(phantom.image[knuckle:]) in ("cut_off", "not_a_hand")


def test_a_tiny_hand_is_refused() -> None:
    assert refusal(cv2.resize(hand(1).image, (33, 40), interpolation=cv2.INTER_AREA)) in ("too_small", "not_a_hand")


def test_a_burnt_out_hand_is_refused() -> None:
    phantom = hand(1)
    assert refusal(np.where(phantom.mask > 0, 255, phantom.image // 3).astype(np.uint8)) in ("saturated", "not_a_hand")


def test_few_grey_levels_are_refused() -> None:
    assert refusal((100 + hand(1).image // 64).astype(np.uint8)) in ("low_contrast", "blank", "not_a_hand")


@pytest.mark.parametrize("seed", range(4))
def test_an_inverted_picture_is_repaired_to_the_same_pixels(seed: int) -> None:
    image = hand(seed).image
    assert codes(255 - image)["inverted"] == "repaired"
    upright, repaired = (reader().read(png(i)).pixels for i in (image, 255 - image))
    assert likeness(upright, repaired) > 0.97


@pytest.mark.parametrize(("negative", "says"), [(0.05, "repaired"), (0.84, None)])
def test_a_picture_that_looks_inverted_either_way_is_left_as_it_is(
    negative: float, says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a radiograph with faint bones: 0.65 as it is, 0.84 turned over."""

    def found(image_HW: np.ndarray, segment: Segmenter) -> Hand | None:
        score = 0.65 if image_HW[0, 0] == corner else negative
        there = find(image_HW, segment)
        return there and replace(there, inverted=(score, score))

    image = hand(1).image
    corner = int(image[0, 0]) * QUANTUM
    monkeypatch.setattr(standardize, "find", found)
    assert codes(image).get("inverted") == says
    plain, seen = (make.read(png(image)).pixels for make in (reader(repair_inversion=False), reader()))
    assert np.array_equal(plain, seen) == (says is None)


@pytest.mark.parametrize("seed", range(4))
def test_a_mirrored_hand_is_repaired_to_the_same_pixels(seed: int) -> None:
    image = hand(seed).image
    mirrored = np.ascontiguousarray(image[:, ::-1])
    aligned = reader(views=("crop",), align=True)
    reading = aligned.read(png(mirrored))
    assert ("right_hand", "repaired") in {(finding.code, finding.action) for finding in reading.findings}
    assert likeness(aligned.read(png(image)).pixels, reading.pixels) > 0.9


def test_a_lying_hand_is_reported() -> None:
    assert "rotated" in codes(np.ascontiguousarray(np.rot90(hand(1).image)))


def test_a_frame_is_reported() -> None:
    image = cv2.copyMakeBorder(hand(1).image, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=(170,))
    assert "framed" in codes(cv2.rectangle(image, (58, 58), (image.shape[1] - 58, image.shape[0] - 58), (255,), 3))


def test_every_score_is_told_also_of_what_passed() -> None:
    assert set(reader().read(png(hand(1).image)).scores) == {check.code for check in CHECKS}


def test_a_site_can_move_a_threshold() -> None:
    image = np.ascontiguousarray(np.rot90(hand(1).image))
    lenient = reader(gate=Gate(rotated=180.0)).read(png(image))
    assert "rotated" not in {finding.code for finding in lenient.findings}


def test_a_gate_that_is_off_still_refuses_where_no_hand_is_found() -> None:
    with pytest.raises(RadiographError, match="No part of the picture") as caught:
        reader(gate=Gate(not_a_hand=1.0, blank=0.0)).read(png(np.zeros((200, 160), np.uint8)))
    assert caught.value.code == "not_a_hand"


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_threshold_is_a_finite_number_of_0_or_more(value: float) -> None:
    with pytest.raises(ValueError, match="threshold blank must be a number"):
        Gate(blank=value)
