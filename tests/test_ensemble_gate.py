"""The gate: what a stress report contradicts is named, and an alias moves through the gate alone."""

import json

import cv2
import numpy as np
import pytest
import torch

from ensemble.combine import combine
from ensemble.examination import recorded
from ensemble.gate import Policy, claim, failures, promote, record
from ensemble.predictor import Predictor
from ensemble.registry import Registry, RegistryError
from ensemble.standing import standing
from preprocessing.cohort import Cohort
from preprocessing.source import Source, problem_table
from tests.ensemble_fixtures import make_cohort, make_study


def passing(n: int = 200):
    row = {"family": "flip", "level": "both", "is_wrong": False, "answered": n, "rejected": 0.0}
    test = {"before": 5, "after": 6, "gained": 1, "lost": 0, "p": 1.0, "p_holm": 1.0}
    wrong = {"family": "wrong input", "level": "chest", "is_wrong": True, "answered": 0, "rejected": 1.0}
    clean = {"rejected": 0.0, "answered": n, "coverage_90": 0.9}
    levels = [{"level": 90, "share": 0.9}]
    band = {"sex": "female", "bone_age_years": [8, 10], "n": n, "levels": levels}
    standing = {"n": n, "coverage": {"groups": [band]}, "champion": None, "comparison": None}
    altered = [row | {"significant_errors": test}, wrong]
    return {"n": n, "clean": clean, "alterations": altered, "standing": standing}


def beside(report, *, difference=0.1, ci95=(-0.2, 0.4), gained=3, lost=2, p=1.0, champion="ens-000000000000"):
    """The report of a bundle that was compared."""
    errors = {"before": 10, "after": 10 + gained - lost, "gained": gained, "lost": lost, "p": p}
    paired = {"n": 200, "mae_difference_months": difference, "mae_difference_ci95": ci95, "significant_errors": errors}
    report["standing"] |= {"champion": champion, "comparison": paired}
    return report


BROKEN = {
    "needs 100 cases or more": lambda report: report.update(n=20),
    "as they are were refused": lambda report: report["clean"].update(rejected=0.2),
    "wrong inputs were answered": lambda report: report["alterations"][1].update(rejected=0.8),
    "clinically significant errors rose from 5 to 25": lambda report: report["alterations"][0][
        "significant_errors"
    ].update(after=25, gained=20, p_holm=0.001),
    "held 70.0%": lambda report: report["clean"].update(coverage_90=0.7),
    "no 90 % interval": lambda report: report["clean"].update(coverage_90=None),
    "held 70.0% of 200 female cases of 8 to 10 years": lambda report: report["standing"]["coverage"]["groups"][0][
        "levels"
    ][0].update(share=0.7),
    "0.50 months higher than ens-000000000000 on 200 cases": lambda report: beside(
        report, difference=0.5, ci95=(0.1, 0.9)
    ),
    "more clinically significant errors than ens-000000000000": lambda report: beside(
        report, gained=12, lost=1, p=0.003
    ),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_the_gate_names_the_rule_that_the_data_contradict(sentence):
    report = passing()
    assert failures(report, Policy()) == []
    BROKEN[sentence](report)
    (found,) = failures(report, Policy())
    assert sentence in found


def test_a_bundle_that_may_be_worse_or_better_passes_and_a_band_of_few_cases_contradicts_nothing():
    report = beside(passing())
    report["standing"]["coverage"]["groups"][0] |= {"n": 59, "levels": [{"level": 90, "share": 0.5}]}
    assert failures(report, Policy()) == []
    assert failures(beside(passing(), difference=0.5, ci95=(0.1, 0.9)), Policy(max_worse_months=0.2)) == []


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("gate")
    study = make_study(root / "study", make_cohort(root / "cohort"))
    made = Registry(root / "registry")
    for members in (1, 2):
        made.publish(combine(study, max_members=members).write)
    return made


def test_only_what_passed_the_gate_is_promoted_unless_told_so_and_that_is_recorded(registry):
    first, second = (row["version"] for row in registry.versions())
    with pytest.raises(RegistryError, match="has not been put under stress"):
        promote(registry, first, "champion")
    assert record(registry, first, passing(), "0" * 64) == []
    assert promote(registry, first, "champion") == (first, None)
    bad = passing()
    BROKEN["wrong inputs were answered"](bad)
    record(registry, second, bad, "1" * 64)
    with pytest.raises(RegistryError, match=r"it failed: .* wrong inputs were answered"):
        promote(registry, second, "champion")
    assert promote(registry, second, "champion", regardless="the old one is recalled") == (second, first)
    last = registry.history()[-1]
    assert (last["gate"], last["regardless"]) == ("not passed", "the old one is recalled")


def test_the_report_that_a_verdict_was_judged_by_is_kept(registry):
    first = registry.versions()[0]["version"]
    report = {"version": first, **passing()}
    recorded(registry, report)
    kept = registry.path / "gates" / f"{registry.history()[-1]['report_sha256']}.json"
    assert json.loads(kept.read_text()) == report


def test_a_registry_has_its_own_policy(registry):
    (registry.path / "policy.json").write_text('{"min_cases": 500}')
    assert "needs 500 cases" in failures(passing(), Policy.of(registry))[0]
    (registry.path / "policy.json").write_text('{"max_luck": 1}')
    with pytest.raises(RegistryError, match="no rule 'max_luck'"):
        Policy.of(registry)


def test_a_bundle_that_was_compared_with_another_one_is_not_promoted(registry):
    (registry.path / "policy.json").unlink()
    first, second = (row["version"] for row in registry.versions())
    registry.set_alias("champion", second)
    record(registry, first, passing(), "0" * 64)
    with pytest.raises(RegistryError, match=f"compared with no other bundle, and champion is {second}: run python"):
        promote(registry, first, "champion")
    assert promote(registry, first, "new-name") == (first, None)
    record(registry, first, beside(passing(), champion=second), "0" * 64)
    assert promote(registry, first, "champion") == (first, second)


def test_a_new_alias_is_claimed_and_one_that_is_taken_stays(registry):
    first, second = (row["version"] for row in registry.versions())
    assert claim(registry, first, "site") == first
    assert registry.history()[-1]["gate"] == "none: the alias is new"
    assert claim(registry, second, "site") == first
    assert registry.aliases()["site"] == first


def test_the_standing_is_paired_and_has_the_bands(registry, tmp_path):
    cohort = Cohort.load(registry.path.parent / "cohort")
    cases = cohort.cases.assign(chronological_age_months=np.nan).iloc[:12].reset_index(drop=True)
    (tmp_path / "images").mkdir()
    for row, file in enumerate(cases["file"]):
        cv2.imwrite(str(tmp_path / file), np.kron(cohort.pixels[row, 0], np.ones((3, 3), np.uint8)))
    one, other = (Predictor(registry.resolve(row["version"])) for row in registry.versions())
    found = standing(one, other, Source(tmp_path, cases, problem_table([])), num_cases=8)
    assert (found["n"], found["comparison"]["n"], found["champion"]) == (8, 8, other.bundle.version)
    assert sum(group["n"] for group in found["coverage"]["groups"]) == 8
    same = standing(one, one, Source(tmp_path, cases, problem_table([])), num_cases=8)
    assert same["comparison"]["mae_difference_months"] == 0
    json.dumps(found, allow_nan=False)
