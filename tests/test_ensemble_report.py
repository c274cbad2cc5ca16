"""The page: complete by itself, made of what belongs together, and safe with what comes from files."""

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from ensemble.combine import combine
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from ensemble.report import ReportError, render
from preprocessing.storage import write_json
from tests.ensemble_fixtures import SIZE, make_cohort, make_study


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run: cohort, study with every state, bundle, answer, page."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("report")
    cohort = make_cohort(root / "cohort", num_cases=34, num_test=10)
    study = make_study(root / "study", cohort, states=("complete", "stopped", "complete", "failed", "running"))
    registry = Registry(root / "registry")
    bundle = registry.resolve(registry.publish(combine(study).write).version)
    (prediction,) = Predictor(bundle).predict(np.zeros((1, 1, SIZE, SIZE), np.uint8), np.array([True]))
    answer = {
        "case_id": "<script>alert(1)</script>",
        "sex": "male",
        "bone_age_months_true": 126.0,
        "file": "hand.png",
        "image_png_base64": base64.b64encode(b"<script>alert(2)</script>").decode(),
        "answer": {
            "bone_age_months": prediction.bone_age_months,
            "bone_age": prediction.bone_age,
            "spread_months": prediction.spread_months,
            "distribution": [float(share) for share in prediction.distribution],
            "warnings": [{"code": warning.code, "message": warning.message} for warning in prediction.warnings],
            "version": bundle.version,
            "recipe": prediction.recipe,
            "request_id": "0123456789",
        },
    }
    write_json(root / "answer.json", answer)
    page = render(bundle, study=study, cohort=cohort, answer=root / "answer.json")
    return {"root": root, "bundle": bundle, "answer": answer, "page": page}


class Tags(HTMLParser):
    """Collects opening tags; checks that every one is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_has_its_sections(run):
    parsed = Tags(run["page"])
    assert parsed.open == []
    assert re.findall(r"<h2>(\d)\. ", run["page"]) == ["1", "2", "3", "4", "5", "6"]


def test_nothing_is_loaded_from_outside(run):
    for tag, attributes in Tags(run["page"]).tags:
        assert tag not in ("script", "link", "iframe")
        assert attributes.get("src", "data:").startswith("data:image/png;base64,") or "src" not in attributes
    assert "http://" not in run["page"]
    assert "https://" not in run["page"]
    assert "url(" not in run["page"].replace("url(#", "")  # a drawing's own parts


def test_text_from_files_cannot_become_markup(run):
    assert "<script" not in run["page"]
    assert "&lt;script&gt;alert(1)" in run["page"]


def test_every_trial_is_listed_with_its_state(run):
    for state in ("complete", "stopped", "failed", "running"):
        assert f">{state}<" in run["page"]
    assert run["page"].count("test_resnet") >= 5


def test_error_and_median_stand_beside_each_other_with_intervals(run):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", run["page"])).replace("&nbsp;", " ")
    assert re.search(r"this ensemble [\d.]+ months 95 % interval [\d.]+ to [\d.]+", text)
    assert re.search(r"median predictor [\d.]+ months 95 % interval [\d.]+ to [\d.]+", text)
    assert "optimistic" in text
    assert "Not for clinical use" in text


def test_the_answer_stands_in_words_beside_the_truth(run):
    assert run["answer"]["answer"]["bone_age"] in run["page"]
    assert "10 years 6 months" in run["page"]


def test_a_page_without_an_answer_closes_the_gap_in_the_numbers(run):
    root = run["root"]
    page = render(run["bundle"], study=root / "study", cohort=root / "cohort")
    assert re.findall(r"<h2>(\d)\. ", page) == ["1", "2", "3", "4", "5"]


def test_the_cohort_of_another_study_is_refused(run, tmp_path):
    other = make_cohort(tmp_path / "other", seed=1)
    with pytest.raises(ReportError, match="was trained on the cohort"):
        render(run["bundle"], study=run["root"] / "study", cohort=other)


def test_the_answer_of_another_version_is_refused(run, tmp_path):
    stale = {**run["answer"], "answer": {**run["answer"]["answer"], "version": "ens-000000000000"}}
    write_json(tmp_path / "answer.json", stale)
    root = run["root"]
    with pytest.raises(ReportError, match="Ask the service again"):
        render(run["bundle"], study=root / "study", cohort=root / "cohort", answer=tmp_path / "answer.json")


def test_an_answer_that_is_none_is_refused(run, tmp_path):
    write_json(tmp_path / "answer.json", [1, 2])
    root = run["root"]
    with pytest.raises(ReportError, match=r"no answer that python -m serve\.ask wrote"):
        render(run["bundle"], study=root / "study", cohort=root / "cohort", answer=tmp_path / "answer.json")


@pytest.mark.browser
def test_a_browser_shows_the_page_with_its_pictures(run, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(run["page"])
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        "--window-size=1000,3000", f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}",
    ]  # fmt: skip
    subprocess.run([chromium, *flags, page.as_uri()], check=True, capture_output=True, timeout=120)
    shown = cv2.imread(str(picture))
    assert shown.shape[:2] == (3000, 1000)
    assert shown.std() > 10
