"""The benchmarks of the service under load run to their end; what they measure in a second says nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sample import publish_sample
from benchmarks.service import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_sample(tmp_path_factory.mktemp("sample"))


def measured(benchmark: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def test_the_service_stands_beside_loop_and_rival(registry: Path) -> None:
    found = measured("serve_throughput", "--registry", str(registry), "--turns", "1", "--seconds", "0.5")
    assert found["failed"] == 0
    rates = {name: rate for name, rate in found.items() if name.endswith("_per_second")}
    assert set(rates) == {"served_per_second", "loop_per_second", "starlette_per_second"}
    assert min(rates.values()) > 0


def test_an_empty_chain_and_the_service_are_each_measured_alone(registry: Path) -> None:
    found = measured("serve_throughput", "--registry", str(registry), "--empty", "--turns", "1", "--seconds", "0.5")
    assert found["failed"] == 0
    assert {"p50_ms_above_loop", "p50_ms_above_loop_empty_chain"} <= set(found)


def test_what_overload_is_not_answered_is_refused(registry: Path) -> None:
    found = measured("serve_overload", "--registry", str(registry), "--seconds", "2")
    assert set(found["codes"]) == {"200", "503"}
