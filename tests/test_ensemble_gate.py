"""The gate: what a stress report contradicts is named, and an alias moves through the gate alone."""

import json

import cv2
import numpy as np
import pytest
import torch

from ensemble.alterations import suite
from ensemble.combine import combine
from ensemble.examination import examine
from ensemble.gate import Policy, failures
from ensemble.predictor import Predictor
from ensemble.registry import Registry, RegistryError
from ensemble.standing import standing
from ensemble.stress_report import table_text
from ensemble.verdict import SCHEMA, claim, promote, recorded
from preprocessing.cohort import Cohort
from preprocessing.source import Source, problem_table
from tests.ensemble_fixtures import make_cohort, make_study


def coverage(share: float, n: int = 200):
    levels = [{"level": 90, "share": share}]
    band = {"sex": "female", "bone_age_years": [8, 10], "n": n, "levels": [{"level": 90, "share": 0.9}]}
    return {"n": n, "levels": levels, "groups": [band]}


def marks(wrong: int, n: int = 200, *, mark: str = "!", start: int = 0) -> str:
    return "." * start + mark * wrong + "." * (n - wrong - start)


def passing(n: int = 200):
    """The report of an examination that contradicts nothing."""
    row = {"asked": n, "answered": n, "rejected": 0.0, "failed": 0.0, "reasons": {}}
    flips = [
        row | {"family": "flip", "level": level, "is_wrong": False, "marks": marks(6, n)} for level in ("both", "one")
    ]
    swapped = row | {"family": "metadata", "level": "sex swapped", "is_wrong": False, "marks": marks(n, n)}
    wrong = row | {"family": "wrong input", "level": "chest", "is_wrong": True, "answered": 0, "rejected": 1.0}
    clean = row | {"marks": marks(5, n)}
    source = {"name": "site", "num_cases": n, "cases_sha256": "0" * 64, "seen": 0}
    profiles = {name: {"n": n, "coverage": coverage(0.9, n)} for name in ("full", "fast")}
    standing = {"asked": n, "n": n, "reasons": {}, "profiles": profiles, "champion": None, "comparison": None}
    about = {"schema": SCHEMA, "n": n, "undecoded": 0, "source": source, "clean": clean}
    return about | {"alterations": [*flips, swapped, wrong], "standing": standing}


def beside(report, *, difference=0.1, ci95=(-0.2, 0.4), gained=3, lost=2, p=1.0, champion="ens-000000000000"):
    """The report of a bundle that was compared."""
    errors = {"before": 10, "after": 10 + gained - lost, "gained": gained, "lost": lost, "p": p}
    paired = {"n": 200, "mae_difference_months": difference, "mae_difference_ci95": ci95, "significant_errors": errors}
    report["standing"] |= {"champion": champion, "comparison": paired}
    return report


def altered(report, **what):
    for row in report["alterations"][:2]:
        row.update(what)


def held(report, profile, share, group=False):
    found = report["standing"]["profiles"][profile]["coverage"]
    (found["groups"][0] if group else found)["levels"][0]["share"] = share


BROKEN = {
    "needs 100 cases or more, it had 99": lambda report: report.update(undecoded=101),
    "3 of 200 cases have the id, the sex and the bone age": lambda report: report["source"].update(seen=3),
    "20.0% of 200 radiographs of the stress test as they are were refused or failed (40 x cut_off)": lambda report: (
        report["clean"].update(answered=160, reasons={"cut_off": 40})
    ),
    "5.0% of 200 radiographs as they are were refused": lambda report: report["standing"].update(n=190),
    "wrong inputs were answered or failed, not refused (chest 20%)": lambda report: report["alterations"][3].update(
        rejected=0.8, failed=0.2
    ),
    "flip: both: 20.0% of 200 were refused or failed (40 x timeout)": lambda report: report["alterations"][0].update(
        rejected=0.1, failed=0.1, reasons={"timeout": 40}
    ),
    "flip: clinically significant errors and refusals rose from 5 to 20.0 of 200": lambda report: altered(
        report, marks=marks(20)
    ),
    "refusals rose from 5 to 20.0 of 200": lambda report: altered(report, marks="!" * 5 + marks(15, 195, mark="r")),
    "The 90 % interval held 79.0% of 200 cases (95 % interval 72.8% to 84.1%), not 87% to 93%": lambda report: held(
        report, "full", 0.79
    ),
    "interval of the profile fast held 79.0% of 200 cases": lambda report: held(report, "fast", 0.79),
    "Answers of the profile fast have no 90 % interval": lambda report: report["standing"]["profiles"]["fast"].update(
        coverage=None
    ),
    "held 70.0% of 200 female cases of 8 to 10 years": lambda report: held(report, "full", 0.7, group=True),
    "0.50 months higher than ens-000000000000 on 200 cases": lambda report: beside(
        report, difference=0.5, ci95=(0.1, 0.9)
    ),
    "more clinically significant errors than ens-000000000000": lambda report: beside(
        report, gained=12, lost=1, p=0.003
    ),
}


def test_a_harm_of_one_level_is_not_diluted_in_its_family():
    report = passing()
    report["alterations"][0].update(level="worst", marks=marks(30))
    (found,) = failures(report, Policy())
    assert "most at worst (p" in found


def test_an_answer_that_changes_with_the_chronological_age_fails():
    report = passing()
    permuted = report["alterations"][0] | {"family": "metadata", "level": "chronological age permuted"}
    report["alterations"].append(permuted)
    assert failures(report, Policy()) == []
    permuted["marks"] = marks(30)
    (found,) = failures(report, Policy())
    assert "metadata: clinically significant errors and refusals rose from 5 to 30.0 of 200" in found


@pytest.mark.parametrize("sentence", BROKEN)
def test_the_gate_names_the_rule_that_the_data_contradict(sentence):
    report = passing()
    assert failures(report, Policy()) == []
    BROKEN[sentence](report)
    (found,) = failures(report, Policy())
    assert sentence in found


def test_a_refusal_of_what_nobody_could_read_is_no_error_and_a_failure_is():
    report = passing()
    for row, level in zip(report["alterations"], ("Gaussian 0.1", "Poisson 100 photons"), strict=False):
        row.update(family="noise", level=level, rejected=1.0, marks=marks(200, mark="r"))
    assert failures(report, Policy()) == []
    assert len(failures(report, Policy(may_refuse=()))) == 3  # each of the two, and their family
    altered(report, marks=marks(200, mark="f"))
    assert "noise: clinically significant errors and refusals rose from 5 to 200" in failures(report, Policy())[0]


def test_every_alteration_refused_outright_does_not_pass():
    report = passing()
    altered(report, rejected=1.0, marks=marks(200, mark="r"))
    assert len(failures(report, Policy())) == 3


def test_overall_coverage_is_judged_by_all_cases_of_the_standing():
    report = passing(1000)
    held(report, "full", 0.79)
    assert "held 79.0% of 1000 cases" in failures(report, Policy())[0]
    held(report, "full", 0.86)
    assert failures(report, Policy()) == []  # up to 88 %: not contradicted


def test_coverage_is_judged_by_the_cases_that_have_an_interval():
    report = passing()
    found = report["standing"]["profiles"]["full"]["coverage"]
    found["levels"] = [{"level": 90, "n": 40, "left_out": 160, "share": 0.8}]  # of 200 cases this would be too few
    found["groups"][0]["levels"] = [{"level": 90, "n": 40, "left_out": 160, "share": 0.5}]  # fewer than a band needs
    assert failures(report, Policy()) == ["160 of 200 answers have no 90 % interval."]
    found["levels"][0]["share"] = 0.6
    assert "held 60.0% of 40 cases" in failures(report, Policy())[1]


def test_coverage_without_a_90_percent_interval_is_said():
    report = passing()
    found = report["standing"]["profiles"]["fast"]["coverage"]
    found["levels"] = found["groups"][0]["levels"] = [{"level": 50, "share": 0.5}]
    assert failures(report, Policy()) == ["Answers of the profile fast have no 90 % interval."]


def test_a_bundle_that_may_be_worse_or_better_passes_and_a_band_of_few_cases_contradicts_nothing():
    report = beside(passing())
    report["standing"]["profiles"]["full"]["coverage"]["groups"][0] |= {
        "n": 59,
        "levels": [{"level": 90, "share": 0.5}],
    }
    assert failures(report, Policy()) == []
    assert failures(beside(passing(), difference=0.5, ci95=(0.1, 0.9)), Policy(max_worse_months=0.2)) == []
    assert failures(beside(passing(), difference=0.5, ci95=None), Policy()) == []


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("gate")
    study = make_study(root / "study", make_cohort(root / "cohort"))
    made = Registry(root / "registry")
    for members in (2, 3):
        made.publish(combine(study, max_members=members).write)
    return made


def test_only_what_passed_the_gate_is_promoted_unless_told_so_and_that_is_recorded(registry):
    first, second = (row["version"] for row in registry.versions())
    with pytest.raises(RegistryError, match="has not been put under stress"):
        promote(registry, first, "champion")
    assert recorded(registry, {"version": first, **passing()}) == []
    assert promote(registry, first, "champion") == (first, None)
    bad = {"version": second, **passing()}
    BROKEN["wrong inputs were answered or failed, not refused (chest 20%)"](bad)
    recorded(registry, bad)
    with pytest.raises(RegistryError, match=r"it failed: .* wrong inputs were answered"):
        promote(registry, second, "champion")
    assert promote(registry, second, "champion", regardless="the old one is recalled") == (second, first)
    last = registry.history()[-1]
    assert (last["gate"], last["regardless"]) == ("not passed", "the old one is recalled")


def test_the_report_that_a_verdict_was_judged_by_is_kept(registry):
    first = registry.versions()[0]["version"]
    report = {"version": first, **passing()}
    recorded(registry, report)
    noted = registry.history()[-1]
    kept = registry.path / "gates" / f"{noted['report_sha256']}.json"
    assert json.loads(kept.read_text()) == report
    assert noted["source"] == {"name": "site", "num_cases": 200, "cases_sha256": "0" * 64, "seen": 0}


def test_a_policy_that_became_stricter_refuses_what_passed(registry):
    first = registry.versions()[0]["version"]
    recorded(registry, {"version": first, **passing()})
    (registry.path / "policy.json").write_text('{"min_cases": 1000}')
    with pytest.raises(RegistryError, match=r"fails by today's: The stress test needs 1000 cases"):
        promote(registry, first, "strict")
    (registry.path / "policy.json").unlink()
    assert promote(registry, first, "strict") == (first, None)


@pytest.mark.parametrize("harm", ["gone", "changed", "of an older release"])
def test_a_report_that_cannot_be_judged_again_moves_nothing(registry, harm):
    first = registry.versions()[0]["version"]
    recorded(registry, {"version": first, **passing()} | ({"schema": 1} if harm == "of an older release" else {}))
    kept = registry.path / "gates" / f"{registry.history()[-1]['report_sha256']}.json"
    if harm == "gone":
        kept.unlink()
    elif harm == "changed":
        kept.write_text(kept.read_text().replace("0.9", "1.0", 1))
    with pytest.raises(RegistryError, match="is not kept, or of an older release: run python -m ensemble stress"):
        promote(registry, first, "kept")


def test_a_registry_has_its_own_policy(registry):
    (registry.path / "policy.json").write_text('{"min_cases": 500}')
    assert "needs 500 cases" in failures(passing(), Policy.of(registry))[0]
    (registry.path / "policy.json").write_text('{"max_luck": 1}')
    with pytest.raises(RegistryError, match="no rule 'max_luck'"):
        Policy.of(registry)
    (registry.path / "policy.json").unlink()


@pytest.mark.parametrize("content", ["[]", "7", '"min_cases"', "null"])
def test_a_policy_of_another_shape_is_named(tmp_path, content):
    (tmp_path / "policy.json").write_text(content)
    with pytest.raises(RegistryError, match=r"/policy\.json is no policy: it must be an object of rules, got a "):
        Policy.of(Registry(tmp_path))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            {"exempt": ["metadata: sex swaped"]},
            "exempt names 'metadata: sex swaped', .* nearest is 'metadata: sex swapped'",
        ),
        ({"may_refuse": ["noise: Gaussian 0.1", ""]}, "may_refuse names '', which is no alteration"),
        ({"may_refuse": "geometry: cropped 20%"}, "may_refuse must be a list .* got 'geometry: cropped 20%'"),
        ({"exempt": [1]}, r"exempt must be a list of alterations, .* got \(1,\)"),
    ],
)
def test_a_policy_names_alterations_that_there_are(registry, rule, said):
    policy = registry.path / "policy.json"
    policy.write_text(json.dumps(rule))
    with pytest.raises(RegistryError, match=f"is no policy: {said}.*Mend it, or remove it"):
        Policy.of(registry)
    policy.write_text('{"may_refuse": [], "exempt": ["border: white 5%"], "coverage_90": [0.8, 0.95]}')
    assert (Policy.of(registry).may_refuse, Policy.of(registry).exempt) == ((), ("border: white 5%",))
    policy.unlink()


def test_a_bundle_that_was_compared_with_another_one_is_not_promoted(registry):
    first, second = (row["version"] for row in registry.versions())
    registry.set_alias("champion", second)
    recorded(registry, {"version": first, **passing()})
    with pytest.raises(RegistryError, match=f"compared with no other bundle, and champion is {second}: run python"):
        promote(registry, first, "champion")
    assert promote(registry, first, "new-name") == (first, None)
    recorded(registry, {"version": first, **beside(passing(), champion=second)})
    assert promote(registry, first, "champion") == (first, second)


def test_a_new_alias_is_claimed_and_one_that_is_taken_stays(registry):
    first, second = (row["version"] for row in registry.versions())
    assert claim(registry, first, "site") == first
    assert registry.history()[-1]["gate"] == "none: the alias is new"
    assert claim(registry, second, "site") == first
    assert registry.aliases()["site"] == first


def test_the_standing_is_paired_and_has_every_profile_and_refusal(registry, tmp_path):
    cohort = Cohort.load(registry.path.parent / "cohort")
    cases = cohort.cases.assign(chronological_age_months=np.nan).iloc[:12].reset_index(drop=True)
    (tmp_path / "images").mkdir()
    for row, file in enumerate(cases["file"]):
        cv2.imwrite(str(tmp_path / file), np.kron(cohort.pixels[row, 0], np.ones((3, 3), np.uint8)))
    (tmp_path / cases["file"].iloc[0]).write_bytes(b"no picture")
    one, other = (Predictor(registry.resolve(row["version"])) for row in registry.versions())
    found = standing(one, other, Source(tmp_path, cases, problem_table([])), num_cases=12)
    assert (found["asked"], found["n"], found["reasons"]) == (12, 11, {"unsupported_format": 1})
    assert (found["comparison"]["n"], found["champion"]) == (11, other.bundle.version)
    assert list(found["profiles"]) == list(one.profiles) == ["full", "fast"]
    for profile in found["profiles"].values():
        assert sum(group["n"] for group in profile["coverage"]["groups"]) == profile["coverage"]["n"] == 11
    same = standing(one, one, Source(tmp_path, cases, problem_table([])), num_cases=8)
    assert same["comparison"]["mae_difference_months"] == 0
    json.dumps(found, allow_nan=False)


def test_an_examination_can_be_judged_and_names_its_data(registry, tmp_path, monkeypatch):
    cohort = Cohort.load(registry.path.parent / "cohort")
    chosen = [a for a in suite() if a.family in ("flip", "metadata") or a.level == "not a picture"]
    monkeypatch.setattr("ensemble.examination.suite", lambda: chosen)
    (tmp_path / "images").mkdir()
    for row, file in enumerate(cohort.cases["file"]):
        cv2.imwrite(str(tmp_path / file), np.kron(cohort.pixels[row, 0], np.ones((3, 3), np.uint8)))
    bundle = registry.resolve(registry.versions()[0]["version"])
    found = examine(bundle, None, Source(tmp_path, cohort.cases, problem_table([])), num_cases=4)
    seen, num_cases = int((~cohort.cases["is_test"]).sum()), len(cohort.cases)
    assert (found["source"]["seen"], found["source"]["num_cases"]) == (seen, num_cases)
    sentences = recorded(registry, found)
    assert "needs 100 cases or more, it had 4" in sentences[0]
    assert f"{seen} of {num_cases} cases have the id, the sex and the bone age" in sentences[1]
    assert registry.history()[-1]["source"] == found["source"]
    said = table_text(found)
    digest = found["source"]["cases_sha256"][:12]
    assert f"{num_cases} cases, {seen} of them it was trained or calibrated on, sha256 {digest}" in said
    assert "profile fast: MAE" in said
