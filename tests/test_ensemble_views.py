"""Test-time views: geometry that is what it says, tried out of fold, kept only where they help, and served as tried."""

import numpy as np
import pandas as pd
import pytest
import torch

from ensemble import view_trial
from ensemble.__main__ import main
from ensemble.bundle import Bundle
from ensemble.combine import combine
from ensemble.costs import Budget
from ensemble.members import Members
from ensemble.view_trial import with_views
from ensemble.views import GROUPS, VIEWS, put_back, see
from preprocessing.cohort import Cohort
from search.limits import Cost
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("views")
    make_study(root / "study", make_cohort(root / "cohort"), states=("complete",) * 2)
    return root


@pytest.fixture
def helpful_flip(monkeypatch, folders):
    """The mirror image is answered perfectly, turned ones are answered with 239 months."""
    cases = Cohort.load(folders / "cohort").cases

    def said(member, cohort, fold, views, device):
        months = cases["bone_age_months"].to_numpy()[cohort.fold_rows(fold)].astype(int)
        return np.eye(240)[months if views == ("flip",) else np.full(len(months), 239)] * len(views)

    monkeypatch.setattr(view_trial, "summed_of_fold", said)


def picture() -> torch.Tensor:
    image = torch.zeros((1, 64, 64), dtype=torch.uint8)
    image[0, 8:20, 10:30] = 200
    return image


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_keeps_shape_and_type(view):
    seen = see(picture().repeat(3, 1, 1), view)
    assert seen.shape == (3, 64, 64)
    assert seen.dtype == torch.uint8
    assert seen.max() > 150


def test_a_mirror_image_mirrored_is_the_picture():
    assert torch.equal(see(see(picture(), "flip"), "flip"), picture())
    assert torch.equal(see(picture(), "identity"), picture())


def test_turns_to_either_side_are_mirror_images_of_each_other():
    there, back = see(picture(), "rotate_left_10"), see(see(picture().flip(2), "rotate_right_10"), "flip")
    assert (there.int() - back.int()).abs().max() <= 1


def test_a_turn_to_the_left_is_against_the_clock():
    image = torch.zeros((1, 64, 64), dtype=torch.uint8)
    image[0, 2:8, 30:34] = 255  # above the middle, it goes to the left
    columns = see(image, "rotate_left_10")[0].float().sum(dim=0)
    assert float((columns * torch.arange(64)).sum() / columns.sum()) < 29


@pytest.mark.parametrize(
    ("view", "corner"), [("crop_top_left", (0, 0)), ("crop_top_right", (0, -1)), ("crop_bottom_right", (-1, -1))]
)
def test_a_crop_holds_its_own_corner(view, corner):
    image = torch.zeros((1, 64, 64), dtype=torch.uint8)
    image[0, corner[0], corner[1]] = 255
    assert see(image, view)[0, corner[0], corner[1]] > 100
    assert see(image, "crop_centre").max() == 0


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_view_shows_is_put_back_to_its_place_with_its_total(view):
    image = torch.zeros((1, 64, 64), dtype=torch.uint8)
    image[0, 36:42, 22:28] = 200
    shown = see(image, view).float()
    back = put_back(shown, view)
    assert back.sum() == pytest.approx(float(shown.sum()), rel=0.02)
    for axis in (1, 2):
        share = back[0].sum(dim=2 - axis) / back.sum()
        before = image[0].float().sum(dim=2 - axis) / image.sum()
        assert float((share - before) @ torch.arange(64.0)) == pytest.approx(0, abs=0.3)


def test_an_unknown_view_is_refused():
    with pytest.raises(ValueError, match="must be one of identity, flip"):
        see(picture(), "upside_down")


def test_only_views_that_help_are_kept(folders, helpful_flip):
    found = with_views(combine(folders / "study"), Cohort.load(folders / "cohort"), ["rotations", "flip"])
    assert found.views == ("identity", "flip")
    tried = found.evidence["views"]
    assert tried["flip"]["kept"]
    assert tried["flip"]["ci95"][1] < 0
    assert tried["rotations"] == tried["rotations"] | {"kept": False, "beside": ["flip"]}


def test_the_evidence_tells_what_is_served_from_what_was_selected(folders, helpful_flip, monkeypatch):
    monkeypatch.setattr("ensemble.costs.measure", lambda config, side, device: Cost(1, 10.0, 5.0, device))
    plain = combine(folders / "study", method="equal", budget=Budget(name="latency_ms", limit=1000.0))
    found = with_views(plain, Cohort.load(folders / "cohort"), ["flip"])
    served = np.abs(found.out_of_fold["months_C"] - plain.candidates.actual_C).mean()
    assert found.evidence["with_views_oof_mae_months"]["value"] == pytest.approx(served, abs=1e-3)
    assert found.evidence["budget"]["spent"] == 2 * plain.evidence["budget"]["spent"]
    for name in ("ensemble_oof_mae_months", "bias_corrected_mae_months"):
        assert found.evidence[name]["value"] == plain.evidence[name]["value"]
        assert "without the views that are served" in found.evidence[name]["note"]
    left_out = with_views(plain, Cohort.load(folders / "cohort"), ["rotations"])
    assert left_out.evidence == plain.evidence | {"views": left_out.evidence["views"]}


def test_the_bundle_says_out_of_fold_what_the_views_say_on_average(folders, helpful_flip, tmp_path):
    plain = combine(folders / "study", rule="mean")
    with_views(plain, Cohort.load(folders / "cohort"), ["flip"]).write(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.manifest["views"] == ["identity", "flip"]
    months = pd.read_parquet(bundle.file("evidence/oof.parquet"))["predicted_months"]
    expected = (plain.out_of_fold["months_C"] + plain.candidates.actual_C) / 2
    np.testing.assert_allclose(months, expected, atol=1e-3)


def test_a_bundle_with_views_answers_with_their_mean(folders, helpful_flip, tmp_path):
    plain = combine(folders / "study", rule="mean")
    cohort = Cohort.load(folders / "cohort")
    plain.write(tmp_path / "plain")
    with_views(plain, cohort, ["flip"]).write(tmp_path / "flip")
    pixels, is_male = np.array(cohort.pixels[:3]), cohort.cases["is_male"].to_numpy()[:3]
    without, with_flip = (
        Members(Bundle.load(tmp_path / name))
        .run(pixels, np.where(is_male, 1, -1)[None].astype(np.float32), np.full(2, 0.5))
        .distribution_SEBM[0]
        for name in ("plain", "flip")
    )
    mirrored = (
        Members(Bundle.load(tmp_path / "plain"))
        .run(pixels[..., ::-1], np.where(is_male, 1, -1)[None].astype(np.float32), np.full(2, 0.5))
        .distribution_SEBM[0]
    )
    np.testing.assert_allclose(with_flip, (without + mirrored) / 2, atol=1e-6)


def test_views_that_do_not_fit_the_budget_are_left_out(folders, helpful_flip, monkeypatch):
    monkeypatch.setattr("ensemble.costs.measure", lambda config, side, device: Cost(1, 10.0, 5.0, device))
    combination = combine(folders / "study", method="equal", budget=Budget(name="latency_ms", limit=60.0))
    found = with_views(combination, Cohort.load(folders / "cohort"), ["flip"])
    assert found.views == ("identity",)
    assert not found.evidence["views"]["flip"]["fits_budget"]


def test_views_are_really_tried_on_the_fold_models(folders, tmp_path, capsys):
    words = ["build", str(folders / "study"), str(tmp_path / "registry"), "--views", "flip"]
    assert main([*words, "--cohort", str(folders / "cohort")]) == 0
    assert "view flip" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--views", "flip"], "Name the studies' cohort"), (["--views", "mirror", "--cohort"], "got 'mirror'")],
)
def test_what_cannot_be_tried_is_refused(folders, tmp_path, capsys, words, sentence):
    if words[-1] == "--cohort":
        words = [*words, str(folders / "cohort")]
    assert main(["build", str(folders / "study"), str(tmp_path / "registry"), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_no_view_stands_in_two_groups():
    views = [view for views in GROUPS.values() for view in views]
    assert len(set(views)) == len(views) == len(VIEWS) - 1
