"""Explanations: what an ensemble points at, and whether the checks tell a true map from a false one."""

import dataclasses
import json
import tracemalloc

import cv2
import numpy as np
import pytest
import torch

from ensemble.__main__ import main
from ensemble.combine import combine
from ensemble.explain import average, explain
from ensemble.faithful import agreement, check, correlation, follow, inside, shuffle
from ensemble.overlay import draw
from ensemble.predictor import Predictor
from ensemble.registry import Registry
from preprocessing.charts import png
from preprocessing.limits import MAX_BYTES
from preprocessing.recipe import SHIPPED
from preprocessing.views import hand_in_view
from tests import hands
from tests.conftest import write_source
from tests.ensemble_fixtures import SIZE, make_cohort, make_study

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("explain")
    study = make_study(root / "study", make_cohort(root / "cohort"), states=("complete",) * 2)
    registry = Registry(root / "registry")
    registry.set_alias("champion", registry.publish(combine(study).write).version)
    return registry


@pytest.fixture(scope="module")
def predictor(registry):
    return Predictor(registry.resolve("champion"))


@pytest.fixture(scope="module")
def two_views(tmp_path_factory):
    root = tmp_path_factory.mktemp("views")
    cohort = make_cohort(root / "cohort", views=("full", "crop"), segmenter=SHIPPED.read_bytes())
    study = make_study(root / "study", cohort, states=("complete",) * 2)
    registry = Registry(root / "registry")
    return Predictor(registry.resolve(registry.publish(combine(study, method="equal", rule="mean").write).version))


@pytest.fixture(scope="module")
def explanation(predictor):
    return explain(predictor, PICTURE, "male", methods=("relevance", "cam"))


PICTURE = cv2.imencode(".png", np.random.default_rng(1).integers(0, 256, (90, 70)).astype(np.uint8))[1].tobytes()


def test_an_explanation_is_that_of_the_answer(predictor, explanation):
    assert explanation.prediction.bone_age_months == predictor.score(PICTURE, "male").bone_age_months
    assert sum(view.weight for view in explanation.views) == pytest.approx(1)
    assert explanation.views[0].maps["cam"].shape == (SIZE, SIZE)


def test_the_ensemble_s_map_is_the_weighted_mean_of_its_members(predictor, explanation):
    weights = np.array([member.weight for member in predictor.bundle.members])
    view = explanation.views[0]
    each = average(predictor, predictor.networks, view.picture_SS, "male", "relevance")
    assert len(each) == len(weights)
    np.testing.assert_allclose(view.maps["relevance"], np.tensordot(weights, each, axes=1), atol=1e-6)


def test_a_map_is_the_mean_over_the_test_time_views_each_at_its_place(predictor, explanation, monkeypatch):
    picture_SS, networks = explanation.views[0].picture_SS, predictor.networks
    alone, mirrored = (average(predictor, networks, p, "male", "cam") for p in (picture_SS, picture_SS[:, ::-1]))
    monkeypatch.setitem(predictor.bundle.manifest, "views", ["identity", "flip"])
    both = average(predictor, networks, picture_SS, "male", "cam")
    np.testing.assert_allclose(both, (alone + mirrored[:, :, ::-1]) / 2, atol=1e-5)


@pytest.mark.parametrize(("sex", "methods"), [("unknown", ("cam",)), ("male", ("guess",))])
def test_what_cannot_be_explained_is_refused(predictor, sex, methods):
    with pytest.raises(ValueError, match=r"male or female|methods are"):
        explain(predictor, PICTURE, sex, methods=methods)


def test_the_checks_cover_every_map(predictor, explanation):
    (checks,) = check(predictor, explanation)
    found = checks.to_dict()
    assert set(found["deletion_months"]) == {"relevance", "cam", "chance", "detail"}
    assert set(found["shuffled"]) == set(found["agreement"]) == {"relevance", "cam"}
    assert found["hand_share"] is None  # this recipe looks for no hand
    assert found["inside"] == {}


def test_both_curves_are_written_step_by_step(predictor, explanation):
    (checks,) = check(predictor, explanation)
    found = json.loads(json.dumps(checks.to_dict()))
    curves = found["curves"]
    assert curves["share_of_picture"] == [step / 8 for step in range(1, 9)]
    for way in ("deletion_months", "insertion_months"):
        assert set(curves[way]) == {"relevance", "cam", "chance", "detail"}
        for name, months in curves[way].items():
            assert np.mean(months) == pytest.approx(found[way][name], abs=1e-3)


def test_every_view_is_explained_checked_and_drawn(two_views):
    explanation = explain(two_views, hands.png(hands.hand(1).image), "male", methods=("relevance",))
    checks = check(two_views, explanation)
    assert {view.view for view in explanation.views} == {"full", "crop"}
    assert [view.view for view in explanation.views] == [found.view for found in checks]
    assert sorted(member for view in explanation.views for member in view.seen_by) == ["study/0", "study/1"]
    figure = draw(explanation, checks)
    titles = " ".join(axes.get_title() for axes in figure.axes)
    for view in explanation.views:
        assert f"({view.view})\n{100 * view.weight:.0f} % of the answer, 1 of 2 members" in titles


def test_a_page_draws_both_curves_and_says_which_map_fails(predictor, explanation):
    (checks,) = check(predictor, explanation)
    figure = draw(explanation, [dataclasses.replace(checks, hand_share=0.4, inside={"relevance": 0.62, "cam": 0.95})])
    drawn = {axes.get_title(): axes for axes in figure.axes}
    for way in ("deletion", "insertion"):
        (axes,) = (axes for title, axes in drawn.items() if title.startswith(f"{way}:"))
        assert {line.get_label() for line in axes.get_lines()} == {"relevance", "cam", "chance", "detail"}
    (relevance,) = (title for title in drawn if "62 %" in title)
    (cam,) = (title for title in drawn if "95 %" in title)
    assert "fails hand" in relevance
    assert "fails hand" not in cam


def test_a_true_map_moves_the_answer_before_a_false_one_does():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)

    def months(pictures_NSS: np.ndarray) -> np.ndarray:
        return pictures_NSS[:, 16:32, 16:32].astype(float).std(axis=(1, 2))  # detail at one place alone

    true = np.zeros((64, 64))
    true[16:32, 16:32] = 1
    one, other = follow(months, picture, true), follow(months, picture, true[::-1])
    assert one.deletion_months > 1.5 * other.deletion_months
    assert one.insertion_months < other.insertion_months / 2


def test_heat_of_either_sign_counts_on_the_hand():
    hand = np.zeros((4, 4), bool)
    hand[:2] = True
    heat = np.array([[3.0] * 4, [-3.0] * 4, [1.0] * 4, [-1.0] * 4])
    assert inside(heat, hand) == pytest.approx(0.75)


def test_shuffled_weights_are_the_same_numbers(predictor):
    net = predictor.networks[0].net
    other = shuffle(net, 0)
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.detach().flatten().sort().values, two.detach().flatten().sort().values)
    assert not torch.equal(net.head.weight, other.head.weight)


def test_members_that_point_at_the_same_agree():
    one = np.random.default_rng(0).random((8, 8))
    assert agreement(np.stack([one, 2 * one + 1])) == pytest.approx(1)
    assert agreement(one[None]) == 1
    assert correlation(one, np.ones((8, 8))) == 0


def test_the_hand_of_a_view_is_where_its_bones_are():
    reader = hands.reader(views=("full", "crop"))
    look = reader.look(hands.png(hands.hand(1).image))
    for name, picture in zip(("full", "crop"), reader.pictures(look), strict=True):
        hand = hand_in_view(look.image_HW, name, reader.recipe, look.hand)
        assert hand.shape == picture.shape
        assert picture[hand].mean() > 2 * picture[~hand].mean()


def test_a_page_is_drawn(predictor, explanation):
    drawing = cv2.imdecode(np.frombuffer(png(draw(explanation, reference_months=90.0)), np.uint8), cv2.IMREAD_COLOR)
    assert drawing.shape[1] > 1000
    assert drawing.std() > 10


def test_the_command_explains_a_folder(registry, tmp_path, capsys):
    source = write_source(tmp_path / "rsna", 5)
    assert main(["explain", str(registry.path), str(source), str(tmp_path / "out"), "--limit", "1"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    pictures = [row["picture"] for row in summary["cases"]]
    (mean,) = summary["mean"]
    assert len(pictures) == mean["n"] == 1
    assert all((tmp_path / "out" / picture).exists() for picture in pictures)
    assert set(summary["rules"]) == set(mean["passed"]["relevance"]) == {"hand", "deletion", "insertion", "shuffled"}
    assert summary["cases"][0]["views"][0]["passed"]["relevance"]["hand"] is None  # this recipe looks for no hand
    printed = capsys.readouterr().out
    assert "mean of 1 cases" in printed
    assert "hand not judged" in printed
    assert all(rule in printed for rule in summary["rules"].values())


@pytest.mark.parametrize("case_id", ["../../evil", "{folder}/absolute", "a/b", "..", "summary", "x" * 300])
def test_a_case_id_is_no_path(registry, tmp_path, case_id):
    (tmp_path / "p.png").write_bytes(PICTURE)
    name = case_id.format(folder=tmp_path)
    (tmp_path / "t.csv").write_text(f"case_id,file,sex,bone_age_months\n{name},p.png,male,100\n")
    out = tmp_path / "maps" / "out"
    assert main(["explain", str(registry.path), str(tmp_path / "t.csv"), str(out), "--no-checks"]) == 0
    assert json.loads((out / "summary.json").read_text())["cases"][0]["case_id"] == name
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - {tmp_path / "p.png", tmp_path / "t.csv"}
    assert {path.parent for path in written} == {out}
    assert len(written) == 3


def test_the_bundle_is_named_by_its_name_in_the_registry(registry, tmp_path, capsys):
    (tmp_path / "one.png").write_bytes(b"no picture")
    words = [f"{registry.path}@champion", str(tmp_path / "one.png"), str(tmp_path / "out"), "--sex", "male"]
    main(["explain", *words])
    assert "one: refused, " in capsys.readouterr().out


def test_where_nothing_is_explained_the_command_fails_and_says_why(registry, tmp_path, capsys):
    (tmp_path / "one.png").write_bytes(b"no picture")
    words = [str(registry.path), str(tmp_path / "one.png"), str(tmp_path / "out"), "--sex", "male"]
    assert main(["explain", *words]) == 2
    assert "could be explained. one: The file must be a PNG" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["cases"][0]["refused"] == "unsupported_format"


def test_one_refused_radiograph_of_several_is_no_failure(registry, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "good.png").write_bytes(PICTURE)
    (tmp_path / "t.csv").write_text("file,sex,bone_age_months\nbad.png,male,100\ngood.png,male,120\n")
    words = [str(registry.path), str(tmp_path / "t.csv"), str(tmp_path / "out"), "--no-checks"]
    assert main(["explain", *words]) == 0
    assert "bad: refused, " in capsys.readouterr().out


def test_no_more_is_read_of_a_file_than_a_radiograph_may_have(registry, tmp_path, capsys):
    with (tmp_path / "archive.png").open("wb") as file:
        file.write(PICTURE)
        file.truncate(8 * MAX_BYTES)  # takes no place on the disk
    words = [str(registry.path), str(tmp_path / "archive.png"), str(tmp_path / "out"), "--sex", "male"]
    tracemalloc.start()
    try:
        assert main(["explain", *words]) == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "A file may have" in capsys.readouterr().err
    assert peak < 4 * MAX_BYTES  # modules that are imported meanwhile count too


def test_one_radiograph_needs_its_sex(registry, tmp_path, capsys):
    (tmp_path / "one.png").write_bytes(PICTURE)
    assert main(["explain", str(registry.path), str(tmp_path / "one.png"), str(tmp_path / "out")]) == 2
    assert "--sex male or --sex female" in capsys.readouterr().err
