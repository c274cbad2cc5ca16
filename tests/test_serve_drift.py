"""Traffic against the evidence of a bundle: noise stays below the bound, a real change goes above it."""

from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from ensemble.monitors import of_outcomes, of_pictures, of_values, of_words
from preprocessing.appearance import NAMES, appearance
from serve.drift import Drift

VERSION = "ens-aaaaaaaaaaaa"


def index(counts_B: np.ndarray, shares_B: np.ndarray) -> float:
    """The population stability index, as deploy/prometheus/drift.yaml computes it."""
    observed_B = (counts_B + 0.5) / (counts_B.sum() + 0.5 * len(counts_B))
    return float(np.sum((observed_B - shares_B) * np.log(observed_B / shares_B)))


def counted(values_N: np.ndarray, monitor: dict[str, Any]) -> tuple[float, float]:
    """The index of these values, and what noise alone stays below."""
    registry = CollectorRegistry()
    drift = Drift(registry)
    drift.expect(VERSION, {"bone_age_months": monitor})
    for value in values_N:
        drift.see(VERSION, bone_age_months=float(value))
    labels = {"version": VERSION, "monitor": "bone_age_months"}
    counts = [
        registry.get_sample_value("carpal_drift_cases_total", {**labels, "bin": f"{number:02d}"})
        for number in range(len(monitor["shares"]))
    ]
    quantile = registry.get_sample_value("carpal_drift_noise_quantile", labels)
    assert quantile is not None
    bound = quantile * (1 / len(values_N) + 1 / monitor["num_cases"])
    return index(np.array(counts, float), np.array(monitor["shares"])), bound


def test_noise_exceeds_the_bound_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        months_C, seen_N = rng.normal(120, 40, 500), rng.normal(120, 40, 120)
        found, bound = counted(seen_N, of_values(months_C))
        alarms += found > bound
    assert alarms <= 3  # 0.3 are expected at 0.999


def test_younger_patients_are_noticed_after_a_hundred() -> None:
    rng = np.random.default_rng(1)
    found, bound = counted(rng.normal(95, 40, 100), of_values(rng.normal(120, 40, 1000)))
    assert found > max(bound, 0.2)


def test_a_bin_that_nobody_meets_is_counted_as_0_and_a_value_beyond_all_edges_falls_into_the_last() -> None:
    monitor = of_values(np.arange(100.0))
    found, _ = counted(np.full(50, 1e6), monitor)
    assert found > 2
    assert len(monitor["shares"]) == len(monitor["edges"]) + 1 == 10
    assert sum(monitor["shares"]) == pytest.approx(1)


def test_equal_values_make_fewer_bins_and_none_is_empty() -> None:
    monitor = of_values(np.array([0.0] * 95 + [1.0] * 5))
    assert min(monitor["shares"]) > 0
    assert len(monitor["shares"]) == len(monitor["edges"]) + 1


def test_words_are_counted_and_an_unknown_one_is_left_out() -> None:
    registry = CollectorRegistry()
    drift = Drift(registry)
    drift.see(VERSION, sex="male")  # its evidence is not known yet
    drift.expect(VERSION, {"sex": of_words({"female": 40, "male": 60})})
    for sex in ("male", "male", "unknown"):
        drift.see(VERSION, sex=sex, brightness=3.0)
    labels = {"version": VERSION, "monitor": "sex"}
    assert registry.get_sample_value("carpal_drift_cases_total", {**labels, "bin": "male"}) == 2
    assert registry.get_sample_value("carpal_drift_cases_total", {**labels, "bin": "female"}) == 0
    assert registry.get_sample_value("carpal_drift_cases_total", {**labels, "bin": "unknown"}) is None
    assert registry.get_sample_value("carpal_drift_evidence_cases", labels) == 100


def test_a_softer_darker_picture_looks_different() -> None:
    rng = np.random.default_rng(0)
    sharp_VHW = rng.integers(0, 256, (1, 64, 64)).astype(np.uint8)
    soft_VHW = np.full((1, 64, 64), 40, np.uint8)
    soft_VHW[0, :32] = 0
    one, other = appearance(sharp_VHW), appearance(soft_VHW)
    assert set(one) == set(NAMES)
    assert one["sharpness"] > 10 * other["sharpness"]
    assert (other["brightness"], other["contrast"], other["blackness"]) == (20.0, 20.0, 0.5)
    assert one["brightness"] == pytest.approx(sharp_VHW.mean())


def test_pictures_bring_their_looks_and_their_outcomes() -> None:
    pictures = [appearance(np.full((1, 8, 8), level, np.uint8)) for level in range(99)]
    monitors = of_pictures(pictures) | of_outcomes(99, 1)
    assert monitors["outcome"]["words"] == ["answered", "refused"]
    assert monitors["outcome"]["shares"][1] == pytest.approx(1.5 / 101)
    assert monitors["brightness"]["num_cases"] == 99
