"""A cluster for real: ``ray up`` on three hosts of one machine, the README's page of commands, and hosts that die.

The hosts are namespaces (see tests/cluster_hosts.py); the cluster file is deploy/cluster-onprem.yaml with other
addresses and without the installation. Tests go in the order of the page; each brings the
cluster into the state that it needs.
"""

import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import pytest
import sqlalchemy as sa

from benchmarks.mixed_load import Traffic
from benchmarks.serve_chaos import disturbed, line
from search.trial import all_outcomes
from serve import tables
from serve.database import Database
from tests.cluster_hosts import TOOLS, Running, missing
from tests.conftest import plain_recipe, write_source
from tests.local_cluster import (
    HEAD,
    OPERATOR,
    TRAINS,
    WORKERS,
    Cluster,
    cluster_of_hosts,
    page,
    tunnel,
    wait_for_folds,
    wait_until,
)
from tests.test_search_faults import assert_accounted_for_once, fold_files

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

CASES = 720
READS = r"Map\(.*_read"
"""Name of the tasks of `score` that read files."""
PROCESSES = r"ray::(?!\w+Agent)"
"""Names of a worker's processes, at work or waiting for it; without the agents of Ray itself."""
NOTICE_S = 15
"""That a reclaimed machine is left; clouds leave 30 s to two minutes."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three hosts with Ray on them, a tunnel to the dashboard, and a prepared source; all gone afterwards."""
    if why := missing():  # asked for by name, so that to pass over it would be an answer that is not true
        pytest.fail(f"The cluster tests cannot run: {why}. On Debian: apt-get install {' '.join(TOOLS.values())}")
    with cluster_of_hosts() as made:
        store = made.hosts.store
        write_source(store / "rsna", CASES)
        for path in (store / "rsna").rglob("*.png"):  # as large as radiographs
            cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None, fx=10, fy=10))
        shutil.copy(next((store / "rsna").rglob("*.png")), store / "hand.png")
        plain_recipe(store)
        print(f"\nray up until three nodes are there: {made.up():.0f} s")
        with tunnel(made):
            yield made


def reports(study: Path) -> Iterator[dict[str, Any]]:
    """What was reported on trials and on their short trainings, by Tune's log."""
    for path in study.glob("tune/*/result.json"):
        yield from map(json.loads, path.read_text().split("\n")[:-1])  # the last line may be half written


def hosts_at_work(study: Path, since: float = 0.0) -> set[str]:
    """Addresses of the hosts that have reported since a time."""
    return {str(said["node_ip"]) for said in reports(study) if said["timestamp"] > since}


def hold_the_first_for_the_other(cluster: Cluster, name: str, job: Running) -> None:
    """Hold the worker that first has tasks of such a name, until the other has one: a worker's processes may start so
    late that the rest would be done by then, rightly."""
    running = rf"ray::{name}"
    wait_until(lambda: cluster.hosts.running_now(running), 120, job.said)
    first = min(cluster.hosts.running_now(running), default=WORKERS[0])
    (other,) = set(WORKERS) - {first}
    with cluster.hosts.held(first, PROCESSES):
        wait_until(lambda: other in cluster.hosts.running_now(running), 240, job.said)


def fill(path: Path) -> None:
    """Fill the file system that it lies on."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65536))


def assert_nothing_was_trained_twice(study: Path, before: dict[str, int], num_trials: int) -> None:
    """No trial is lost, none is doubled, and no fold that was finished has been written again."""
    assert_accounted_for_once(study, num_trials)
    after = fold_files(study)
    assert {file: after[file] for file in before} == before
    assert {outcome["state"] for outcome in all_outcomes(study)} <= {"complete", "stopped"}


def test_only_whoever_has_the_token_gets_an_answer(cluster: Cluster) -> None:
    get = (
        "import httpx2, sys; headers = {'Authorization': 'Bearer ' + word for word in sys.argv[1:]}; "
        "print(httpx2.get('http://127.0.0.1:8265/api/jobs/', headers=headers).status_code)"
    )
    assert cluster.hosts.run(OPERATOR, f"python -c {shlex.quote(get)}").text.strip() == "401"
    assert cluster.hosts.run(OPERATOR, f"python -c {shlex.quote(get)} $(cat ~/.ray/auth_token)").text.strip() == "200"
    # from another host, the dashboard is not there at all
    assert cluster.hosts.run(2, f"exec 3<>/dev/tcp/{cluster.hosts.address(HEAD)}/8265", check=False).returncode


def test_prepare_is_spread_over_the_workers(cluster: Cluster) -> None:
    recipe = f"--size 64 --folds 3 --recipe {cluster.hosts.store}/plain.json"
    with cluster.job("ray job submit -- python -m preprocessing", ("--size 512 --folds 5", recipe)) as job:
        hold_the_first_for_the_other(cluster, "<lambda>", job)
        job.wait()
    assert (cluster.hosts.store / "cohort" / "cohort.json").exists()
    assert cluster.hosts_of_tasks("<lambda>") == set(WORKERS)


def test_a_search_is_spread_over_the_workers(cluster: Cluster) -> None:
    study = cluster.study("study")
    with cluster.search(study, 8) as job:
        wait_until(lambda: hosts_at_work(study), 120, job.said)
        (first, other) = sorted(WORKERS, key=lambda number: cluster.hosts.address(number) not in hosts_at_work(study))
        # a worker's processes may start so late that the rest would be done by then, rightly; and the first one's may
        # have ended by now, since Tune ends an actor for which it has nothing at the moment
        with cluster.hosts.held(first, TRAINS):
            wait_until(lambda: cluster.hosts.address(other) in hosts_at_work(study), 240, job.said)
        job.wait()
    assert_accounted_for_once(study, 8)


def test_a_worker_that_dies_loses_no_trial_and_one_that_joins_late_gets_work(cluster: Cluster) -> None:
    study, (other, late) = cluster.study("worker"), WORKERS
    with cluster.search(study, 8) as job:
        wait_for_folds(study, 2, job)
        cluster.hosts.kill(late)
        before = fold_files(study)
        wait_for_folds(study, len(before) + 2, job)  # the other one goes on alone
        wait_until(lambda: other in cluster.hosts.running_now(TRAINS), 60, job.said)
        with cluster.hosts.held(other, TRAINS):  # or there might be nothing left to do
            cluster.hosts.start(late)
            since = time.time()
            wait_until(lambda: cluster.hosts.address(late) in hosts_at_work(study, since), 240, job.said)
        job.wait()
    assert_nothing_was_trained_twice(study, before, 8)


def test_a_worker_that_is_reclaimed_after_notice_loses_no_trial(cluster: Cluster) -> None:
    cluster.wait_for_nodes(3)
    study, gone = cluster.study("reclaimed"), WORKERS[1]
    with cluster.search(study, 8) as job:
        wait_for_folds(study, 2, job)
        cluster.hosts.run(
            gone,
            f"ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message reclaimed "
            f"--deadline-remaining-seconds {NOTICE_S}",
        )
        time.sleep(NOTICE_S)
        cluster.hosts.kill(gone)
        before = fold_files(study)
        job.wait()
    cluster.hosts.start(gone)
    assert_nothing_was_trained_twice(study, before, 8)


def test_shared_storage_that_is_full_halts_a_search_which_goes_on_when_there_is_room(cluster: Cluster) -> None:
    cluster.wait_for_nodes(3)
    study, filler = cluster.hosts.small / "study", cluster.hosts.small / "filler"
    with cluster.search(study, 6) as job:
        wait_for_folds(study, 2, job)
        fill(filler)
        assert job.process.wait(240) != 0
        assert "python -m search resume" in job.said(), job.said()
    before = fold_files(study)
    filler.unlink()
    with cluster.resume(study) as job:
        job.wait()
    assert_nothing_was_trained_twice(study, before, 6)


def test_a_network_that_is_cut_for_a_minute_loses_no_trial(cluster: Cluster) -> None:
    cluster.wait_for_nodes(3)
    study = cluster.study("network")
    with cluster.search(study, 6) as job:
        wait_for_folds(study, 2, job)
        cluster.hosts.plug(WORKERS[0], is_in=False)
        before = fold_files(study)
        try:
            time.sleep(60)
        finally:
            cluster.hosts.plug(WORKERS[0], is_in=True)
        job.wait()
    assert_nothing_was_trained_twice(study, before, 6)


def test_a_batch_is_scored_by_all_workers(cluster: Cluster) -> None:
    cluster.wait_for_nodes(3)
    cluster.type("ray job submit -- python -m ensemble build")
    with cluster.job("ray job submit -- python -m ensemble score") as job:
        hold_the_first_for_the_other(cluster, READS, job)
        job.wait()
    table = pd.read_parquet(cluster.hosts.store / "scores.parquet")
    assert table["predicted_months"].notna().sum() == CASES
    assert table.loc[table["reason"].notna(), "file"].tolist() == ["boneage-training-dataset.csv"]  # a row, too
    assert cluster.hosts_of_tasks(READS) == set(WORKERS)
    assert HEAD not in cluster.hosts_of_tasks(r"MapWorker.*_Scorer|submit")


def ask(cluster: Cluster) -> None:
    """Wait for an answer of the service, through the page's tunnel."""
    with cluster.job("ray exec cluster.yaml --port-forward"):
        said = cluster.type("python -m serve.ask", ("hand.png", f"{cluster.hosts.store}/hand.png"))
        assert "months" in said.text


def assert_no_prediction_is_lost_with(cluster: Cluster, gone: int) -> None:
    """A host dies under load: every request is answered at last, and what was accepted stands in the ledger."""
    images = [path.read_bytes() for path in sorted((cluster.hosts.store / "rsna").rglob("*.png"))[:20]]
    with cluster.hosts.forwarded(HEAD, 8000) as port:
        row, sent = disturbed(Traffic(port, images, 4), "a serving worker dies", lambda: cluster.hosts.kill(gone), 40)
    print(f"\n{line(row)}")
    cluster.hosts.start(gone)
    accepted = {each.prediction_id for each in sent if each.prediction_id}
    database = Database(f"sqlite:///{cluster.hosts.store}/registry/ledger/ledger.db")
    with database.read() as connection:
        stored = set(connection.execute(sa.select(tables.predictions.c.id)).scalars())
    assert (len(accepted - stored), row.unanswered) == (0, 0)
    assert len(accepted) > 20


def test_the_plain_way_loses_no_prediction_when_a_serving_worker_dies(cluster: Cluster) -> None:
    cluster.write_file(plain=True)
    cluster.up()
    cluster.declare_service()
    ask(cluster)
    assert_no_prediction_is_lost_with(cluster, WORKERS[1])
    assert "haproxy" not in cluster.hosts.run(HEAD, "ps -eo comm").text
    cluster.hosts.run(HEAD, "RAY_AUTH_MODE=token serve shutdown -y")
    cluster.write_file()  # the next `ray up` brings the way that is usual


def test_a_head_that_dies_is_replaced_and_the_study_goes_on(cluster: Cluster) -> None:
    cluster.wait_for_nodes(3)
    study = cluster.study("head")
    with cluster.search(study, 6) as job:
        wait_for_folds(study, 3, job)
        cluster.hosts.kill(HEAD)
        assert job.process.wait(120) != 0
    # the workers' Ray ends without its head
    wait_until(lambda: not cluster.hosts.running_now(rf".*/raylet/raylet|{TRAINS}") & set(WORKERS), 180)
    before = fold_files(study)
    cluster.hosts.start(HEAD)
    cluster.up()
    with tunnel(cluster), cluster.resume(study) as job:
        job.wait()
    assert_nothing_was_trained_twice(study, before, 6)


def test_the_ensemble_is_deployed_on_every_worker_and_asked(cluster: Cluster) -> None:
    cluster.declare_service()
    ask(cluster)
    tiers = [rf"ray::ServeReplica:ens-\w+:{tier}" for tier in ("Preprocess", "Ensemble")]
    # the first answer needs but one of each
    wait_until(lambda: all(cluster.hosts.running_now(tier) == set(WORKERS) for tier in tiers), 240)


def test_the_service_is_fast_by_default_and_listens_at_one_port_of_loopback(cluster: Cluster) -> None:
    listening = cluster.hosts.run(HEAD, "ss -Hltnp").text.splitlines()
    assert {line.split()[3] for line in listening if '"haproxy"' in line} == {"127.0.0.1:8000"}


def test_a_serving_worker_that_dies_under_load_loses_no_prediction(cluster: Cluster) -> None:
    gateways = cluster.hosts.running_now("ray::ServeReplica:gateway")
    assert_no_prediction_is_lost_with(cluster, max(gateways - {HEAD}, default=WORKERS[0]))


def test_ray_down_ends_the_head_and_every_command_of_the_page_was_typed(cluster: Cluster) -> None:
    assert "haproxy" in cluster.hosts.run(HEAD, "ps -eo comm").text  # the service is still declared
    cluster.type("ray down")
    assert "raylet" not in cluster.hosts.run(HEAD, "ps -eo comm").text
    wait_until(lambda: "haproxy" not in cluster.hosts.run(HEAD, "ps -eo comm").text, 30)
    assert set(page()) == cluster.typed
