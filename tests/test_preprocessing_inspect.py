"""Pages about a file: every step as it is taken, refusals too, and nothing that names a patient."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocessing.__main__ import main
from preprocessing.checks import CHECKS
from preprocessing.hand import warp, window_matrix
from preprocessing.inspection import course_page
from preprocessing.inspection_sheets import course_sheet
from preprocessing.recipe import VIEWS
from preprocessing.segmenter import SIDE, Maps, stretch
from preprocessing.steps import MEASURES, follow, header_facts
from tests.dicom_files import BIRTH, NAME, PATIENT, dicom
from tests.hands import hand, png, reader

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them


def noise() -> bytes:
    return png(np.random.default_rng(0).integers(0, 256, (200, 160)).astype(np.uint8))


def test_the_steps_stand_in_the_order_in_which_they_are_taken() -> None:
    course = follow(png(hand().image), reader(views=VIEWS), "hand.png")
    titles = [panel.title for panel in course.panels]
    assert titles == ["as decoded", "first look", "second look", "hand found", *VIEWS]
    assert course.refusal is None


def test_the_views_shown_are_those_that_models_get() -> None:
    data, by_recipe = png(hand(1, "turned", "inverted").image), reader(views=VIEWS)
    shown = [panel.picture[..., 0] for panel in follow(data, by_recipe, "").panels[-len(VIEWS) :]]
    np.testing.assert_array_equal(shown, by_recipe.read(data).pixels)


@pytest.mark.parametrize("variants", [(), ("turned",), ("right",)])
def test_the_second_look_shown_is_what_the_segmenter_saw(variants: tuple[str, ...]) -> None:
    by_recipe = reader(clip_percentiles=(0.5, 99.5))  # a reader of this test's own, since it is listened to
    segment, seen = by_recipe.segment, []
    assert segment is not None

    class Listener:
        def __call__(self, square_HW: np.ndarray) -> Maps:
            seen.append(square_HW)
            return segment(square_HW)

    by_recipe.segment = Listener()  # type: ignore[assignment]
    try:
        look = by_recipe.look(png(hand(2, *variants).image))
    finally:
        by_recipe.segment = segment
    assert look.hand is not None
    shown = stretch(warp(look.image_HW, window_matrix(look.hand.last, SIDE), SIDE))
    assert any(np.array_equal(shown, square_HW) for square_HW in seen[1:])


def test_every_check_has_its_line_with_score_and_words() -> None:
    course = follow(png(hand().image), reader(), "hand.png")
    assert [score.check for score in course.scores] == list(CHECKS)
    assert all(score.value is not None for score in course.scores)
    assert set(MEASURES) == {check.code for check in CHECKS}


def test_a_refused_picture_shows_the_steps_up_to_there_and_no_model_input() -> None:
    course = follow(noise(), reader(views=VIEWS), "noise.png")
    assert course.refusal is not None
    assert course.panels
    assert not set(VIEWS) & {panel.title for panel in course.panels}
    page = course_page(course)
    assert f"<code>{course.refusal.code}</code>" in page
    assert str(course.refusal) in page.replace("&#39;", "'")


@pytest.mark.parametrize("data", [b"", b"no picture at all", png(hand().image)[:3000]])
def test_a_file_that_cannot_be_decoded_gets_its_page_too(data: bytes) -> None:
    course = follow(data, reader(), "broken.png")
    assert course.refusal is not None
    assert course.panels == ()
    assert "No step was reached" in course_page(course)
    assert cv2.imdecode(np.frombuffer(course_sheet(course), np.uint8), cv2.IMREAD_COLOR) is not None


def test_nothing_that_names_a_patient_stands_on_the_page() -> None:
    course = follow(dicom(hand().image), reader(), "Quixotic_MRN-4711-XYZ.dcm")
    page = re.sub(r"data:image/png;base64,[^\"]+", "", course_page(course))
    for word in (*NAME.split("^"), PATIENT, BIRTH, "20200131", "2020-01-31", "1.2.3.4"):
        assert word not in page
    assert "<dd>female</dd>" in page
    assert "<dd>120 months</dd>" in page


def test_a_header_without_facts_says_so() -> None:
    bare = dicom(hand().image, PatientSex=None, StudyDate=None, Laterality=None)
    facts = dict(header_facts(reader().look(bare).header))
    assert [facts[name] for name in ("sex", "age at the study", "side", "spacing")] == ["not given"] * 4


def test_a_right_hand_by_the_header_is_a_finding() -> None:
    course = follow(dicom(hand().image, Laterality="R"), reader(), "")
    assert "contradiction" in [finding.code for finding in course.findings]


def test_the_page_is_one_file_that_runs_nothing() -> None:
    page = course_page(follow(png(hand().image), reader(views=VIEWS), "<img src=x onerror=alert(1)>.png"))
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "://" not in page
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', page))


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_the_command_writes_what_it_is_asked_for(tmp_path: Path, suffix: str) -> None:
    file, out = tmp_path / "hand.png", tmp_path / f"out{suffix}"
    file.write_bytes(png(hand().image))
    assert main(["inspect", str(file), str(out)]) == 0
    start = out.read_bytes()[:15]
    assert start.startswith(b"\x89PNG" if suffix == ".png" else b"<!doctype html>")


def test_the_command_answers_a_refusal_with_its_page_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "noise.png", tmp_path / "out.html"
    file.write_bytes(noise())
    assert main(["inspect", str(file), str(out)]) == 2
    assert "not_a_hand" in out.read_text()
    assert capsys.readouterr().err.startswith("preprocessing: The picture does not look like")


@pytest.mark.parametrize(
    ("target", "out", "words"),
    [("nothing.png", "a.html", "no .*nothing.png"), (".", "a.html", "no cohort.json"), ("x.png", "a.pdf", "end in")],
)
def test_a_wrong_path_gets_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, out: str, words: str
) -> None:
    assert main(["inspect", str(tmp_path / target), str(tmp_path / out)]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error)
    assert error.count("\n") == 1
    assert not (tmp_path / out).exists()
