"""The page about a study: complete by itself, true, drawn at any time, and blind to the locked test."""

import base64
import io
import itertools
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from preprocessing.storage import as_path, read_json, write_json
from search import leaderboard
from search.__main__ import main
from search.importance import importances
from search.journal import FILE, open_storage
from search.passes import account, learning_curves
from search.report import DRAWINGS, StudyReport, report
from search.sampler import Outcome, Sampler
from search.space import TrialConfig
from search.trial import all_outcomes, finished_trials, trial_folder
from search.warm_start import EARLIER
from tests.ensemble_fixtures import make_cohort, make_study

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort, and a study in the middle of its run that has trials of every state."""
    folder = tmp_path_factory.mktemp("report")
    cohort = make_cohort(folder / "cohort", num_cases=40)
    study = make_study(folder / "study", cohort, states=("complete", "complete", "stopped", "failed", "running"))
    config = read_json(trial_folder(study, 4) / "config.json")["config"]
    write_json(
        trial_folder(study, 4) / "config.json", {"number": 4, "config": {**config, "backbone": "<script>alert(1)"}}
    )
    history = [{"epoch": 2.0, "images_seen": 34, "train_loss": 1.0, "mae_months": 40.0, "final": False}]
    write_json(trial_folder(study, 2) / "fold_0.measured.json", {"fold": 0, "history": history})
    return folder


@pytest.fixture(scope="module")
def described(root: Path) -> StudyReport:
    return report(root / "study")


def test_the_distributions_of_the_best_trial_alone_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def read_parquet(file: Any, columns: list[str] | None = None) -> pd.DataFrame:
        table = parquet(file, columns=columns)
        if "distribution" in table:
            read.append(Path(file.name).parent.name)
        return table

    parquet = pd.read_parquet
    monkeypatch.setattr(pd, "read_parquet", read_parquet)
    best = report(root / "study").tables["leaderboard"]["number"][0]
    assert read == [f"{best:04d}"]


class Page(HTMLParser):
    """Tags, their nesting, and the headings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed(described: StudyReport) -> None:
    assert Page(described.html).open == []


def test_nothing_is_loaded_from_outside_and_nothing_runs(described: StudyReport) -> None:
    names = {tag for tag, _ in Page(described.html).tags}
    assert not names & {"script", "link", "iframe", "object"}
    assert "://" not in described.html
    assert "url(" not in described.html.replace("url(#", "")


def test_text_from_files_cannot_become_markup(described: StudyReport) -> None:
    assert "<script" not in described.html
    assert "&lt;script&gt;alert(1)" in described.html


def test_every_picture_says_what_it_shows(described: StudyReport) -> None:
    tags = Page(described.html).tags
    assert all(attributes["alt"] for tag, attributes in tags if tag == "img")
    drawings = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(drawings) == len(DRAWINGS) - 1  # of two complete trials no importance is drawn
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)


def test_ids_are_unique_and_every_reference_has_its_target(described: StudyReport) -> None:
    ids = re.findall(r'\bid="([^"]+)"', described.html)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", described.html)) <= set(ids)


def test_drawings_take_their_colours_from_the_style_sheet(described: StudyReport) -> None:
    drawings = " ".join(re.findall(r"<svg.*?</svg>", described.html, flags=re.DOTALL))
    assert "var(--ink)" in drawings
    assert not re.findall(r"(?:fill|stroke): #\w+", drawings)


def test_headings_go_down_one_level_at_a_time(described: StudyReport) -> None:
    levels = [int(tag[1]) for tag, _ in Page(described.html).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_trial_is_in_the_leaderboard_with_its_state(described: StudyReport) -> None:
    table = described.tables["leaderboard"]
    states = dict(zip(table["number"], table["state"], strict=True))
    assert states == {0: "complete", 1: "complete", 2: "stopped", 3: "failed", 4: "running"}
    assert table["mae_months"].notna().tolist() == [True, True, False, False, False]


def test_failures_are_shown_with_their_reason(described: StudyReport) -> None:
    assert "the test says so" in described.html


def test_the_best_trial_is_behind_itself_by_nothing(root: Path) -> None:
    table = leaderboard.ranked(finished_trials(root / "study"))
    assert table.loc[0, ["behind_months", "behind_low", "behind_high"]].tolist() == [0, 0, 0]
    assert (table["mae_low"] < table["mae_months"]).all()
    assert (table["mae_months"] < table["mae_high"]).all()
    assert table["mae_months"].is_monotonic_increasing


def test_worst_cases_are_those_of_the_largest_errors(root: Path) -> None:
    trials = finished_trials(root / "study")
    worst = leaderboard.worst_cases(trials[0], trials, 3)
    error = (trials[0].oof["predicted_months"] - trials[0].oof["bone_age_months"]).abs()
    assert [abs(case["error"]) for case in worst] == sorted(error, reverse=True)[:3]


def test_a_trial_stopped_inside_its_first_fold_has_a_curve_and_a_cost(root: Path) -> None:
    outcomes = all_outcomes(root / "study")
    curves = learning_curves(root / "study", outcomes, 2)
    assert curves.loc[curves["number"] == 2, "images_seen"].tolist() == [34]
    costs = account(outcomes, curves, 2).set_index("number")
    assert costs.loc[2, "spent"] == 34
    assert costs.loc[2, "saved"] == costs.loc[2, "full"] - 34 > 0
    assert costs.loc[[0, 1, 3, 4], "saved"].tolist() == [0, 0, 0, 0]


def test_a_trial_counts_what_its_outcome_says_it_spent() -> None:
    config = TrialConfig(backbone="slim_resnet10", epochs=10, max_images_seen=700).to_dict()
    outcomes = [{"number": 0, "config": config, "state": "stopped", "images_seen": 250}]
    curves = pd.DataFrame(
        [
            {
                "number": 0,
                "fold": 0,
                "epoch": 2.0,
                "images_seen": 200,
                "train_loss": 1.0,
                "mae_months": 9.0,
                "final": False,
            }
        ]
    )
    (row,) = account(outcomes, curves, 3).to_dict("records")
    assert (row["spent"], row["full"], row["saved"]) == (250, 3 * 700, 3 * 700 - 250)


def test_labels_and_pictures_of_the_locked_test_do_not_matter(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "cohort", tmp_path / "cohort")
    cases = pd.read_parquet(tmp_path / "cohort" / "cases.parquet")
    cases.loc[cases["is_test"], "bone_age_months"] = 1.0
    cases.to_parquet(tmp_path / "cohort" / "cases.parquet", index=False)
    pixels = np.load(tmp_path / "cohort" / "pixels.npy")
    pixels[cases["is_test"]] = 255
    np.save(tmp_path / "cohort" / "pixels.npy", pixels)
    pages = [report(root / "study", cohort=folder / "cohort").html for folder in (root, tmp_path)]
    one, other = (re.sub(r"Written [\d: -]+", "", html) for html in pages)
    assert one == other


def test_worst_cases_are_shown_with_the_cohorts_pictures(described: StudyReport) -> None:
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)" alt="Prepared radiograph', described.html)
    assert len(pictures) == 12
    assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")


def test_worst_cases_are_shown_in_the_view_that_the_trial_saw(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort", views=("full", "crop"), segmenter=b"weights")
    pixels = np.load(cohort / "pixels.npy")
    pixels[:, 1] = 200
    np.save(cohort / "pixels.npy", pixels)
    html = report(make_study(tmp_path / "study", cohort, states=("failed", "complete"))).html  # trial 1 sees the crop
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)" alt="Prepared radiograph', html)
    assert pictures
    for picture in pictures:
        assert (cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_GRAYSCALE) == 200).all()


def test_the_median_of_each_folds_training_cases_stands_beside_the_best_trial(
    root: Path, described: StudyReport
) -> None:
    cases = pd.read_parquet(root / "cohort" / "cases.parquet").query("not is_test")
    errors = [
        abs(case.bone_age_months - cases.loc[cases["fold"] != case.fold, "bone_age_months"].median())
        for case in cases.itertuples()
    ]
    figures = described.tables["figures"].set_index("figure")
    found = figures.loc["median_predictor_mae_months"]
    assert found["value"] == pytest.approx(np.mean(errors), abs=1e-4)
    assert found["low"] < found["value"] < found["high"]
    assert f"training cases is off by\n{np.mean(errors):.1f} months" in described.html


def screened(folder: Path, root: Path, states: tuple[str, ...], *, short: int) -> StudyReport:
    """The page of a study whose complete trials had short trainings of so many image passes; others saved 100."""
    study = make_study(folder / "study", root / "cohort", states=states)
    for number, state in enumerate(states):
        path = trial_folder(study, number) / "outcome.json"
        if state == "complete":
            write_json(path, read_json(path) | {"images_seen": 34 + short})  # 17 cases in each of 2 folds
        else:
            config = read_json(trial_folder(study, number) / "config.json")
            config["config"] |= {"epochs": 1_000_000, "max_images_seen": 1000}
            write_json(trial_folder(study, number) / "config.json", config)
            write_json(path, read_json(path) | {"images_seen": 1900})
    return report(study)


def test_bar_text_and_tile_agree_on_what_was_saved_after_the_short_trainings(root: Path, tmp_path: Path) -> None:
    html = screened(tmp_path, root, ("complete", "complete", "stopped"), short=20).html
    assert "took 2,008 image passes" in html
    assert "take\n2,068, <b>1.03 times</b> as many: stopping early saved 60, or 2.9&nbsp;%." in html
    assert "Trials that were stopped saved 100; the short trainings" in html
    assert "took 40.\n" in html
    assert "saved: 0.06<" in html
    assert '<b>2.9&nbsp;%</b><span class="grey">of the image passes of full 2-fold saved' in html


@pytest.mark.parametrize(("short", "words"), [(0, ""), (50, ", it took 100 more")])
def test_a_search_that_saved_nothing_says_so(root: Path, tmp_path: Path, short: int, words: str) -> None:
    html = screened(tmp_path, root, ("complete", "complete"), short=short).html
    assert f"this search saved <b>nothing</b>{words}." in html
    assert "<b>none</b>" in html
    assert "saved: " not in html


def test_a_cohort_that_is_gone_is_said_to_be(root: Path, tmp_path: Path) -> None:
    html = report(root / "study", cohort=tmp_path).html
    assert "No pictures: the cohort cannot be opened." in html


def test_another_cohort_gives_no_pictures(root: Path, tmp_path: Path) -> None:
    html = report(root / "study", cohort=make_cohort(tmp_path / "other", seed=1)).html
    assert "is not the cohort of this study" in html


def test_a_study_without_a_trial_has_a_page(root: Path, tmp_path: Path) -> None:
    make_study(tmp_path / "study", root / "cohort", states=())
    html = report(tmp_path / "study").html
    assert "No trial has begun." in html


def test_a_study_without_a_complete_trial_has_a_page(root: Path, tmp_path: Path) -> None:
    make_study(tmp_path / "study", root / "cohort", states=("running", "failed"))
    html = report(tmp_path / "study").html
    assert "No trial has finished all its folds yet." in html


def sampled(folder: Path, count: int) -> str:
    """A study's journal with complete trials whose error follows the learning rate."""
    sampler = Sampler(folder, name="s", space="quick", seed=0, num_trials=count)
    for _ in range(count):
        number = sampler.ask()
        error = 10 + 1000 * abs(sampler.config(number).learning_rate - 0.003)
        sampler.finish(number, Outcome("complete", (error, error)))
    return "s"


def test_importances_sum_to_one(tmp_path: Path) -> None:
    shares, count, _ = importances(tmp_path, sampled(tmp_path, 12))
    assert count == 12
    assert sum(shares.values()) == pytest.approx(1)


def test_the_setting_that_the_error_follows_matters_most(tmp_path: Path) -> None:
    shares = importances(tmp_path, sampled(tmp_path, 12)).shares
    assert next(iter(shares)) == "learning_rate"


def test_of_few_trials_no_importance_is_said(tmp_path: Path) -> None:
    assert importances(tmp_path, sampled(tmp_path, 9)) == ({}, 9, 0)


def record(study: Path, count: int, *, earlier: int = 0) -> None:
    """Complete trials in a study's journal: every second has a weight, the first `earlier` are of another study."""
    opened = optuna.create_study(storage=open_storage(as_path(study)), study_name=study.name)
    for number in range(count):
        head = ("bins", "laplace")[number % 2]
        weight = {"weight_ldl": 0.05 * number} if head == "bins" else {}
        opened.add_trial(
            optuna.trial.create_trial(
                params={"head": head, **weight},
                distributions={
                    "head": CategoricalDistribution(("bins", "laplace")),
                    **({"weight_ldl": FloatDistribution(0.0, 1.0)} if weight else {}),
                },
                value=10.0 + number,
                user_attrs={EARLIER: f"old trial {number}"} if number < earlier else {},
            )
        )


def test_a_setting_that_some_trials_have_has_an_importance_and_the_page_says_of_which(
    root: Path, tmp_path: Path
) -> None:
    study = make_study(tmp_path / "study", root / "cohort")
    record(study, 12, earlier=3)
    made = report(study)
    assert set(made.tables["importance"]["setting"]) == {"head", "weight_ldl"}
    assert "a setting that only some of them have is judged among those" in made.html
    assert "of 12 complete trials (3 of them by warm start, from earlier studies)" in made.html


def test_trials_that_came_by_warm_start_are_said_to(root: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", root / "cohort", states=("complete",))
    record(study, 4, earlier=3)
    html = report(study).html
    assert "The best of 1 complete trial," in html
    assert "4 are complete, 3 of them by warm start" in html


def test_a_line_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    name = sampled(tmp_path, 5)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"op_code": 4, "tri')
    before = (tmp_path / FILE).read_bytes()
    assert importances(tmp_path, name)[1] == 5
    assert (tmp_path / FILE).read_bytes() == before


def test_the_command_writes_page_and_tables(root: Path, tmp_path: Path) -> None:
    assert main(["report", str(root / "study"), "--out", str(tmp_path / "out")]) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "leaderboard.csv", "learning_curves.csv", "groups.csv", "predictions.csv"} <= written
    table = pd.read_csv(io.BytesIO((tmp_path / "out" / "figures.csv").read_bytes())).set_index("figure")
    assert table.loc["mae_months", "low"] < table.loc["mae_months", "value"] < table.loc["mae_months", "high"]
    assert table.loc["mad_months"].equals(table.loc["mae_months"])
    assert {"n", "rmse_months", "within_6_months", "within_12_ci95"} <= set(
        pd.read_csv(io.BytesIO((tmp_path / "out" / "groups.csv").read_bytes()))
    )


def test_a_folder_that_is_no_study_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("search: ")


def console(html: str, folder: Path) -> str:
    """What Chromium says of a page; its policy forbids every request, so that one that is tried is said too."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    page = folder / "page.html"
    page.write_text(html)
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
        "--window-size=390,844", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
    ]  # fmt: skip
    ran = subprocess.run([chromium, *flags, page.as_uri()], check=True, capture_output=True, timeout=120, text=True)
    assert ran.stdout.count("<svg") == html.count("<svg")
    return "\n".join(line for line in ran.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.browser
def test_a_browser_shows_the_page_without_an_error_or_a_request(described: StudyReport, tmp_path: Path) -> None:
    assert console(described.html, tmp_path) == ""


@pytest.mark.browser
def test_a_request_would_be_noticed(described: StudyReport, tmp_path: Path) -> None:
    html = described.html.replace("</main>", '<img src="http://127.0.0.1:9/x.png" alt="elsewhere"></main>')
    assert "Content Security Policy" in console(html, tmp_path)
