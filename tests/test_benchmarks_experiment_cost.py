"""What a round of judging costs is measured beside a report; at this size the figures say nothing."""

import json

import pytest

from benchmarks.experiment_cost import main


def test_both_kinds_of_experiment_are_judged_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--predictions", "300", "--readings", "60", "--rounds", "3"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["mode"] for row in rows] == ["shadow", "split"]
    assert all(row["round_ms"] > 0 and row["report_ms"] > 0 for row in rows)
