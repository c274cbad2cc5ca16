"""Card and page of a bundle: written when it is built, hashed with it, and about nothing but its own evidence."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch

from ensemble.__main__ import main
from ensemble.bundle import OOF_FILE, Bundle, BundleError
from ensemble.combine import combine
from ensemble.documents import selection_scores, write_documents
from ensemble.monitors import of_words, read_monitors
from ensemble.registry import Registry
from ensemble.report import render
from ensemble.site import SiteCalibration
from preprocessing.page import signed
from search.metrics import BAND_YEARS
from serve.protocol import describe
from tests.ensemble_fixtures import make_cohort, make_student, make_study

EVIDENCE = ("oof.parquet", "pareto.csv", "monitors.json", "locked_cases.json")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("documents")
    make_study(root / "study", make_cohort(root / "cohort", num_cases=90, num_test=10))
    return root


@pytest.fixture(scope="module")
def bundle(folders):
    registry = Registry(folders / "registry")
    return registry.resolve(registry.publish(combine(folders / "study").write).version)


def test_a_bundle_holds_its_card_its_page_and_its_front_and_answers_for_every_byte(bundle, tmp_path):
    names = {"card.md", "report.html", *(f"evidence/{name}" for name in EVIDENCE)}
    assert set(bundle.manifest["files"]) == names
    for name in names:
        path = bundle.file(name)
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        with pytest.raises(BundleError, match="was changed"):
            Bundle.load(bundle.folder)
        path.write_bytes(content)


def test_the_same_study_gives_the_same_card_and_page(folders, bundle, tmp_path):
    assert combine(folders / "study").write(tmp_path) == bundle.version


def test_the_page_needs_nothing_else_and_shows_no_radiograph(bundle):
    page = bundle.file("report.html").read_text()
    assert not re.search(r"<script|<img|data:image", page)
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    found = bundle.manifest["evidence"]["bias_corrected_mae_months"]["value"]
    assert f"{found:.2f}" in page
    for word in (
        "optimistic, not to be quoted",
        "best single trial",
        "equal weights",
        "Clinically significant",
        "BBC-CV",
    ):
        assert word in page, word


def test_the_page_counts_every_band_of_the_cases_out_of_fold(bundle):
    cases = pd.read_parquet(bundle.file("evidence/oof.parquet"))
    bands = cases.groupby(["is_male", cases["bone_age_months"] // (12 * BAND_YEARS)]).size()
    page = bundle.file("report.html").read_text()
    table = page[page.index("By sex and bone age") : page.index("Intervals</h3>")]
    assert table.count("<tr>") == 1 + len(bands)
    assert len(re.findall(r'<td class="n[^"]*">\d+\xa0%</td>', table)) == len(bands)
    assert table.count("<td>\N{EN DASH}</td>") == (bands < 10).sum() > 0
    assert "A mean of fewer than 10 cases has no interval." in table


def test_what_is_optimistic_is_hollow_and_has_no_interval(bundle):
    rows = selection_scores(bundle.manifest["evidence"])
    (hollow,) = [row for row in rows if row["kind"] == "hollow"]
    assert hollow["ci95"] is None
    assert all(row["ci95"][0] <= row["value"] <= row["ci95"][1] for row in rows if row["kind"] != "hollow")
    assert sum(row["name"].endswith(", chosen") for row in rows) == 1


def test_a_bundle_calibrated_to_a_site_has_documents_of_its_own(bundle, tmp_path):
    fitted = json.loads(json.dumps(bundle.manifest["calibration"]))
    line = {sex: {"offset_months": 2.0, "slope": 0.0} for sex in ("female", "male")}
    evidence = {"n": 321, "gain_ci95": [0.1, 0.2]}
    fitted["site"] = {"name": "north", "parent": bundle.version, "correction": line, "evidence": evidence}
    cases = pd.read_parquet(bundle.file(OOF_FILE))
    monitors = {"sex": of_words({"female": 200, "male": 121})}
    SiteCalibration(bundle, {"full": fitted}, None, monitors, cases).write(tmp_path)
    site = Bundle.load(tmp_path)
    assert read_monitors(site) == monitors != read_monitors(bundle)
    assert f"the site north, on 321 of its cases, from {bundle.version}" in site.file("card.md").read_text()
    assert "on its own 321 cases" in site.file("report.html").read_text()
    assert "the site" not in bundle.file("card.md").read_text()


def test_without_a_corrected_score_there_is_no_front_and_the_page_says_so(folders, tmp_path):
    made = combine(folders / "study")
    few = {"bias_corrected_mae_months": None}
    left = {
        name: value
        for name, value in made.evidence.items()
        if name not in ("bias_corrected_by_method", "gain_over_best_single")
    }
    replace(made, evidence=left | few).write(tmp_path)
    bundle = Bundle.load(tmp_path)
    assert "evidence/pareto.csv" not in bundle.manifest["files"]
    assert "no error can be corrected" in re.sub(r"\s+", " ", bundle.file("report.html").read_text())


def test_a_student_is_no_member_of_the_ensemble(folders, tmp_path, capsys):
    taught = replace(
        combine(folders / "study", method="equal"), student=make_student(tmp_path / "s", folders / "cohort")
    )
    registry = Registry(tmp_path / "registry")
    bundle = registry.resolve(registry.publish(taught.write).version)
    assert [bool(member.weight) for member in bundle.members] == [True, True, True, False]
    page = re.sub(r"\s+", " ", bundle.file("report.html").read_text())
    assert "3 members, chosen and weighed" in page
    assert "study, distilled, trial 0 (test_resnet, 2 folds" in page
    start = page.index("correlation of errors")
    table = page[start : page.index("</table>", start)]
    assert table.count("<th class") == len(bundle.manifest["evidence"]["error_correlation"]) == 3
    card = bundle.file("card.md").read_text()
    assert card.count("| study | ") == 1 + 3  # the head of the table, and its rows
    assert "study, distilled, trial 0 (test_resnet, 2 fold models" in card
    assert "is no member of the ensemble" in card
    assert main(["show", f"{registry.path}@{bundle.version}"]) == 0
    shown = capsys.readouterr().out
    assert "0.000" not in shown
    assert "student      study, distilled 0, for the profile fast alone: 2 folds, test_resnet" in shown
    assert registry.versions()[0]["members"] == describe(bundle, {})["members"] == 3
    run = render(bundle, study=folders / "study", cohort=folders / "cohort")
    of_members = run[run.index("3. The ensemble") : run.index("What the selection is worth")]
    assert of_members.count("<tr><td") == 3
    assert "Trial 0 was distilled anew" in of_members


@pytest.fixture
def corrected(tmp_path, monkeypatch):
    """A bundle whose members say 10 months too much, which it corrects."""
    monkeypatch.setattr("tests.ensemble_fixtures.NUM_FOLDS", 3)  # of two, each holds one sex alone
    make_study(tmp_path / "study", make_cohort(tmp_path / "cohort", num_cases=160), bias=10.0)
    combine(tmp_path / "study", method="equal").write(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.manifest["calibration"]["bias"]["correction"]
    return bundle


def answers(page: str) -> str:
    page = re.sub(r"\s+", " ", page.replace("&nbsp;", " "))
    return page[page.index("3. Answers out of fold") : page.index("Intervals</h3>")]


def test_the_page_and_the_card_speak_of_the_answers_after_the_correction_that_is_served(corrected):
    found = corrected.manifest["calibration"]["bias"]["evidence"]
    cases = pd.read_parquet(corrected.file(OOF_FILE))
    before, after = (cases[name] - cases["bone_age_months"] for name in ("predicted_months", "answered_months"))
    assert (before.abs().mean(), after.abs().mean()) == pytest.approx(
        (found["mae_before_months"], found["mae_after_months"]), abs=1e-3
    )
    shown = answers(corrected.file("report.html").read_text())
    assert "All that follows is after it" in shown
    assert abs(after.mean()) < 2 < 8 < before.mean()
    assert f"bias {signed(after.mean())} months" in shown
    gain = f"{found['gain_months']:.2f}"
    assert f"by {gain} (95 % interval" in shown
    assert f"a gain of {gain} (95 % interval" in corrected.file("card.md").read_text()


def test_what_is_corrected_for_the_selection_is_not_said_to_be_corrected_for_bias(corrected):
    page, card = (re.sub(r"\s+", " ", corrected.file(name).read_text()) for name in ("report.html", "card.md"))
    assert not re.search("bias.corrected", page + card, re.IGNORECASE)
    assert "corrected for the selection, but before the correction of the months" in page
    assert "Errors are those before the correction of the months." in card


def test_a_bundle_that_kept_no_answers_says_that_its_figures_are_of_before(corrected):
    path = corrected.file(OOF_FILE)
    pd.read_parquet(path).drop(columns="answered_months").to_parquet(path, index=False)
    write_documents(corrected.folder, corrected.manifest)
    assert "All that follows is before it" in answers((corrected.folder / "report.html").read_text())


@pytest.mark.parametrize(("name", "when"), [("mae_after_months", "after"), ("mae_before_months", "before")])
def test_the_error_of_the_fast_profile_is_said_to_be_before_or_after_its_correction(corrected, name, when):
    profiles = json.loads(json.dumps(corrected.manifest["profiles"]))
    profiles["fast"]["evidence"]["oof_mae_months"] = profiles["fast"]["calibration"]["bias"]["evidence"][name]
    write_documents(corrected.folder, corrected.manifest | {"profiles": profiles})
    page = re.sub(r"\s+", " ", (corrected.folder / "report.html").read_text())
    assert f"months out of fold {when} the correction of the months" in page


@pytest.mark.parametrize(
    ("offset", "says"),
    [(2.0, "The site's own correction follows; the errors are those before it."), (0.0, "No correction of the site's")],
)
def test_the_fast_profile_of_a_site_says_whether_a_correction_of_the_site_follows(corrected, offset, says):
    profiles = json.loads(json.dumps(corrected.manifest["profiles"]))
    line = {sex: {"offset_months": offset, "slope": 0.0} for sex in ("female", "male")}
    profiles["fast"]["calibration"]["site"] = {"name": "north", "correction": line}
    write_documents(corrected.folder, corrected.manifest | {"profiles": profiles})
    assert says in re.sub(r"\s+", " ", (corrected.folder / "report.html").read_text())


def test_a_site_has_its_correction_beside_that_of_the_bundle_it_starts_from(corrected):
    fitted = corrected.manifest["calibration"]
    line = {sex: {"offset_months": 2.0, "slope": 0.0} for sex in ("female", "male")}
    site = {"name": "north", "parent": corrected.version, "correction": line, "evidence": {"n": 321}}
    write_documents(corrected.folder, corrected.manifest | {"calibration": fitted | {"site": site}})
    card = (corrected.folder / "card.md").read_text()
    assert "Before that, the months are corrected, girls" in card
    assert "Errors are those before the correction of the months and the site's own correction." in card
    page = answers((corrected.folder / "report.html").read_text())
    assert (
        "All that follows is after it, each case corrected by what the other folds say, and before the site's" in page
    )


def test_a_page_says_that_no_correction_is_fitted(bundle):
    assert bundle.manifest["calibration"]["bias"]["correction"] is None
    assert "No correction of the months is fitted to these answers" in answers(bundle.file("report.html").read_text())
    assert "corrected, girls" not in bundle.file("card.md").read_text()
