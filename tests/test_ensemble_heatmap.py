"""The map that comes with an answer: of the members that answered, in months, and nothing of the radiograph."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ensemble.combine import combine
from ensemble.heatmap import METHOD, HeatMap, heat_map
from ensemble.maps import METHODS
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from preprocessing.views import lay_over
from tests.ensemble_fixtures import SIZE, make_cohort, make_study

PIXELS = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE), np.uint8)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("heatmap")
    study = make_study(root / "study", make_cohort(root / "cohort"), states=("complete",) * 2)
    registry = Registry(root / "registry")
    return Predictor(registry.resolve(registry.publish(combine(study).write).version))


def test_a_known_sex_has_the_map_of_its_own_answer(predictor: Predictor) -> None:
    girl, boy = (heat_map(predictor, PIXELS, male).months_SS for male in (0.0, 1.0))
    assert girl.shape == (SIZE, SIZE)
    assert np.abs(girl - boy).max() > 0


def test_the_map_of_an_unknown_sex_is_the_mean_of_both_as_its_answer_is(predictor: Predictor) -> None:
    girl, boy, unknown = (heat_map(predictor, PIXELS, male).months_SS for male in (0.0, 1.0, 0.25))
    assert unknown == pytest.approx(0.75 * girl + 0.25 * boy, abs=1e-4)


def test_one_fold_model_of_each_member_is_asked(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setitem(METHODS, METHOD, lambda net, image_BSS, _: asked.append(net) or image_BSS.float())
    heat_map(predictor, PIXELS, 1.0)
    of_member = {id(network.net): network.member for network in predictor.networks}
    assert [of_member[id(net)] for net in asked] == list(range(len(predictor.bundle.members)))
    assert len(of_member) > len(asked)


def test_the_map_of_a_student_is_its_own(predictor: Predictor) -> None:
    both = heat_map(predictor, PIXELS, 1.0).months_SS
    profiles = {"full": {"weights": [1.0, 0.0]}, "fast": {"weights": [0.0, 1.0]}}  # the second one is the student
    members = [replace(member, weight=weight) for member, weight in zip(predictor.bundle.members, (1, 0), strict=True)]
    manifest = {**predictor.bundle.manifest, "profiles": profiles}
    taught = Predictor(replace(predictor.bundle, members=tuple(members), manifest=manifest))
    full, fast = (heat_map(taught, PIXELS, 1.0, profile) for profile in ("full", "fast"))
    assert 0.5 * (full.months_SS + fast.months_SS) == pytest.approx(both, abs=1e-4)
    assert np.abs(full.months_SS - fast.months_SS).max() > 0
    assert (full.share, fast.share) == (1.0, 1.0)


def test_the_picture_says_sign_by_hue_and_strength_by_opacity() -> None:
    months = np.zeros((8, 8), np.float32)
    months[0, 0], months[7, 7], months[4, 4] = 6.0, -6.0, 1.0
    found = HeatMap(months, "full", 1.0)
    bgra = cv2.imdecode(np.frombuffer(found.png(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert bgra.shape == (8, 8, 4)
    assert (bgra[0, 0, 2] > bgra[0, 0, 0], bgra[7, 7, 2] < bgra[7, 7, 0]) == (True, True)
    assert bgra[0, 0, 3] == bgra[7, 7, 3] > bgra[4, 4, 3] > bgra[1, 1, 3] == 0
    assert found.about()["reach_months"] == 6.0


def test_a_view_is_laid_over_the_picture_by_the_matrix_that_pages_write() -> None:
    half = np.array([[0.5, 0.0, -0.25], [0.0, 0.5, -0.25]])  # a picture of 8 pixels to a view of 4
    a, b, c, d, e, f = lay_over(half)
    assert (a, b, c, d) == (2, 0, 0, 2)
    assert (e, f) == (0, 0)  # the view's corner is the picture's corner: edges, not centres
