"""The mean of fold models errs less than one of them, by what they differ: measured on pictures that none has seen."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble import fold_models
from ensemble import members as members_module
from ensemble.__main__ import main
from ensemble.ambiguity import LEAST_KEPT, FoldAnswers
from ensemble.bundle import Bundle
from ensemble.candidates import CombineError
from ensemble.combine import combine
from ensemble.correction import NO_CORRECTION, Correction
from ensemble.fold_models import MIN_PICTURES, with_fold_answers
from ensemble.members import Members
from preprocessing.cohort import Cohort
from preprocessing.storage import StorageError
from search.model import sex_codes
from search.months import BIN_MONTHS
from tests.ensemble_fixtures import NUM_FOLDS, make_cohort, make_study

MONTHS = st.floats(0, 239)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("ambiguity")
    make_study(
        root / "study", make_cohort(root / "cohort", num_cases=70, num_test=MIN_PICTURES), states=("complete",) * 3
    )
    return root


@pytest.fixture
def apart(monkeypatch):
    """Two fold models that say 100 and 104 months, so each is 2 from their mean."""

    def summed(member, fold, pictures_NSS, sex_N, views, device):
        return np.eye(240)[np.full(len(sex_N), 100 + 4 * fold)] * len(views)

    monkeypatch.setattr(fold_models, "summed", summed)


@given(arrays(float, (4, 6), elements=MONTHS), arrays(float, 6, elements=MONTHS))
def test_it_is_what_the_mean_errs_less_than_its_models(months_KN, actual_N):
    of_models = np.square(months_KN - actual_N).mean()
    of_mean = np.square(months_KN.mean(axis=0) - actual_N).mean()
    found = FoldAnswers(months_KN, np.arange(6) % 2 == 0).ambiguity(NO_CORRECTION.months)
    assert found == pytest.approx(of_models - of_mean, abs=0.051)


def test_it_is_that_of_corrected_answers():
    months_KN = 120 + np.random.default_rng(0).normal(0, 5, (5, 40))
    said = FoldAnswers(months_KN, np.arange(40) < 20)
    plain, doubled = (said.ambiguity(Correction((3.0, 3.0), (slope, slope)).months) for slope in (0.0, 0.5))
    assert doubled == pytest.approx(1.5**2 * plain, abs=0.2)


def test_the_models_say_what_the_bundle_will_say(folders, tmp_path):
    cohort = Cohort.load(folders / "cohort")
    found = with_fold_answers(combine(folders / "study", rule="mean"), cohort)
    found.write(tmp_path / "bundle")
    bundle, rows = Bundle.load(tmp_path / "bundle"), cohort.test_rows()
    sex_1N = sex_codes(cohort.cases["is_male"])[rows][None]
    said = Members(bundle).run(np.array(cohort.pixels[rows]), sex_1N, found.weights_M).distribution_SEBM[0]
    expected_N = found.weights_M @ (said @ BIN_MONTHS)
    np.testing.assert_allclose(found.fold_answers["full"].months_KN.mean(axis=0), expected_N, atol=1e-3)


def test_no_reference_of_the_locked_test_is_read(folders, monkeypatch):
    monkeypatch.setattr(Cohort, "verify", lambda cohort: None)  # it hashes the bone ages too
    cohort = Cohort.load(folders / "cohort")
    combination = combine(folders / "study")
    expected = with_fold_answers(combination, cohort).fold_answers["full"].months_KN
    cohort.cases["bone_age_months"] = cohort.cases["bone_age_months"].mask(cohort.cases["is_test"])
    np.testing.assert_array_equal(with_fold_answers(combination, cohort).fold_answers["full"].months_KN, expected)


def test_too_few_pictures_tell_nothing(folders, tmp_path):
    study = make_study(tmp_path / "study", make_cohort(tmp_path / "cohort", num_cases=60, num_test=MIN_PICTURES - 1))
    found = with_fold_answers(combine(study), Cohort.load(tmp_path / "cohort"))
    assert not found.fold_answers
    found.write(tmp_path / "bundle")
    assert Bundle.load(tmp_path / "bundle").manifest["calibration"]["intervals"]["served"] is None


def test_another_cohort_is_refused(folders, tmp_path):
    with pytest.raises(CombineError, match="Name the cohort that the search used"):
        with_fold_answers(combine(folders / "study"), Cohort.load(make_cohort(tmp_path / "other", seed=3)))


def test_a_cohort_whose_folds_were_changed_is_refused(folders):
    cohort = Cohort.load(folders / "cohort")
    cohort.cases.loc[MIN_PICTURES, "is_test"] = True
    with pytest.raises(StorageError, match="changed after it was prepared"):
        with_fold_answers(combine(folders / "study"), cohort)


def test_each_profile_is_asked_with_its_own_members(folders):
    combination = combine(folders / "study", method="equal")
    found = with_fold_answers(combination, Cohort.load(folders / "cohort")).fold_answers
    assert set(found) == set(combination.profiles())
    fast = int(np.argmax(combination.profiles()["fast"]["weights"]))
    alone = replace(combination, weights_T=np.eye(3)[fast])
    expected = with_fold_answers(alone, Cohort.load(folders / "cohort")).fold_answers["full"]
    np.testing.assert_array_equal(found["fast"].months_KN, expected.months_KN)


def test_a_bundle_is_built_for_the_mean_and_says_so(folders, apart, tmp_path, capsys):
    assert main(["build", str(folders / "study"), str(tmp_path / "registry")]) == 0
    assert f"{MIN_PICTURES} pictures of the locked test (no reference was read)" in capsys.readouterr().out
    (bundle,) = (tmp_path / "registry" / "bundles").iterdir()
    served = json.loads((bundle / "manifest.json").read_text())["calibration"]["intervals"]["served"]
    assert served == {"ambiguity_months2": 4.0, "pictures": MIN_PICTURES}
    assert f"strays by 2.0 months on {MIN_PICTURES} pictures of the locked test" in (bundle / "card.md").read_text()
    assert f"{MIN_PICTURES} pictures of the locked test" in (bundle / "report.html").read_text()


def test_a_bundle_is_built_without_the_cohort_and_says_what_that_costs(folders, tmp_path, capsys):
    study = make_study(tmp_path / "study", folders / "cohort")
    about = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps(about | {"cohort": str(tmp_path / "gone")}))
    assert main(["build", str(study), str(tmp_path / "registry")]) == 0
    assert "a little too often: the cohort is not at its place; name it with --cohort" in capsys.readouterr().out
    assert main(["build", str(study), str(tmp_path / "registry"), "--cohort", str(folders / "cohort")]) == 0
    assert "intervals are fitted for the mean of fold models" in capsys.readouterr().out
    monitored = [
        json.loads(file.read_text()) for file in (tmp_path / "registry").glob("bundles/*/evidence/monitors.json")
    ]
    assert {found["pictures_of_cohort"] for found in monitored} == {None, Cohort.load(folders / "cohort").hash}


def test_the_corrected_error_is_restated_as_served(folders, apart):
    combination = combine(folders / "study")
    found = with_fold_answers(combination, Cohort.load(folders / "cohort"))
    before, after = found.evidence["bias_corrected_mae_months"], found.evidence["as_served_mae_months"]
    square = np.square(combination.out_of_fold["months_C"] - combination.candidates.actual_C).mean()
    share = np.sqrt(1 - 4 / square)
    assert LEAST_KEPT < share**2 < 0.9
    assert after["value"] == pytest.approx(share * before["value"], abs=1e-4)
    assert after["ci95"] == pytest.approx([share * bound for bound in before["ci95"]], abs=1e-4)


def test_what_a_second_partition_told_of_the_error_as_served_stays(folders):
    combination = combine(folders / "study")
    told = replace(combination, evidence=combination.evidence | {"as_served_mae_months": {"value": 1.0}})
    found = with_fold_answers(told, Cohort.load(folders / "cohort"))
    assert found.evidence["as_served_mae_months"] == {"value": 1.0}


def test_with_views_no_error_as_served_is_stated(folders, apart):
    seen = replace(combine(folders / "study"), views=("identity", "flip"))
    found = with_fold_answers(seen, Cohort.load(folders / "cohort"))
    assert "as_served_mae_months" not in found.evidence
    assert found.fold_answers["full"].ambiguity(NO_CORRECTION.months) == 4.0  # the mean over both views, as one


def test_a_student_is_asked_only_where_it_was_kept(folders, apart):
    combination = combine(folders / "study", method="equal")
    better, worse = (
        replace(
            trial := combination.members[0], trial=replace(trial.trial, oof=trial.trial.oof.assign(predicted_months=of))
        )
        for of in (combination.candidates.actual_C, combination.candidates.actual_C + 30)
    )
    asked = []
    for student in (better, worse):
        with_fold_answers(
            replace(combination, student=student),
            Cohort.load(folders / "cohort"),
            progress=lambda done, total: asked.append(total) if done == total else None,
        )
    assert asked == [NUM_FOLDS * 3, NUM_FOLDS * 2]


def test_a_cohort_at_its_place_that_was_changed_ends_the_build_with_a_sentence(folders, tmp_path, capsys):
    cohort = make_cohort(tmp_path / "cohort", num_cases=70, num_test=MIN_PICTURES)
    study = make_study(tmp_path / "study", cohort)
    pixels = np.load(cohort / "pixels.npy")
    pixels[0] = 255 - pixels[0]
    np.save(cohort / "pixels.npy", pixels)
    assert main(["build", str(study), str(tmp_path / "registry")]) == 2
    assert "Restore it, or prepare it again" in capsys.readouterr().err


def test_the_spread_that_scales_intervals_is_that_of_single_models(folders, tmp_path, monkeypatch):
    combination = combine(folders / "study", method="equal", rule="mean")
    combination.write(tmp_path / "bundle")
    members = Members(Bundle.load(tmp_path / "bundle"))
    nets = [network.net for network in members.networks]  # of each member the first fold's, then the second's
    # so that the means of fold models agree, and in no fold the models do
    months = [100 + 10 * (-1) ** (place // NUM_FOLDS + place % NUM_FOLDS) for place in range(len(nets))]

    def probabilities(net, views, sex_SB):
        return np.eye(240)[np.full(sex_SB.shape, months[nets.index(net)])], None

    monkeypatch.setattr(members_module, "_probabilities", probabilities)
    pixels = np.array(Cohort.load(folders / "cohort").pixels[:4])
    said = members.run(pixels, np.ones((1, 4), np.float32), combination.weights_M)
    np.testing.assert_allclose(said.variance_SB, np.var(months[::NUM_FOLDS]))


def test_nothing_else_changes(folders, tmp_path):
    combination = combine(folders / "study")
    combination.write(tmp_path / "single")
    with_fold_answers(combination, Cohort.load(folders / "cohort")).write(tmp_path / "mean")
    single, mean = (Bundle.load(tmp_path / name) for name in ("single", "mean"))
    assert set(mean.manifest["evidence"]) - set(single.manifest["evidence"]) == {"as_served_mae_months"}
    assert single.manifest["evidence"] == {
        name: mean.manifest["evidence"][name] for name in single.manifest["evidence"]
    }
    assert single.manifest["calibration"]["bias"] == mean.manifest["calibration"]["bias"]
    pd.testing.assert_frame_equal(*(pd.read_parquet(b.file("evidence/oof.parquet")) for b in (single, mean)))
