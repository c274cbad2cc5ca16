"""The stress test: alterations are what they say, and figures are paired."""

import json
import shutil
import subprocess
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from ensemble.alterations import dicom, png8, png16, suite
from ensemble.chronology import Norms
from ensemble.material import levels, material
from ensemble.prediction import Prediction
from ensemble.stress import StressError, stress
from ensemble.stress_report import examples, table_csv, table_text, write
from ensemble.subjects import Answer, Query, bundle_subject
from preprocessing.header import Header
from preprocessing.limits import MAX_BYTES
from preprocessing.radiograph import RadiographError, decode
from preprocessing.source import Source, problem_table
from preprocessing.standardize import Reading

SUITE = suite()
BY_NAME = {f"{alteration.family}: {alteration.level}": alteration for alteration in SUITE}


def source(folder, months=(60, 100, 140)) -> Source:
    """Pictures whose brightness is their bone age."""
    folder.mkdir(exist_ok=True)
    rows = []
    for index, age in enumerate(months):
        image = np.full((96, 80), age, np.uint8)
        image[:20, :20] = 0  # something to turn and to flip
        cv2.imwrite(str(folder / f"{index}.png"), image)
        rows.append(
            {
                "case_id": str(index),
                "sex": "male",
                "is_male": True,
                "bone_age_months": float(age),
                "chronological_age_months": np.nan,
                "file": f"{index}.png",
            }
        )
    return Source(folder, pd.DataFrame(rows), problem_table([]))


def by_brightness(queries):
    """Reads the brightness, adds a year where the sex is missing, refuses what is no picture."""
    answers = []
    for query in queries:
        sex = query.sex
        try:
            image = decode(query.data)
        except RadiographError as error:
            answers.append(Answer(None, reason=error.code))
            continue
        months = float(np.median(image)) * 255 / np.iinfo(image.dtype).max + (12 if sex is None else 0)
        answers.append(Answer(months, (months - 20, months + 20), warnings=("sex_unknown",) if sex is None else ()))
    return answers


def of(report, name):
    (row,) = [row for row in report["alterations"] if f"{row['family']}: {row['level']}" == name]
    return row


def test_every_alteration_has_a_name_of_its_own_and_gives_a_file_that_depends_on_the_seed_alone(tmp_path):
    assert len(BY_NAME) == len(SUITE) > 90
    image = np.random.default_rng(0).random((96, 80)).astype(np.float32)
    for alteration in SUITE:
        before = image.copy()
        one, other = (alteration.file(png8(image), image, np.random.default_rng(5)) for _ in range(2))
        assert one == other, alteration
        assert (image == before).all(), alteration
        if alteration.level != "not a picture":
            assert decode(one).ndim == 2


def test_an_inverted_file_whose_header_says_so_is_the_same_picture():
    image = np.linspace(0, 1, 96 * 96, dtype=np.float32).reshape(96, 96)
    plain, rightly, wrongly = (
        decode(BY_NAME[f"{name}"].file(b"", image, np.random.default_rng(0))).astype(float)
        for name in ("metadata: spacing 1.0 mm", "inversion: MONOCHROME1, rightly", "inversion: MONOCHROME1, wrongly")
    )
    assert np.abs(plain - rightly).max() <= plain.max() / 4000
    assert np.corrcoef(plain.ravel(), wrongly.ravel())[0, 1] < -0.99


def test_a_turn_by_a_right_angle_loses_nothing():
    image = np.random.default_rng(0).random((48, 40)).astype(np.float32)
    turned = decode(BY_NAME["rotation: +90°"].file(b"", image, np.random.default_rng(0)))
    np.testing.assert_array_equal(np.rot90(turned, -1), np.rint(65535 * image).astype(np.uint16))


@pytest.mark.parametrize("paper", ["printed page", "slide"])
def test_on_an_atlas_plate_the_film_is_whole_and_the_words_are_beside_it(paper):
    image = np.full((300, 240), 0.5, np.float32)
    page = decode(BY_NAME[f"atlas plate: {paper}"].file(b"", image, np.random.default_rng(0))) / 257
    rows, columns = (np.flatnonzero((np.abs(page - 127.5) < 2).mean(axis=axis) > 0.5) for axis in (1, 0))
    assert (len(rows), len(columns)) == pytest.approx((300, 240), abs=40)  # less the letter of lead and the frame
    margin = page.copy()
    margin[rows[0] - 2 : rows[-1] + 3, columns[0] - 2 : columns[-1] + 3] = page[-1, -1]
    below = margin[rows[-1] + 3 :] != page[-1, -1]
    assert 0.01 < below.mean() < 0.3


def test_the_change_of_error_is_that_of_the_same_cases(tmp_path):
    chosen = [BY_NAME[name] for name in ("brightness: × 1.25", "metadata: sex missing", "flip: both")]
    report = stress(by_brightness, source(tmp_path), chosen)
    assert report["clean"]["mae_months"] == pytest.approx(0, abs=0.01)
    assert of(report, "brightness: × 1.25")["shift_months"] == pytest.approx(25, abs=0.5)
    missing = of(report, "metadata: sex missing")
    assert (missing["mae_change_months"], missing["warned"]) == (12, 1)
    assert of(report, "flip: both")["mae_change_months"] == 0


@pytest.mark.parametrize("num_cases", [9, 10])
def test_a_mean_of_fewer_than_10_cases_has_no_interval_and_is_drawn_without(tmp_path, num_cases):
    cases, chosen = source(tmp_path / "in", range(60, 60 + num_cases)), [BY_NAME["brightness: × 1.25"]]
    report = {"subject": "x", **stress(by_brightness, cases, chosen)}
    (row,) = report["alterations"]
    write(report, cases, chosen, tmp_path / "out")
    is_few = num_cases < 10
    for ends in (report["clean"]["mae_ci95"], row["mae_change_ci95"], row["shift_ci95"]):
        assert (ends is None) == is_few
    html = (tmp_path / "out" / "stress.html").read_text()
    for text in (table_text(report), html):
        assert ("a mean of fewer than 10 cases has no interval" in text.lower()) == is_few
    assert (f"{row['mae_change_months']:+.2f} (-)" in table_text(report)) == is_few
    assert (",,," in table_csv(report)) == is_few


def test_a_refusal_is_counted_with_its_reason_and_not_as_an_error(tmp_path):
    report = stress(by_brightness, source(tmp_path), [BY_NAME["wrong input: not a picture"]])
    row = of(report, "wrong input: not a picture")
    assert (row["rejected"], row["reasons"]) == (1, {"unsupported_format": 3})
    assert "mae_change_months" not in row


def test_one_picture_in_any_file_is_altered_alike():
    image = cv2.GaussianBlur(np.random.default_rng(0).random((96, 80)).astype(np.float32), (0, 0), 6)
    image = 0.1 + 0.8 * (image - image.min()) / (image.max() - image.min())  # near 0 a gamma magnifies the rounding
    files = {"8 bit": png8(image), "12 in 16": png16(image, 4095), "DICOM": dicom(image, bits=12), "16": png16(image)}
    for name, file in files.items():
        held = levels(file)
        assert len(np.unique(held)) == len(np.unique(decode(file))), name
        for alteration in SUITE:
            if alteration.is_wrong or alteration.family == "noise":
                continue
            ours, best = (
                levels(alteration.file(data, levels(data), np.random.default_rng(1))) for data in (file, files["16"])
            )
            limit = 0.1 if alteration.family == "compression" else 0.012  # JPEG may round a block the other way
            assert np.abs(ours - best).max() < limit, (name, alteration)
        if name != "8 bit":
            turned = levels(BY_NAME["flip: both"].file(file, held, np.random.default_rng(0)))
            assert len(np.unique(turned)) == len(np.unique(held)), name


def test_a_case_as_it_is_is_the_file_itself(tmp_path):
    sent = []

    def subject(queries):
        sent.append([query.data for query in queries])
        return by_brightness(queries)

    cases = source(tmp_path)
    stress(subject, cases, [BY_NAME["metadata: sex missing"], BY_NAME["flip: both"]])
    for number, (clean, missing, flipped) in enumerate(sent):
        assert clean == missing == (tmp_path / f"{number}.png").read_bytes() != flipped


def test_a_case_without_a_picture_is_counted_as_refused_with_its_code(tmp_path):
    cases = source(tmp_path)
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "2.png").unlink()
    report = stress(by_brightness, cases, [BY_NAME["flip: both"]])
    assert (report["n"], report["undecoded"], report["clean"]["answered"]) == (3, 2, 1)
    assert report["clean"]["reasons"] == {"unreadable": 2}
    assert of(report, "flip: both")["asked"] == 1
    assert "66.7% refused, 0.0% failed (2 x unreadable)" in table_text({"subject": "x", **report})


def test_a_file_that_is_too_large_is_read_in_part_and_asked_of_nobody(tmp_path):
    cases, sent = source(tmp_path), []

    def subject(queries):
        sent.extend(queries)
        return by_brightness(queries)

    with (tmp_path / "0.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(8 * MAX_BYTES)  # takes no place on the disk
    tracemalloc.start()
    try:
        report = stress(subject, cases, [BY_NAME["flip: both"]])
        material(cases, np.arange(3))
        examples(cases, [BY_NAME["flip: both"]])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report["clean"]["reasons"] == {"too_large": 1}
    assert len(sent) == 4
    assert peak < 4 * MAX_BYTES  # what is read grows in steps


AGES = [BY_NAME[f"metadata: chronological age {what}"] for what in ("permuted", "absent")]


def by_age(queries):
    """Says the chronological age that it is told, else 100 months."""
    said = [query.chronological_age_months for query in queries]
    return [Answer(100.0 if age is None else age) for age in said]


def test_a_system_that_says_the_chronological_age_is_right_until_it_is_told_anothers_or_none(tmp_path):
    report = stress(by_age, source(tmp_path), AGES)
    permuted, absent = report["alterations"]
    assert (report["clean"]["mae_months"], report["stated_ages"]) == (0, {"of_source": 0, "of_reference": 3})
    assert permuted["mae_change_months"] == pytest.approx(160 / 3, abs=1e-3)  # each has another's, whichever way round
    assert absent["mae_change_months"] == pytest.approx(80 / 3, abs=1e-3)
    assert (permuted["marks"], absent["marks"]) == ("!!!", "!.!")
    assert "of 3 the reference bone age stands in" in table_text({"subject": "x", **report})
    unaware = stress(by_brightness, source(tmp_path), AGES)
    assert [row["mae_change_months"] for row in unaware["alterations"]] == [0, 0]


def test_the_age_of_the_source_is_stated_where_it_is_that_of_a_child(tmp_path):
    cases, said = source(tmp_path), []
    cases.cases["chronological_age_months"] = [70.5, np.nan, 1000.0]

    def subject(queries):
        said.append([query.chronological_age_months for query in queries])
        return by_age(queries)

    report = stress(subject, cases, AGES)
    assert [clean for clean, _, _ in said] == [70.5, 100, 140]
    assert sorted(anothers for _, anothers, _ in said) == [70.5, 100, 140]
    assert report["stated_ages"] == {"of_source": 1, "of_reference": 2}


def test_no_age_is_stated_to_a_system_that_has_no_place_for_it(tmp_path):
    said = []

    def subject(queries):
        said.extend(query.chronological_age_months for query in queries)
        return by_brightness(queries)

    flip = [BY_NAME["flip: both"]]
    assert stress(subject, source(tmp_path), flip, states_age=False)["stated_ages"] is None
    assert said == [None] * 6
    with pytest.raises(StressError, match="permuted needs an age that is stated"):
        stress(subject, source(tmp_path), AGES, states_age=False)


@pytest.mark.parametrize("num_cases", [0, -1])
def test_fewer_than_one_case_is_not_drawn(tmp_path, num_cases):
    with pytest.raises(ValueError, match=f"1 or more, got {num_cases}"):
        stress(by_brightness, source(tmp_path), [BY_NAME["flip: both"]], num_cases=num_cases)


def test_one_case_has_no_other_whose_age_it_could_be_given(tmp_path):
    with pytest.raises(StressError, match="permuted needs 2 cases or more, got 1"):
        stress(by_age, source(tmp_path), AGES, num_cases=1)


class Stub:
    """A predictor of files whose header says 5 years, with the warnings that it is given."""

    of_5_years = Reading(np.zeros((1, 8, 8), np.uint8), (), Header(chronological_age_months=60.0))
    reader = SimpleNamespace(read=lambda data: Stub.of_5_years)

    def predict(self, pixels, is_male, warnings):
        return [Prediction(100.0, 1.0, np.zeros(240), "ens-x", "r", "b", "c", warnings=found) for found in warnings]


def test_a_bundle_is_told_the_age_as_the_service_tells_it(monkeypatch):
    beside = []
    monkeypatch.setattr(Prediction, "beside", lambda self, age, sex: beside.append((age, sex)) or self)
    right, wrong, none = bundle_subject(Stub())([Query(b"x", "male", age) for age in (60.0, 200.0, None)])
    assert (right.warnings, wrong.warnings, none.warnings) == ((), ("contradiction",), ())
    assert beside == [(60.0, "male"), (200.0, "male")]


def test_errors_are_significant_by_the_norms_that_are_given(tmp_path):
    def late(queries):
        return [Answer(float(np.median(decode(query.data))) + 20) for query in queries]

    narrow, wide = (Norms({"male": ((12.0, 12.0, sd), (204.0, 204.0, sd))}, "of the test") for sd in (2.0, 40.0))
    flip = [BY_NAME["metadata: sex missing"]]
    few, many = (stress(late, source(tmp_path), flip, norms=norms) for norms in (wide, narrow))
    assert (few["clean"]["significant_errors"], many["clean"]["significant_errors"]) == (0, 3)
    assert (few["alterations"][0]["marks"], many["alterations"][0]["marks"]) == ("...", "!!!")
    assert few["norms"].startswith("of the test")


def test_a_crash_is_no_refusal(tmp_path):
    def subject(queries):
        return [Answer(100.0), Answer(None, reason="not_a_hand"), Answer(None, reason="http_500", is_failure=True)]

    chosen = [BY_NAME["wrong input: chest"], BY_NAME["wrong input: skull"]]
    report = stress(subject, source(tmp_path), chosen)
    refused, failed = report["alterations"]
    assert (refused["rejected"], refused["failed"], failed["rejected"], failed["failed"]) == (1, 0, 0, 1)
    assert failed["reasons"] == {"http_500": 3}
    assert "failed" in table_csv({"subject": "x", **report}).splitlines()[0]


def test_the_material_is_named_by_labels_and_pictures(tmp_path):
    cases = source(tmp_path)
    rows = np.arange(3)
    named = material(cases, rows)
    assert (named["name"], named["num_cases"]) == (tmp_path.name, 3)
    assert material(cases, rows[::-1]) == named
    (tmp_path / "1.png").write_bytes(b"another")
    assert material(cases, rows)["cases_sha256"] != named["cases_sha256"]


def test_cases_of_which_none_is_answered_are_refused(tmp_path):
    with pytest.raises(StressError, match="answered as it is"):
        stress(lambda queries: [Answer(None, reason="no") for _ in queries], source(tmp_path), [BY_NAME["flip: both"]])


def test_table_drawing_and_page_are_written_for_every_alteration(tmp_path):
    cases, chosen = source(tmp_path / "in"), [BY_NAME["flip: both"], BY_NAME["wrong input: chest"]]
    report = {"subject": "x", **stress(by_brightness, cases, chosen)}
    write(report, cases, chosen, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"stress.csv", "stress.png", "stress.html"}
    html = (tmp_path / "out" / "stress.html").read_text()
    assert "flip: both" in html
    assert "http" not in html.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert len(table_csv(report).splitlines()) == 3
    assert "wrong input: chest" in table_text(report)
    json.dumps(report, allow_nan=False)


@pytest.mark.browser
def test_a_browser_of_1300_pixels_shows_every_column_of_the_page(tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    cases = source(tmp_path / "cases")
    report = stress(by_brightness, cases, SUITE) | {"subject": "a stub"}
    for row in report["alterations"]:
        if "mae_change_months" in row:  # the widest that are met
            row |= {"mae_change_months": -12.3, "mae_change_ci95": [-14.2, -10.3], "shift_months": -23.4}
            row["significant_errors"] |= {"before": 100, "after": 100, "p_holm": 0.01}
    write(report, cases, SUITE[:1], tmp_path / "out")
    html = (tmp_path / "out" / "stress.html").read_text()
    # the page's policy lets no script run; in this copy one measures
    measure = "const box = document.querySelector('.scroll'); document.title = box.scrollWidth - box.clientWidth;"
    page = tmp_path / "page.html"
    page.write_text(html.replace("default-src 'none'; ", "").replace("</main>", f"</main><script>{measure}</script>"))
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        "--window-size=1300,3000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
    ]  # fmt: skip
    ran = subprocess.run([chromium, *flags, page.as_uri()], check=True, capture_output=True, timeout=120, text=True)
    assert "<title>0</title>" in ran.stdout
