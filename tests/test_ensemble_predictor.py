"""The predictor: one answer for one picture, whoever asks and however many at once."""

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save

from ensemble import members
from ensemble.bundle import Bundle
from ensemble.combine import combine
from ensemble.predictor import Predictor, in_words
from ensemble.registry import Registry
from ensemble.width import mass_inside
from preprocessing.radiograph import RadiographError
from preprocessing.standardize import Reader
from search.model import BIN_MONTHS, load_model, sex_codes
from tests.dicom_files import dicom
from tests.ensemble_fixtures import SIZE, make_cohort, make_study


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("predictor")
    study = make_study(root / "study", make_cohort(root / "cohort"))
    registry = Registry(root / "registry")
    return registry.resolve(registry.publish(combine(study, method="equal", rule="mean").write).version)


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(bundle)


@pytest.fixture(scope="module")
def uncalibrated(bundle):
    """Its distributions are the members' mixture itself."""
    return Predictor(replace(bundle, manifest=bundle.manifest | {"calibration": None}))


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 1, SIZE, SIZE)).astype(np.uint8), rng.random(count) < 0.5


@pytest.mark.parametrize(
    ("num_gpus", "device", "is_there"),
    [
        (0, "cpu", True),
        (0, "cuda", False),
        (2, "cuda", True),
        (2, "cuda:1", True),
        (2, "cuda:2", False),
        (2, "cuda:-1", False),
        (2, "cudaX", False),
    ],
)
def test_a_device_is_one_that_torch_finds(monkeypatch, num_gpus, device, is_there):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    with nullcontext() if is_there else pytest.raises(ValueError, match=f"got '{device}'"):
        members.check_device(device)


@pytest.mark.parametrize(
    ("months", "words"),
    [
        (126, "10 years 6 months"),
        (9.4, "9 months"),
        (13, "1 year 1 month"),
        (12, "1 year"),
        (11.6, "1 year"),
        (119.5, "10 years"),
        (24.4, "2 years"),
        (1, "1 month"),
        (0.2, "0 months"),
        (-0.3, "0 months"),
    ],
)
def test_bone_age_is_said_as_people_say_it(months, words):
    assert in_words(months) == words


def test_the_answer_does_not_depend_on_the_batch(predictor):
    pixels_BVHW, is_male_B = pictures(37)
    together = predictor.predict(pixels_BVHW, is_male_B)
    for index in (0, 1, 31, 32, 36):
        (alone,) = predictor.predict(pixels_BVHW[index : index + 1], is_male_B[index : index + 1])
        assert alone.bone_age_months == pytest.approx(together[index].bone_age_months, abs=1e-3)


def test_the_ensemble_is_the_weighted_mixture_of_averaged_fold_models(uncalibrated, bundle):
    pixels_BVHW, is_male_B = pictures(3)
    expected = np.zeros((3, 240))
    for member in bundle.members:
        for file in member.files:
            with torch.inference_mode():
                logits = load_model(file, member.config)(
                    torch.from_numpy(pixels_BVHW[:, 0]), torch.from_numpy(sex_codes(is_male_B))
                )
            expected += member.weight / len(member.files) * logits.double().softmax(dim=1).numpy()
    found = uncalibrated.predict(pixels_BVHW, is_male_B)
    np.testing.assert_allclose([prediction.distribution for prediction in found], expected, atol=1e-6)
    np.testing.assert_allclose([prediction.bone_age_months for prediction in found], expected @ BIN_MONTHS, atol=1e-3)


def test_the_distribution_sums_to_one_and_its_mean_is_the_bone_age(predictor):
    for prediction in predictor.predict(*pictures(4)):
        assert prediction.distribution.dtype == np.float32
        assert prediction.distribution.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.distribution @ BIN_MONTHS == pytest.approx(prediction.bone_age_months, abs=1e-2)


def test_the_spread_is_the_deviation_between_members(predictor, bundle):
    (prediction,) = predictor.predict(*pictures(1))
    months = []
    for member in bundle.members:
        with torch.inference_mode():
            pixels_BVHW, is_male_B = pictures(1)
            image, sex = torch.from_numpy(pixels_BVHW), torch.from_numpy(sex_codes(is_male_B))
            logits = [load_model(file, member.config)(image[:, 0], sex) for file in member.files]
        months.append(float(torch.stack(logits).softmax(dim=2).mean(dim=0)[0] @ torch.arange(240.0)))
    assert prediction.spread_months == pytest.approx(np.std(months), abs=1e-3)


def test_members_that_disagree_are_said_to(predictor):
    (prediction,) = predictor.predict(*pictures(1))
    assert prediction.spread_months > 12  # the fixture's networks start 20 months apart
    (warning,) = prediction.warnings
    assert (warning.code, warning.score) == ("members_disagree", prediction.spread_months)
    assert "members disagree" in warning.message


def test_a_file_gets_the_answer_of_its_pixels(predictor, bundle):
    image = np.random.default_rng(1).integers(0, 256, (90, 70)).astype(np.uint8)
    data = cv2.imencode(".png", image)[1].tobytes()
    scored = predictor.score(data, "male")
    (direct,) = predictor.predict(Reader(bundle.recipe).read(data).pixels[None], np.array([True]))
    assert scored.bone_age_months == direct.bone_age_months
    assert (scored.version, scored.recipe) == (bundle.version, bundle.recipe.hash)


def test_each_member_sees_its_own_view(tmp_path):
    cohort = make_cohort(tmp_path / "cohort", views=("full", "crop"), segmenter=save({"w": torch.ones(2)}))
    study = make_study(tmp_path / "study", cohort, states=("complete",) * 2)
    combine(study, method="equal", rule="mean").write(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    two_views = Predictor(replace(bundle, manifest=bundle.manifest | {"calibration": None}))
    pixels_BVHW, is_male_B = np.repeat(pictures(1)[0], 2, axis=1), np.array([True])
    pixels_BVHW[:, 1] = 255 - pixels_BVHW[:, 0]
    expected = np.zeros(240)
    for member, view in zip(two_views.bundle.members, (0, 1), strict=True):
        for file in member.files:
            with torch.inference_mode():
                logits = load_model(file, member.config)(torch.from_numpy(pixels_BVHW[:, view]), torch.ones(1))
            expected += logits.double().softmax(dim=1).numpy()[0] / 4
    np.testing.assert_allclose(two_views.predict(pixels_BVHW, is_male_B)[0].distribution, expected, atol=1e-6)


def test_a_header_that_contradicts_the_sex_given_is_told(predictor):
    image = np.random.default_rng(1).integers(0, 256, (90, 70)).astype(np.uint8)
    codes = [[warning.code for warning in predictor.score(dicom(image), sex).warnings] for sex in ("female", "male")]
    assert ("contradiction" in codes[0], "contradiction" in codes[1]) == (False, True)


def test_threads_do_not_change_the_answer(predictor, bundle):
    torch.set_num_threads(2)
    try:
        threaded = Predictor(bundle)
    finally:
        torch.set_num_threads(1)
    expected = predictor.predict(*pictures(5))
    for one, other in zip(threaded.predict(*pictures(5)), expected, strict=True):
        assert one.bone_age_months == pytest.approx(other.bone_age_months, abs=1e-4)


def test_a_lone_radiograph_meets_more_threads_and_gets_the_same_answer(predictor, bundle, monkeypatch):
    used = []

    class Pool(ThreadPoolExecutor):
        def map(self, *arguments):
            used.append(self._max_workers)
            return super().map(*arguments)

    monkeypatch.setattr(members, "ThreadPoolExecutor", Pool)
    quick = Predictor(bundle, lone_threads=3)
    (alone,), together = quick.predict(*pictures(1)), quick.predict(*pictures(2))
    assert used == [3]  # of both
    assert [alone.bone_age_months, len(together)] == [predictor.predict(*pictures(1))[0].bone_age_months, 2]


def test_no_picture_gets_no_prediction(predictor):
    assert predictor.predict(*pictures(0)) == []


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 1, SIZE, SIZE + 1), np.uint8),
        ((2, 2, SIZE, SIZE), np.uint8),
        ((2, 1, SIZE, SIZE), np.float32),
        ((2, SIZE, SIZE), np.uint8),
    ],
)
def test_pixels_that_the_recipe_did_not_make_are_refused(predictor, shape, dtype):
    with pytest.raises(ValueError, match="bundle's recipe"):
        predictor.predict(np.zeros(shape, dtype), np.zeros(shape[0], bool))


def test_a_sex_for_every_picture_is_needed(predictor):
    with pytest.raises(ValueError, match="as many sexes"):
        predictor.predict(pictures(2)[0], np.array([True]))


def test_an_unknown_sex_is_answered_for_both_and_by_their_mixture(predictor, bundle):
    pixels_BVHW, _ = pictures(2)
    found, known = predictor.predict(pixels_BVHW, np.array([None, True]))
    assert known.bone_age_months == pytest.approx(
        predictor.predict(pixels_BVHW[1:], np.array([True]))[0].bone_age_months, abs=1e-3
    )
    assert known.by_sex == {}
    girl, boy = (predictor.predict(pixels_BVHW[:1], np.array([sex]))[0] for sex in (False, True))
    share = bundle.manifest["calibration"]["sex"]["share_male"]
    np.testing.assert_allclose(
        found.distribution, (1 - share) * girl.distribution + share * boy.distribution, atol=1e-6
    )
    assert found.by_sex["female"].bone_age_months == pytest.approx(girl.bone_age_months, abs=1e-3)
    assert found.by_sex["male"].bone_age_months == pytest.approx(boy.bone_age_months, abs=1e-3)
    assert found.by_sex["male"].probability == pytest.approx(share)
    assert "sex_unknown" in [warning.code for warning in found.warnings]


def test_the_interval_of_an_unknown_sex_holds_both_sexes_intervals(predictor):
    pixels_BVHW, _ = pictures(1)
    (found,) = predictor.predict(pixels_BVHW, np.array([None]))
    for sex in (False, True):
        (known,) = predictor.predict(pixels_BVHW, np.array([sex]))
        for level, (low, high) in known.intervals.items():
            assert found.intervals[level][0] <= low + 1e-3
            assert found.intervals[level][1] >= high - 1e-3


def test_intervals_hold_the_bone_age_and_grow_with_their_level(predictor):
    for prediction in predictor.predict(*pictures(5)):
        assert list(prediction.intervals) == [80, 90, 95]
        ends = np.array(list(prediction.intervals.values()))
        assert (np.diff(ends[:, 0]) <= 0).all()
        assert (np.diff(ends[:, 1]) >= 0).all()
        assert ends[0, 0] <= prediction.bone_age_months <= ends[0, 1]


def test_a_bias_that_the_bundle_corrects_moves_answer_and_distribution(bundle, predictor):
    manifest = copy.deepcopy(bundle.manifest)
    bias = {"female": {"offset_months": 0, "slope": 0}, "male": {"offset_months": -4.5, "slope": 0}}
    manifest["calibration"]["bias"]["correction"] = bias
    pixels_BVHW, _ = pictures(2)
    before = predictor.predict(pixels_BVHW, np.array([False, True]))
    after = Predictor(replace(bundle, manifest=manifest)).predict(pixels_BVHW, np.array([False, True]))
    moved = [b.bone_age_months - a.bone_age_months for a, b in zip(before, after, strict=True)]
    assert moved == pytest.approx([0, -4.5], abs=1e-3)
    assert after[1].distribution @ BIN_MONTHS == pytest.approx(after[1].bone_age_months, abs=0.05)


def test_a_bundle_without_calibration_gives_no_interval(uncalibrated):
    assert uncalibrated.predict(*pictures(1))[0].intervals == {}


def test_the_interval_holds_of_the_distribution_what_it_says(predictor, uncalibrated):
    given = pictures(5)
    for prediction, drawn in zip(predictor.predict(*given), uncalibrated.predict(*given), strict=True):
        assert mass_inside(prediction.distribution, *prediction.intervals[90]) == pytest.approx(0.9, abs=0.01)
        assert mass_inside(drawn.distribution, *prediction.intervals[90]) != pytest.approx(0.9, abs=0.05)


def test_a_profile_runs_its_members_alone(bundle):
    profiles = {**bundle.manifest["profiles"], "fast": {"weights": [0.0, 1.0, 0.0]}}
    predictor = Predictor(replace(bundle, manifest=bundle.manifest | {"profiles": profiles}))
    assert predictor.profiles == ("full", "fast")
    pixels_BVHW, is_male_B = pictures(1)
    (fast,) = predictor.predict(pixels_BVHW, is_male_B, profile="fast")
    alone = np.zeros(240)
    for file in bundle.members[1].files:
        with torch.inference_mode():
            net = load_model(file, bundle.members[1].config)
            logits = net(torch.from_numpy(pixels_BVHW[:, 0]), torch.from_numpy(sex_codes(is_male_B)))
        alone += logits.double().softmax(dim=1).numpy()[0] / len(bundle.members[1].files)
    np.testing.assert_allclose(fast.distribution, alone, atol=1e-6)
    assert fast.intervals == {}  # a bundle from before it had its own: the ensemble's would be too narrow
    assert (fast.profile, fast.spread_months) == ("fast", pytest.approx(0, abs=1e-6))
    with pytest.raises(ValueError, match="has the profiles full, fast, got 'slow'"):
        predictor.predict(pixels_BVHW, is_male_B, profile="slow")


def test_the_fast_profile_answers_by_a_calibration_of_its_own(bundle):
    own = copy.deepcopy(bundle.manifest["calibration"])
    line = {sex: {"offset_months": 6.0, "slope": 0.0} for sex in ("female", "male")}
    own["bias"]["correction"] = line
    for group in own["intervals"]["groups"]:
        group["reach"] = [2 * reach for reach in group["reach"]]
    fast = {"weights": bundle.manifest["profiles"]["full"]["weights"], "calibration": own}
    profiles = {"full": bundle.manifest["profiles"]["full"], "fast": fast}
    predictor = Predictor(replace(bundle, manifest=bundle.manifest | {"profiles": profiles}))
    one, other = (predictor.predict(*pictures(1), profile=profile)[0] for profile in ("full", "fast"))
    assert other.bone_age_months == pytest.approx(one.bone_age_months + 6, abs=1e-3)
    assert np.diff(other.intervals[80]) > np.diff(one.intervals[80])


def test_the_chronological_age_is_told_beside_the_answer_and_changes_nothing(predictor):
    data = cv2.imencode(".png", np.random.default_rng(1).integers(0, 256, (90, 70)).astype(np.uint8))[1].tobytes()
    young, old = (predictor.score(data, "male", chronological_age_months=months) for months in (40.0, 200.0))
    without = predictor.score(data, "male")
    assert young.bone_age_months == old.bone_age_months == without.bone_age_months
    assert without.chronology is None
    assert (young.chronology.status, old.chronology.status) == ("advanced", "delayed")


def test_a_network_that_gives_no_number_is_named_and_not_averaged(bundle):
    own = Predictor(bundle)
    next(own.networks[0].net.backbone.parameters()).data.fill_(3e38)
    with pytest.raises(ValueError, match=r"fold_0\.safetensors answers a radiograph with no number"):
        own.predict(*pictures(1))


def test_an_unknown_word_for_the_sex_is_refused(predictor):
    with pytest.raises(ValueError, match="male or female, got 'M'"):
        predictor.score(b"", "M")


def test_a_file_that_is_no_picture_is_refused(predictor):
    with pytest.raises(RadiographError):
        predictor.score(b"no picture", "male")
