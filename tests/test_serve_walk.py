"""A person's walk through the service, for real: two versions, a shadow, 300 readings, the report, promotion and back.

Then a split, a canary that grows, a challenger that is thrown out at once, and a version that comes and goes.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from benchmarks.sample import publish_challenger, publish_sample
from benchmarks.service import running_service
from ensemble.registry import Registry
from serve.admin import main as command
from serve.arms import LOOK_S
from serve.books import FOLLOW_S
from serve.shadows import MAX_SHADOWS

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(900)]

NUM_READINGS = 300
FOLLOWED_S = 10.0
"""To see that the gateway follows a change, which it does sooner, takes a scoring, on a busy machine a slow one."""
PATIENT = "max_latency_ratio=1000"
"""Of a policy: on a busy machine one of two equals may be much slower."""


class Walk:
    """A service with a champion, a registry with one more version, and a client."""

    def __init__(self, folder: Path, client: httpx2.Client, challenger: str) -> None:
        self.registry, self.client, self.challenger = str(folder / "registry"), client, challenger
        self.champion = Registry(folder / "registry").version_of("champion")
        self.hands = [path.read_bytes() for path in sorted((folder / "hands").glob("*/*.png"))]
        self.num_sent = 0

    def score(self, subject: str = "") -> dict[str, Any]:
        self.num_sent += 1
        named = {"subject": subject or f"s{self.num_sent}", "sex": "female" if self.num_sent % 2 else "male"}
        answer = self.client.post("/v1/score", params=named, content=self.hands[self.num_sent % len(self.hands)])
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def do(self, *words: str) -> None:
        area = 2 if words[0] == "experiment" else 1
        assert command([*words[:area], self.registry, *words[area:]]) == 0

    def experiment(self, name: str) -> dict[str, Any]:
        return dict(self.client.get(f"/v1/experiments/{name}").json())

    def shadow(self, prediction_id: str) -> dict[str, Any]:
        """What the challenger says of a prediction, when it has said it."""
        found: dict[str, Any] = {}

        def is_there() -> bool:
            found.update(self.client.get(f"/v1/predictions/{prediction_id}").json()["shadow"] or {})
            return bool(found)

        self.wait_for(is_there)
        return found

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < seconds
            time.sleep(0.1)

    def is_ready(self, version: str) -> bool:
        rows = self.client.get("/v1/versions").json()["versions"]
        return any((row["version"], row["status"]) == (version, "ready") for row in rows)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    folder = tmp_path_factory.mktemp("walk")
    publish_sample(folder)
    challenger = publish_challenger(folder)
    with (
        running_service(folder / "registry", start_within_s=400) as service,
        httpx2.Client(base_url=service.url, timeout=60, trust_env=False) as client,
    ):
        yield Walk(folder, client, challenger)


def test_a_shadow_with_300_readings_is_reported_promoted_and_taken_back(
    walk: Walk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert walk.score()["version"] == walk.champion
    walk.do("experiment", "start", "walk", walk.challenger, "--policy", "max_disagreement=1.0", PATIENT)

    def is_counted() -> bool:
        walk.score()
        return int(walk.experiment("walk")["arms"]["champion"]["answered"]) > 0

    walk.wait_for(is_counted)
    ids = []
    for number in range(NUM_READINGS):
        ids.append(walk.score()["prediction_id"])
        if number % (MAX_SHADOWS // 2) == 0:
            walk.shadow(ids[-1])  # of many that wait, the last are left out
    noise = np.random.default_rng(0)
    for prediction_id in ids:  # readings that the challenger comes closer to
        months = float(np.clip(walk.shadow(prediction_id)["bone_age_months"] + noise.normal(0, 1), 0, 239))
        sent = walk.client.post(f"/v1/predictions/{prediction_id}/reference", json={"bone_age_months": months})
        assert sent.status_code == 201
    found = walk.experiment("walk")
    assert (found["difference"]["n"], found["policy"]["act"]) == (NUM_READINGS, "promote")
    assert found["difference"]["lower_months"] > 0
    assert found["arms"]["champion"]["failed"] == found["arms"]["challenger"]["failed"] == 0
    capsys.readouterr()
    walk.do("experiment", "status", "walk")
    assert f"n = {NUM_READINGS}" in capsys.readouterr().out
    assert walk.client.post("/v1/experiments/walk/promote").json()["champion"] == walk.challenger
    walk.wait_for(lambda: walk.score()["version"] == walk.challenger, FOLLOWED_S)
    walk.wait_for(lambda: Registry(walk.registry).version_of("champion") == walk.challenger)
    assert walk.client.post("/v1/experiments/walk/rollback").json()["champion"] == walk.champion
    walk.wait_for(lambda: walk.score()["version"] == walk.champion, FOLLOWED_S)


def test_a_split_follows_its_share_within_two_seconds(walk: Walk) -> None:
    assert FOLLOW_S + LOOK_S < 2
    mode = ["--mode", "split", "--share", "0.5"]
    walk.do("experiment", "start", "halves", walk.challenger, *mode, "--policy", PATIENT)
    walk.wait_for(lambda: walk.score()["version"] == walk.challenger)
    subjects = [f"child {i}" for i in range(40)]
    first, again = ([walk.score(subject)["version"] for subject in subjects] for _ in range(2))
    assert first == again
    assert set(first) == {walk.champion, walk.challenger}
    walk.do("experiment", "share", "halves", "0.01")
    walk.wait_for(lambda: [walk.score(subject)["version"] for subject in subjects].count(walk.challenger) <= 4)
    walk.do("experiment", "stop", "halves")
    walk.wait_for(lambda: {walk.score(subject)["version"] for subject in subjects} == {walk.champion})


def test_a_canary_grows_by_its_policy(walk: Walk) -> None:
    mode = ["--mode", "canary", "--share", "0.3", "0.6", "0.9"]
    walk.do("experiment", "start", "bird", walk.challenger, *mode, "--policy", "step_predictions=5", PATIENT)

    def has_grown() -> bool:
        walk.score()
        return int(walk.experiment("bird")["experiment"]["step"]) == 2

    walk.wait_for(has_grown)
    assert walk.client.post("/v1/experiments/bird/rollback").json()["experiment"] is None


def test_a_challenger_that_disagrees_is_thrown_out_by_itself(walk: Walk) -> None:
    bounds = ["min_window=10", "disagreement_months=1.0", "max_disagreement=0.1"]
    walk.do("experiment", "start", "apart", walk.challenger, "--policy", *bounds)

    def is_out() -> bool:
        assert walk.score()["version"] == walk.champion
        return walk.experiment("apart")["outcome"] == "rolled back"

    walk.wait_for(is_out)
    walk.wait_for(lambda: walk.client.get("/v1/experiments").json()["routing"]["experiment"] is None, FOLLOWED_S)


def test_a_version_comes_answers_and_goes(walk: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    walk.do("add", walk.challenger, "--champion")
    walk.wait_for(lambda: walk.score()["version"] == walk.challenger, FOLLOWED_S)
    walk.wait_for(lambda: walk.is_ready(walk.champion))
    assert walk.client.post(f"/v1/versions/{walk.champion}/champion").json()["champion"] == walk.champion
    walk.wait_for(lambda: walk.score()["version"] == walk.champion, FOLLOWED_S)
    assert walk.client.post(f"/v1/versions/{walk.challenger}/retire").json()["loaded"] == []
    walk.wait_for(lambda: not walk.is_ready(walk.challenger))
    assert walk.client.post("/v1/versions", json={"version": walk.challenger}).status_code == 202
    walk.wait_for(lambda: walk.is_ready(walk.challenger))
    assert walk.client.post("/v1/versions", json={"version": "ens-000000000000"}).status_code == 202
    walk.wait_for(lambda: "has no bundle" in str(walk.client.get("/v1/versions").json()))
    walk.do("retire", walk.challenger)
    walk.wait_for(lambda: not walk.is_ready(walk.challenger))
    capsys.readouterr()
    walk.do("experiment", "history", "--json")
    acts = [json.loads(line)["act"] for line in capsys.readouterr().out.splitlines()]
    assert [act.removeprefix("release.") for act in acts if act.startswith("release.")] == [
        *("add", "champion", "champion", "retire", "add", "add", "retire", "retire")
    ]
    policies = [act for act in acts if act in ("experiment.step", "experiment.rollback")]
    assert policies == ["experiment.rollback", "experiment.step", "experiment.step"] + ["experiment.rollback"] * 2
