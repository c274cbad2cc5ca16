"""The stage commands, one after the other, as a person types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.service import running_service
from serve.ask import main as ask
from tests.conftest import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]  # many steps, each with a limit of its own


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_drawn_hands_to_an_answer_over_http(tmp_path: Path) -> None:
    hands, cohort, study, registry = (tmp_path / name for name in ("hands", "cohort", "study", "registry"))
    run("preprocessing", "phantom", hands, "--cases", 48, "--seed", 3)
    run("preprocessing", "prepare", hands, cohort, "--size", 64, "--folds", 2, "--test", 0.2)
    run("search", "run", cohort, study, "--space", "tests.spaces_of_tests:tiny", "--trials", 2)
    assert "champion is now" in run("ensemble", "build", study, registry)
    figures = json.loads(run("ensemble", "evaluate", registry, hands, "--json"))
    assert figures["n"] + figures["training_cases"]["left_out"] == 48
    assert figures["n"] == 10  # the locked test: what it was trained on says nothing of it
    assert figures["mae_ci95"][0] <= figures["mae_months"] <= figures["mae_ci95"][1]
    answer, page = tmp_path / "answer.json", tmp_path / "page.html"
    with running_service(registry) as service:
        assert ask([service.url, "--cohort", str(cohort), "--wait", "60", "--out", str(answer)]) == 0
    made_of = ("--study", study, "--cohort", cohort, "--answer", answer)
    run("ensemble", "report", registry, *made_of, "--out", page)
    assert json.loads(answer.read_text())["answer"]["version"] in page.read_text()
