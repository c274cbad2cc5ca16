"""What a gateway counts, and the page that Prometheus reads. No Ray."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from preprocessing.radiograph import RadiographError
from serve import shadows
from serve.books import Books
from serve.database import Database
from serve.gateway import Gateway
from serve.keys import Keys
from serve.lifecycle import Lifecycle
from serve.problems import Problem
from serve.protocol import Outcome, Query
from serve.routing import Routing
from serve.scrape import Snapshot, page, snapshot
from tests.hostile_uploads import PNG, SCORE
from tests.test_serve_gateway_ledger import seen_by, wait_for

A, B = "ens-aaaaaaaaaaaa", "ens-bbbbbbbbbbbb"
TIMINGS = {"decode": 0.010, "preprocess": 0.020, "batch": 0.005, "model": 0.015}


class Timed:
    """Says what its stages took, or fails."""

    def __init__(self, version: str) -> None:
        self.name = version
        self.failure: Exception | None = None

    async def score(self, query: Query) -> Outcome:
        await asyncio.sleep(0.06)
        if self.failure:
            raise self.failure
        warnings = [{"code": "framed", "message": ""}]
        return Outcome({"bone_age_months": 90.0, "version": self.name, "warnings": warnings}, TIMINGS)

    async def version(self) -> str:
        return self.name


class Site:
    """A gateway that is asked over HTTP."""

    def __init__(self, folder: Path, *, is_open: bool = True) -> None:
        url = f"sqlite:///{folder}/ledger.db"
        self.database = Database(url)
        Routing(self.database).begin(A)
        self.scorers = {A: Timed(A), B: Timed(B)}
        self.books = Books(url, folder / "spool", is_open=is_open)
        self.gateway = Gateway(self.scorers.__getitem__, [], self.books)
        self.client = TestClient(self.gateway.app(), raise_server_exceptions=False)

    def counted(self, name: str, **labels: str) -> float:
        """The sum of the samples that carry these labels."""
        text = self.client.get("/metrics").text
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    with one.client:
        yield one
    one.books.close()


def test_the_stages_of_an_answer_add_up_to_its_scoring_time(site: Site) -> None:
    answer = site.client.post(SCORE, content=PNG).json()
    assert "timings" not in answer
    spent = {
        stage: site.counted("carpal_stage_seconds_sum", stage=stage, version=A, arm="none")
        for stage in ("queue", "decode", "preprocess", "batch", "model", "score", "record")
    }
    assert {stage: spent[stage] for stage in TIMINGS} == pytest.approx(TIMINGS)
    assert spent["queue"] + sum(TIMINGS.values()) == pytest.approx(spent["score"])
    assert spent["record"] > 0


def test_a_refused_image_and_a_failed_version_are_counted_apart(site: Site) -> None:
    site.client.post(SCORE, content=PNG)
    site.scorers[A].failure = RadiographError("blank", "It is blank.")
    site.client.post(SCORE, content=PNG)
    site.scorers[A].failure = Problem("overloaded", "Every place is taken.")
    site.client.post(SCORE, content=PNG)
    for outcome in ("answered", "refused", "failed"):
        assert site.counted("carpal_images_total", version=A, outcome=outcome) == 1
    assert site.counted("carpal_image_refusals_total", code="blank") == 1
    assert site.counted("carpal_score_failures_total", code="overloaded", arm="none") == 1
    assert site.counted("carpal_problems_total", route="/v1/score") == 2
    assert site.counted("carpal_http_requests_total", route="/v1/score", status="503") == 1
    assert site.counted("carpal_answers_total", sex="male", version=A) == 1
    assert site.counted("carpal_answer_warnings_total", code="framed") == 1


def test_a_profile_that_a_version_lacks_is_no_reject_of_its_images(site: Site) -> None:
    outcome = {"words": ["answered", "refused"], "shares": [0.9, 0.1], "num_cases": 100}
    site.gateway.metrics.drift.expect(A, {"outcome": outcome})
    for failure in (Problem("profile_unavailable", "It has no student."), RadiographError("blank", "It is blank.")):
        site.scorers[A].failure = failure
        site.client.post(SCORE, content=PNG)
    assert site.counted("carpal_images_total", version=A, outcome="refused") == 2
    assert site.counted("carpal_drift_cases_total", version=A, monitor="outcome", bin="refused") == 1


def test_a_path_or_a_method_that_a_caller_invents_makes_no_time_series(site: Site) -> None:
    for number in range(20):
        site.client.get(f"/v1/{number}/Doe^Jane")
        site.client.get(f"/v1/predictions/{number:032x}")
        site.client.request(f"JANE{number}", "/v1/score")
    text = site.client.get("/metrics").text
    assert "Doe" not in text
    assert "JANE" not in text
    assert site.counted("carpal_http_requests_total", route="none", status="404") == 20
    assert site.counted("carpal_http_requests_total", route="/v1/predictions/{id}", status="404") == 20
    assert site.counted("carpal_http_requests_total", method="other", status="405") == 20


def test_a_failure_that_nobody_foresaw_is_counted_as_internal(site: Site) -> None:
    site.scorers[A].failure = KeyError("x")
    site.client.post(SCORE, content=PNG)
    assert site.counted("carpal_problems_total", code="internal", route="/v1/score") == 1
    assert site.counted("carpal_http_requests_in_flight") == 1  # the scrape itself


def test_the_shadow_and_the_running_experiment_are_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    Lifecycle(site.database, "me").start("e", B)
    site.books.refresh()
    wait_for(lambda: B in seen_by(site.gateway).ready)
    site.client.post(SCORE, content=PNG)
    wait_for(lambda: site.counted("carpal_images_total", version=B, arm="shadow", outcome="answered") == 1)
    assert site.counted("carpal_images_total", version=A, arm="champion") == 1
    assert site.counted("carpal_experiment_share", experiment="e", mode="shadow") == 1
    assert site.counted("carpal_version_info", role="challenger", version=B) == 1
    assert site.counted("carpal_routing_version") == 2
    assert site.counted("carpal_ledger_up") == 1
    monkeypatch.setattr(shadows, "MAX_SHADOWS", 0)
    site.client.post(SCORE, content=PNG)
    assert site.counted("carpal_shadows_left_out_total", reason="places") == 1


def test_the_page_needs_a_key_with_the_role_read(tmp_path: Path) -> None:
    site = Site(tmp_path, is_open=False)
    keys = {role: Keys(site.database, "me").add(role, [role]) for role in ("score", "read")}
    site.books.refresh()
    with site.client:
        told = {
            role: site.client.get("/metrics", headers={"authorization": f"Bearer {key}"}).status_code
            for role, key in keys.items()
        }
        assert told == {"score": 403, "read": 200}
        assert site.client.get("/metrics").status_code == 401
    site.books.close()


def test_counters_of_several_gateways_stay_apart_on_one_page(site: Site) -> None:
    site.client.post(SCORE, content=PNG)
    one: Snapshot = snapshot(site.gateway.metrics)
    text = page({"r1": one, "r2": one}, num_silent=1).decode()
    assert text.count("# TYPE carpal_images_total") + text.count("# TYPE carpal_images counter") == 1
    samples = {
        (sample.name, sample.labels.get("replica")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in ("carpal_images_total", "carpal_gateways_silent")
    }
    assert samples == {
        ("carpal_images_total", "r1"): 1,
        ("carpal_images_total", "r2"): 1,
        ("carpal_gateways_silent", None): 1,
    }
