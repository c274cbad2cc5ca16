"""The answer on the wire: every part of a prediction, as plain JSON values."""

import json

import numpy as np
import pytest

from ensemble.prediction import Prediction, SexAnswer
from preprocessing.quality import Finding
from serve.protocol import answer

FLAT = np.full(240, 1 / 240, np.float32)


def test_a_known_sex_has_intervals_and_nothing_by_sex():
    wire = json.loads(
        json.dumps(answer(Prediction(100.0, 2.0, FLAT, "ens-1", "r", "b", "c", intervals={90: (80.12345, 121.0)})))
    )
    assert wire["intervals"] == {"90": [80.1235, 121.0]}
    assert wire["by_sex"] == {}
    assert wire["male_probability"] is None
    assert wire["chronology"] is None
    assert wire["profile"] == "full"


def test_an_unknown_sex_has_both_answers():
    by_sex = {"female": SexAnswer(90.0, {90: (70.0, 110.0)}, 0.25), "male": SexAnswer(112.0, {90: (92.0, 131.0)}, 0.75)}
    wire = json.loads(json.dumps(answer(Prediction(106.5, 2.0, FLAT, "ens-1", "r", "b", "c", by_sex=by_sex))))
    assert wire["by_sex"]["female"] == {
        "bone_age_months": 90.0,
        "intervals": {"90": [70.0, 110.0]},
        "probability": 0.25,
    }
    assert sum(one["probability"] for one in wire["by_sex"].values()) == 1


def test_the_chronological_age_comes_with_its_source():
    wire = answer(Prediction(60.0, 0.0, FLAT, "ens-1", "r", "b", "c").beside(40.0, "male"))
    assert wire["chronology"]["status"] == "advanced"
    assert wire["chronology"]["difference_months"] == 20
    assert "Gilsanz" in wire["chronology"]["source"]


def test_warnings_keep_their_code_and_sentence():
    warning = Finding("sex_improbable", "warned", 0.001, 0.02, "Check the sex.")
    wire = answer(Prediction(60.0, 0.0, FLAT, "ens-1", "r", "b", "c", warnings=(warning,)))
    assert wire["warnings"] == [{"code": "sex_improbable", "message": "Check the sex."}]
    assert wire["bone_age_months"] == pytest.approx(60)


def test_an_answer_names_all_that_made_it_by_hash():
    wire = answer(Prediction(60.0, 0.0, FLAT, "ens-1", "r", "b", "c"))
    assert (wire["version"], wire["recipe"], wire["bundle"], wire["cohort"]) == ("ens-1", "r", "b", "c")
