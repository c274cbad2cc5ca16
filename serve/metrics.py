"""What one gateway counts: requests, answers and the time that each stage took, as Prometheus metrics.

Every time is taken on one clock: a stage in another process reports how long it worked, and what is left of the
gateway's own waiting is the queue before it. So the stages of an answer add up to its scoring time, whatever the
clocks of two machines say.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.books import Books
from serve.drift import Drift
from serve.protocol import Outcome, Query

STAGES = ("queue", "decode", "preprocess", "batch", "model", "explain", "score", "record")
"""``queue``: on the way to a preprocess replica and waiting there; ``decode``: from bytes to grey levels;
``preprocess``: hand, checks and views; ``batch``: on the way to the ensemble and waiting for a batch; ``model``: the
batch's forward pass and its calibration; ``explain``: a heat map, where asked for; ``score``: all before it;
``record``: until the ledger has the answer."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one process.

    Args:
        books: Tells, when it is asked, who answers and whether the ledger is there.
    """

    def __init__(self, books: Books) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Books(books))
        self.drift = Drift(self.registry)
        """Holds the traffic against the evidence of the bundles."""
        self._requests = self._counter("http_requests", "Requests answered.", "route", "method", "status")
        self._request_s = self._histogram("http_request_seconds", "From the first byte to the last one.", "route")
        self._problems = self._counter("problems", "Requests refused, by the code of the refusal.", "route", "code")
        self._in_flight = Gauge(
            "carpal_http_requests_in_flight", "Requests that are read, scored or written.", registry=self.registry
        )
        self._images = self._counter(
            "images", "Images given to a version; outcome: answered, refused or failed.", "version", "arm", "outcome"
        )
        self._refusals = self._counter("image_refusals", "Images not fit to be scored.", "code")
        self._failures = self._counter("score_failures", "Fit images not answered.", "version", "arm", "code")
        self._warnings = self._counter("answer_warnings", "Warnings that answers carried.", "version", "code")
        self._answers = self._counter("answers", "Answers by the sex that was stated.", "version", "arm", "sex")
        self._stage_s = self._histogram("stage_seconds", "Time in each stage of scoring.", "stage", "version", "arm")
        self._left_out = self._counter("shadows_left_out", "Images not given to a challenger in the shadow.", "reason")

    def begun(self) -> None:
        """A request has come."""
        self._in_flight.inc()

    def ended(self, route: str, method: str, status: int, code: str | None, seconds: float) -> None:
        """A request was answered, with the problem of this code where it was refused."""
        self._in_flight.dec()
        self._requests.labels(route, method, str(status)).inc()
        self._request_s.labels(route).observe(seconds)
        if code:
            self._problems.labels(route, code).inc()

    def answered(self, version: str, arm: str, query: Query, outcome: Outcome, seconds: float) -> None:
        """A version answered.

        Args:
            version: Of the bundle.
            arm: ``champion``, ``challenger`` or ``shadow`` inside an experiment, else ``none``.
            query: What was asked.
            outcome: What is left of `seconds` after its timings is the queue, a replica's own one among it.
            seconds: That the gateway waited for the answer.
        """
        self._images.labels(version, arm, "answered").inc()
        self._answers.labels(version, arm, query.sex).inc()
        timings = outcome.timings
        known = {stage: timings[stage] for stage in STAGES if stage in timings and stage != "queue"}
        stages = {"queue": max(0.0, seconds - sum(known.values())), **known} if known else {}
        for stage, spent in {**stages, "score": seconds}.items():
            self._stage_s.labels(stage, version, arm).observe(spent)
        answer = outcome.answer
        for warning in answer.get("warnings", ()):
            self._warnings.labels(version, warning["code"]).inc()
        self.drift.see(version, outcome="answered", sex=query.sex, **outcome.appearance)
        if query.sex != "unknown" and query.profile == "full":  # as the evidence was made
            self.drift.see(version, bone_age_months=answer["bone_age_months"])
            if interval := answer.get("intervals", {}).get("90"):
                self.drift.see(version, interval_months=interval[1] - interval[0])

    def refused(self, version: str, arm: str, code: str) -> None:
        """A version found no usable radiograph in the bytes, or was asked for what it does not have."""
        self._images.labels(version, arm, "refused").inc()
        self._refusals.labels(code).inc()
        if code != "profile_unavailable":  # whatever the image is like
            self.drift.see(version, outcome="refused")

    def failed(self, version: str, arm: str, code: str) -> None:
        """A version did not answer for a fit image."""
        self._images.labels(version, arm, "failed").inc()
        self._failures.labels(version, arm, code).inc()

    def recorded(self, version: str, arm: str, seconds: float) -> None:
        """An answer is in the ledger, or in the spool."""
        self._stage_s.labels("record", version, arm).observe(seconds)

    def left_out(self, reason: str) -> None:
        """An image was not given to a challenger in the shadow.

        Args:
            reason: ``places`` or ``bytes``: so many images, or so large ones, wait for it; ``away``: it did not answer.
        """
        self._left_out.labels(reason).inc()

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"carpal_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, *labels: str) -> Histogram:
        return Histogram(f"carpal_{name}", what, labels, buckets=_SECONDS, registry=self.registry)


class _Books(Collector):
    """Routing and ledger as they stand when somebody looks."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def collect(self) -> Iterable[Metric]:
        status, state = self._books.status(), self._books.state
        yield _gauge("ledger_up", "1 while answers go straight into the database.", status.is_up)
        yield _gauge("spool_bytes", "What waits on disk for the database.", status.spooled_bytes)
        yield _gauge("spool_refused_entries", "Spooled entries that the database refused.", status.refused)
        yield _gauge("routing_version", "Counts the changes of who answers.", state.version)
        versions = GaugeMetricFamily(
            "carpal_version_info", "Versions that the routing names.", labels=["role", "version"]
        )
        versions.add_metric(["champion", state.champion], 1)
        shares = GaugeMetricFamily(
            "carpal_experiment_share",
            "Share of the subjects whom the challenger of the running experiment scores.",
            labels=["experiment", "mode"],
        )
        if experiment := state.experiment:
            versions.add_metric(["challenger", experiment.challenger], 1)
            shares.add_metric([experiment.name, experiment.mode], experiment.share)
        yield versions
        yield shares


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"carpal_{name}", what, value=float(value))
