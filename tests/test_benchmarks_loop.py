"""The benchmark of what a trial costs beside the bare loop, on a few pictures."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_both_loops_are_timed_and_their_ratio_is_told() -> None:
    words = ["--backbone", "test_resnet", "--size", "64", "--batch", "4", "--images", "32", "--precision", "fp32"]
    command = [sys.executable, "-m", "benchmarks.loop", *words, "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    row = found["models"]["test_resnet"]
    assert found["n"] == {"turns": 3, "images": 32}
    assert len(row["ratios"]) == 3
    assert min(row["trial"], row["bare"], found["ratio"]) > 0
