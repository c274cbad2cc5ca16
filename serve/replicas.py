"""The Serve application of one bundle version: preprocess replicas, then ensemble replicas that hold all members.

A version is an application of its own, so that a request meets exactly one version from its bytes to its
months: Serve's handles are not pinned to a version during an update (ray-project/ray#63016).
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray import serve
from ray.serve.handle import DeploymentHandle

from preprocessing.appearance import appearance
from preprocessing.quality import Finding
from preprocessing.radiograph import RadiographError, decode_with_header
from preprocessing.recipe import Recipe
from preprocessing.standardize import Reader, Reading
from preprocessing.views import lay_over
from serve import logs
from serve.batching import Batcher
from serve.capacity import BATCH_SIZE, Capacity
from serve.protocol import Query, answer
from serve.worker import BoundedWorker, FullError, Worker

MAX_EXPLAINING = 8
"""Heat maps that one ensemble replica computes or keeps waiting."""
EXPLAIN_WAIT_S = 15.0
"""A heat map that would wait for longer is refused at once: twice as long is all that an answer may take."""
_Waiting = tuple[np.ndarray, dict[str, Any], tuple[Finding, ...]]
"""A radiograph that waits for its batch: pixels, options, warnings."""


class Preprocess:
    """Encoded bytes in, the ensemble's answer out; the entry of a version's application.

    Bytes travel here, not arrays: a radiograph has 0.1 to 1 MB as a file and 5 to 10 MB decoded.
    """

    def __init__(self, registry: str, version: str, recipe: Mapping[str, Any], ensemble: DeploymentHandle[Any]) -> None:
        import cv2

        logs.follow_serve("preprocess")
        cv2.setNumThreads(1)
        settings = Recipe.from_dict(dict(recipe))
        weights = None
        if settings.segmenter:  # else nothing of the bundle is needed here
            from ensemble.registry import Registry

            weights = Registry(registry).resolve(version).segmenter
        self._reader = Reader(settings, weights)
        self._ensemble = ensemble
        # one decoder a replica: more cores mean more replicas, not threads that take turns
        self._decoder = Worker("decode")
        _, png = cv2.imencode(".png", np.tile(np.arange(256, dtype=np.uint8), (256, 1)))
        with contextlib.suppress(RadiographError):  # a ramp is no hand
            self._reader.read(png.tobytes())  # warm: the first call loads what imports left out

    async def score(self, data: bytes, options: dict[str, Any]) -> dict[str, Any]:
        """Score one file.

        A refused image is an answer, not a failure of this replica: for that, Serve would log a traceback.

        Args:
            data: The whole file.
            options: From `Query.options`, and the request's id.

        Returns:
            ``{"answer": ..., "timings": ...}`` or ``{"refused": [code, sentence], "timings": ...}``; the timings are
            those of `Outcome`.
        """
        with logs.request(options.get("request_id", "")):
            timings: dict[str, float] = {}
            outcome = await self._score(data, options, timings)
            code, _ = outcome.get("refused", ("", ""))
            logs.event("preprocessed", refused=code, **logs.milliseconds(timings))
            return {**outcome, "timings": timings | outcome["timings"]}

    async def _score(self, data: bytes, options: dict[str, Any], timings: dict[str, float]) -> dict[str, Any]:
        arrived = time.perf_counter()
        try:
            reading = await self._decoder.do(self._read, data, arrived, timings)
        except RadiographError as error:
            return {"refused": [error.code, str(error)], "timings": {}}
        except Exception as error:  # Serve would log its message, and that of a decoder may quote a patient's name
            logs.failure(error)
            raise RuntimeError("A radiograph failed in an unforeseen way; the log has where.") from None
        sex, age = options["sex"], options["chronological_age_months"]
        warnings = reading.warnings(sex=None if sex == "unknown" else sex, chronological_age_months=age)
        outcome: dict[str, Any] = await self._ensemble.score.remote(reading.pixels, options, warnings)
        if "heatmap" in outcome:
            about, (height, width) = outcome["answer"]["heatmap"], reading.shape_HW
            about["matrix"] = lay_over(reading.to_views[self._reader.recipe.views.index(about["view"])])
            about["picture"] = {"width": width, "height": height}
        return {**outcome, "appearance": appearance(reading.pixels)}

    def _read(self, data: bytes, arrived: float, timings: dict[str, float]) -> Reading:
        """In the decoder's thread; what a refused image took is told too."""
        started = time.perf_counter()
        timings["queue"] = started - arrived
        try:
            decoded = decode_with_header(data)
        finally:
            timings["decode"] = (done := time.perf_counter()) - started
        try:
            return self._reader.finish(decoded)
        finally:
            timings["preprocess"] = time.perf_counter() - done

    def check_health(self) -> None:
        """Serve starts another replica when this raises."""
        self._decoder.check()

    async def version(self) -> str:
        """The version that the ensemble holds."""
        self._decoder.check()
        version: str = await self._ensemble.version.remote()
        return version

    async def monitors(self) -> dict[str, Any]:
        """What the bundle's evidence looked like."""
        monitors: dict[str, Any] = await self._ensemble.monitors.remote()
        return monitors


class Ensemble:
    """All members of one bundle in one process: one hop, and every member sees the same batch."""

    def __init__(self, registry: str, version: str, num_threads: int, lone_threads: int) -> None:
        import torch

        from ensemble.monitors import read_monitors
        from ensemble.predictor import Predictor
        from ensemble.registry import Registry

        logs.follow_serve("ensemble")
        torch.set_num_threads(num_threads)
        bundle = Registry(registry).resolve(version)
        self._version, self._monitors = bundle.version, read_monitors(bundle)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._predictor = Predictor(bundle, device, lone_threads=lone_threads)
        self._explainer = BoundedWorker("explain", MAX_EXPLAINING, EXPLAIN_WAIT_S, torch.set_num_threads, 1)
        blank = np.zeros((len(bundle.recipe.views), bundle.recipe.size, bundle.recipe.size), np.uint8)
        for num_images in (1, BATCH_SIZE):  # warm-up: no traffic arrives before this constructor returns
            options = [Query(b"", sex="unknown").options()] * num_images
            self._predict([blank] * num_images, options, [()] * num_images)
        # not Serve's own batches: they want the model to run in the event loop, where health checks and gRPC run too
        self._batcher = Batcher(self._compute, BATCH_SIZE)

    async def score(self, pixels: np.ndarray, options: dict[str, Any], warnings: tuple[Finding, ...]) -> dict[str, Any]:
        """Score one radiograph; several that wait are computed together.

        Args:
            pixels: ``(V, S, S)`` uint8.
            options: From `Query.options`.
            warnings: What was noticed about the picture.

        Returns:
            As `Preprocess.score`; of the timings ``batch`` and ``model``.
        """
        if options["profile"] not in self._predictor.profiles:
            sentence = f"{self._version} has no profile {options['profile']}. Ask for profile=full, or leave it out."
            return {"refused": ["profile_unavailable", sentence], "timings": {}}
        arrived = time.perf_counter()
        outcome = await self._batcher((pixels, options, warnings))
        model_s = outcome["timings"]["model"]
        outcome["timings"]["batch"] = time.perf_counter() - arrived - model_s
        return await self._explained(outcome, pixels, options) if options["explain"] else outcome

    async def _explained(self, outcome: dict[str, Any], pixels: np.ndarray, options: dict[str, Any]) -> dict[str, Any]:
        """The outcome with its heat map, computed beside the batches: one at a time, and few may wait."""
        started, by_sex = time.perf_counter(), outcome["answer"]["by_sex"]
        male = by_sex["male"]["probability"] if by_sex else float(options["sex"] == "male")
        try:
            found = await self._explainer.do(self._explain, pixels, male, options["profile"])
        except FullError:
            number = self._explainer.under_way
            sentence = f"Heat maps are under way, {number} of them. Send it again in some seconds, or without explain."
            return {"refused": ["overloaded", sentence], "timings": outcome["timings"]}
        outcome["answer"]["heatmap"], png = found
        outcome["timings"]["explain"] = time.perf_counter() - started
        return {**outcome, "heatmap": png}

    def _explain(self, pixels: np.ndarray, male_probability: float, profile: str) -> tuple[dict[str, Any], bytes]:
        from ensemble.heatmap import heat_map

        found = heat_map(self._predictor, pixels, male_probability, profile)
        return found.about(), found.png()

    def _compute(self, batch: list[_Waiting]) -> list[dict[str, Any]]:
        """In the batch's own thread."""
        started = time.perf_counter()
        pixels, options, warnings = zip(*batch, strict=True)
        answers = self._predict(pixels, options, warnings)
        model_s = time.perf_counter() - started
        ids = [each.get("request_id", "") for each in options]
        logs.event("predicted", request_ids=ids, version=self._version, **logs.milliseconds({"model": model_s}))
        return [{"answer": answer, "timings": {"model": model_s}} for answer in answers]

    def check_health(self) -> None:
        """Serve starts another replica when this raises."""
        self._batcher.check()  # a heat map may take longer, and holds up no answer but those that want one

    async def version(self) -> str:
        """The version held; answering shows that the replica still works off its queue."""
        self.check_health()
        return str(self._version)

    async def monitors(self) -> dict[str, Any]:
        """What the bundle's evidence looked like; empty where it was built before there were monitors."""
        return self._monitors

    def _predict(
        self,
        pixels: Sequence[np.ndarray],
        options: Sequence[dict[str, Any]],
        warnings: Sequence[tuple[Finding, ...]],
    ) -> list[dict[str, Any]]:
        """The answers in order; each profile's members see their own part of the batch."""
        answers: dict[int, dict[str, Any]] = {}
        for profile in {each["profile"] for each in options}:
            rows = [row for row, each in enumerate(options) if each["profile"] == profile]
            sexes = [None if (sex := options[row]["sex"]) == "unknown" else sex for row in rows]
            is_male_B = np.array([None if sex is None else sex == "male" for sex in sexes])
            predictions = self._predictor.predict(
                np.stack([pixels[row] for row in rows]), is_male_B, [warnings[row] for row in rows], profile=profile
            )
            for row, sex, prediction in zip(rows, sexes, predictions, strict=True):
                age = options[row]["chronological_age_months"]
                answers[row] = answer(prediction if age is None else prediction.beside(age, sex))
        return [answers[row] for row in range(len(options))]


def version_application(registry: str, version: str, recipe: Recipe, capacity: Capacity) -> serve.Application:
    """The application that scores with one bundle version."""
    ensemble = serve.deployment(**capacity.ensemble_options())(Ensemble)
    preprocess = serve.deployment(**capacity.preprocess_options())(Preprocess)
    threads = capacity.ensemble_threads, capacity.lone_threads
    return preprocess.bind(registry, version, recipe.to_dict(), ensemble.bind(registry, version, *threads))
