"""``python -m search check-cluster``: every planted trap is named, and the shipped files raise no alarm."""

import contextlib
import copy
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.__main__ import main
from search.cluster.check import PRICES, check_cluster, read_prices
from search.cluster.file import ClusterFileError, option, read_cluster_file
from search.cluster.kuberay import malformed
from tests.conftest import ROOT

SHIPPED = ["cluster.yaml", "deploy/cluster-gcp.yaml", "deploy/cluster-onprem.yaml"]
MANIFESTS = ["deploy/kuberay/rayjob.yaml", "deploy/kuberay/rayservice.yaml"]
BROKEN = sorted((ROOT / "tests" / "broken_clusters").glob("*.yaml"))


def test_there_are_a_dozen_broken_files_and_more() -> None:
    assert len(BROKEN) >= 12


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_every_planted_fault_is_named_and_no_other(path: Path) -> None:
    (planted,) = re.findall(r"^# faults: (.+)$", path.read_text(), re.MULTILINE)
    found = {finding.code for finding in check_cluster(path).findings if finding.is_fault}
    assert found == set(planted.split())


@pytest.mark.parametrize("name", SHIPPED + MANIFESTS)
def test_shipped_files_raise_no_alarm(name: str) -> None:
    check = check_cluster(ROOT / name)
    assert [finding for finding in check.findings if finding.is_fault] == []


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_have_kuberays_structure(name: str) -> None:
    assert list(malformed(read_cluster_file(ROOT / name).raw)) == []


def test_it_says_what_a_search_runs_on_and_what_an_hour_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-cluster", str(ROOT / "cluster.yaml")]) == 0
    said = capsys.readouterr().out
    assert "trials at a time: up to 9 of 1 GPU each (8 on gpu_spot, 1 on gpu_on_demand)" in said
    assert "0.19 USD idle" in said
    assert "prices change" in said
    assert "YOUR-BUCKET" in said


@pytest.mark.parametrize(("share", "count"), [("0.5", 18), ("0.3", 27), ("1", 9), ("0", 72)])
def test_trials_at_a_time_follow_the_share_of_a_gpu(share: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check-cluster", str(ROOT / "cluster.yaml"), "--gpus-per-trial", share])
    assert f"trials at a time: up to {count} of" in capsys.readouterr().out


def test_a_trial_on_more_gpus_than_any_machine_has_never_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-cluster", str(ROOT / "cluster.yaml"), "--gpus-per-trial", "2"]) == 1
    assert "FAULT unschedulable" in capsys.readouterr().out


def test_prices_come_from_the_users_own_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "prices.csv"
    own.write_text(re.sub(r"(aws,m6i\.xlarge,4,0,,16),0\.192", r"\1,7.5", PRICES.read_text()))
    main(["check-cluster", str(ROOT / "cluster.yaml"), "--prices", str(own)])
    assert "7.50 USD idle" in capsys.readouterr().out


def test_a_machine_without_a_price_is_named_and_not_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text((ROOT / "cluster.yaml").read_text().replace("g5.2xlarge", "g9.moon"))
    main(["check-cluster", str(file)])
    assert "not known; the price table lacks g9.moon" in capsys.readouterr().out


def test_every_price_is_dated_and_spot_is_the_cheaper_one() -> None:
    prices = read_prices().values()
    assert all(re.fullmatch(r"20\d\d-\d\d", price.as_of) for price in prices)
    assert all(0 < price.spot_usd < price.on_demand_usd for price in prices)
    rows = [line.split(",")[:2] for line in PRICES.read_text().splitlines()[1:]]
    assert max(Counter(map(tuple, rows)).values()) == 1


@pytest.mark.parametrize("text", ["", "- a list", "a: [", "kind: Pod", "hello: world"])
def test_what_is_no_cluster_file_is_refused_in_a_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(ClusterFileError, match=r"other\.yaml"):
        check_cluster(path)


def test_a_price_table_without_its_columns_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "prices.csv"
    table.write_text("machine,price\nbig,1\n")
    assert main(["check-cluster", str(ROOT / "cluster.yaml"), "--prices", str(table)]) == 2
    assert "must have the columns" in capsys.readouterr().err


def places_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a file, as the keys that lead there."""
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in keys:
        yield (*at, key)
        yield from places_in(inner, (*at, key))


@pytest.mark.parametrize("name", [*SHIPPED[::2], *MANIFESTS[:1]])
def test_no_shape_of_a_value_makes_it_fail(name: str, tmp_path: Path) -> None:
    whole = yaml.safe_load((ROOT / name).read_text())
    path = tmp_path / "cluster.yaml"
    for number, place in enumerate(list(places_in(whole))[::2]):
        changed = copy.deepcopy(whole)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = ([], {"a": 1}, "x", 3, None, [{"b": True}])[number % 6]
        path.write_text(json.dumps(changed))  # which is YAML too, and read faster
        with contextlib.suppress(ClusterFileError):
            check_cluster(path)


def test_comments_are_not_taken_for_commands(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    shutil.copy(ROOT / "cluster.yaml", path)
    path.write_text(path.read_text() + "# once it was ray-3.0.0.dev0 and RAY_AUTH_TOKEN=0123456789abcdef\n")
    assert check_cluster(path).num_faults == 0


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("ray start --num-cpus=3", "3"),
        ("ulimit -n 9; A=1 ray start --num-cpus 3 --head", "3"),
        ("ray start --head --num-cpus='3'", "3"),
        ("ray start --num-cpus=3 'unfinished", "3"),
        ("ray start --num-gpus=3", None),
        ("", None),
    ],
)
def test_options_are_read_as_the_shell_reads_them(command: str, value: str | None) -> None:
    assert option(command, "num-cpus") == value
