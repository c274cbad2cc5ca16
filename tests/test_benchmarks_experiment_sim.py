"""Simulated experiments: equals are left undecided, a better challenger is found, and the curves are drawn."""

import json
from pathlib import Path

import pytest

from benchmarks.experiment_sim import drawn, experiment, main, naively_decided_at
from serve.experiment import Policy


def test_equals_stay_undecided_and_the_better_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "curves.png"
    arguments = ["--experiments", "80", "--readings", "500", "--gain", "1", "--out", str(out)]
    assert main(arguments) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]}
    assert all(rows[f"{mode}, equals"]["decided"] <= 0.05 for mode in ("shadow", "split", "canary"))
    assert rows["shadow, 1.00 months better"]["decided"] > 0.95
    assert rows["split, 1.00 months better"]["decided"] > rows["split, equals"]["decided"]
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_an_ordinary_interval_that_is_watched_finds_winners_between_equals() -> None:
    found = [naively_decided_at(experiment(drawn(0.0), "shadow", 500, seed), "shadow", Policy()) for seed in range(80)]
    assert sum(at <= 500 for at in found) / 80 > 0.15
