"""Batch scoring with Ray Data: files are read by all cores while the models predict; one row an input, always.

Readers are Ray tasks and hold a few chunks at most; each predictor is one actor that keeps the models, takes chunks as
they come and writes their rows as one part (`ensemble.parts`). Only the number of rows comes back, so that memory does
not grow with the files. Call `preprocessing.environment.prepare` before this module is imported.

A file that is no radiograph gets its reason, and so does one that kills whoever reads it. An error is neither: a bundle
that a machine does not reach, or a full disk, says nothing of a file, so that it ends the run, which can go on.
"""

import functools
import logging
import pickle
import platform
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ray
import torch
from ray.data import ActorPoolStrategy, DataContext

from ensemble.bundle import Bundle
from ensemble.inputs import Inputs, locate
from ensemble.members import check_device
from ensemble.parts import Parts, write_part
from ensemble.prediction import Prediction
from ensemble.predictor import Predictor
from preprocessing.cluster import connection
from preprocessing.limits import read_limited
from preprocessing.prepare import num_cores, single_thread
from preprocessing.radiograph import RadiographError
from preprocessing.standardize import Reader, Reading
from preprocessing.storage import AnyPath, as_path, is_local

CHUNK = 32
"""Files a part: as many as the predictor takes at a time."""
_MAX_BLOCKS = 2000
_MAX_ERRORS = 8
"""Chunks in which an error is passed over for now: a store that blinked, or too much for a GPU at a time. More are a
machine's fault, not a chunk's."""
_READER_CPUS = 0.99
"""Readers fill the cores that the models leave: models that counted as a core would take all of a small machine. They
count as something, since what needs nothing is put on a head that has nothing to give, too."""


class ScoreError(ValueError):
    """Inputs could not be scored, for no fault of theirs."""


def score(
    bundle: Bundle,
    inputs: Inputs,
    out: AnyPath,
    *,
    profile: str = "full",
    device: str = "cpu",
    address: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Score a batch into one Parquet file; interrupted and repeated, it goes on.

    Args:
        bundle: What scores; on a cluster it was loaded from a place that all nodes reach.
        inputs: What is scored; as the bundle.
        out: The table, as the bundle; see `ensemble.parts.SCHEMA`.
        profile: Which members answer.
        device: ``cpu`` or ``cuda``.
        address: Ray cluster; None starts a Ray here that ends with this process.
        progress: Called with the number of inputs done and of all.

    Returns:
        Number of rows by reason; those with an answer under the empty one. Their sum is the number of inputs.

    Raises:
        PartsError: An unfinished run of another bundle or of other inputs lies there.
        ScoreError: An error stood in the way; what was done stays, so that the same call goes on.
        ValueError: The bundle has no such profile, or there is no such device.
    """
    plan = {"bundle": bundle.version, "profile": profile, "inputs": inputs.hash, "num_inputs": len(inputs)}
    if profile not in bundle.manifest["profiles"]:
        raise ValueError(
            f"{bundle.version} has the profiles {', '.join(bundle.manifest['profiles'])}, got {profile!r}."
        )
    if address is None:  # a cluster's workers may have what this machine has not
        check_device(device)
    parts = Parts(out, plan)
    started = not ray.is_initialized()
    if started:
        ray.init(**connection(address))
    try:
        # a file that takes a worker down takes its chunk along, so that is tried one by one
        for size, max_errors in ((CHUNK, _MAX_ERRORS), (1, 0)):
            if missing := parts.missing(len(inputs)):
                _run(bundle, inputs, parts, missing, size, max_errors, profile, device, progress)
    finally:
        if started:
            ray.shutdown()
    for start, stop in parts.missing(len(inputs)):
        for index in range(start, stop):
            (row,) = _told(inputs, index, index + 1)
            lost = row | {"reason": "worker_died", "detail": "Each process that read this file was killed by it."}
            write_part(parts.folder, index, [lost | {"version": bundle.version, "profile": profile}])
    progress(len(inputs), len(inputs))
    return parts.finish(len(inputs))


def _run(
    bundle: Bundle,
    inputs: Inputs,
    parts: Parts,
    missing: list[tuple[int, int]],
    size: int,
    max_errors: int,
    profile: str,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    chunks = [(at, min(at + size, stop)) for start, stop in missing for at in range(start, stop, size)]
    done, num_errors = len(inputs) - sum(stop - start for start, stop in chunks), 0
    for row in _scored(bundle, inputs, parts, chunks, profile, device):
        num_errors += bool(row["error"])
        if num_errors > max_errors:
            file = _printable(inputs.files[row["start"]]) or "A row without a file"
            raise ScoreError(f"{file} could not be scored: {row['error']}. Mend that, then run it again: it goes on.")
        done += row["num_rows"]
        progress(done, len(inputs))


def _scored(
    bundle: Bundle, inputs: Inputs, parts: Parts, chunks: list[tuple[int, int]], profile: str, device: str
) -> Iterator[dict[str, Any]]:
    """For each chunk, as they come, what `_Scorer` says of it; nothing of one whose worker was lost."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what is lost is missed at the end, and tried again
    items = [{"start": start, "rows": pickle.dumps(_told(inputs, start, stop))} for start, stop in chunks]
    data = ray.data.from_items(items, override_num_blocks=min(len(items), _MAX_BLOCKS))
    # Ray Data retries a reader that dies for ever, and a file that kills it would never be given up. Ray 2.60 warns
    # that `map` will take no such argument from 2.64 on, and has no other way yet: no named one, none in DataContext.
    data = data.map(functools.partial(_read, location=bundle.location), num_cpus=_READER_CPUS, max_retries=1)
    on_gpu = device != "cpu"
    num_actors = int(ray.cluster_resources().get("GPU", 1)) if on_gpu else _num_working_nodes()
    arguments = (bundle.location, str(parts.folder), profile, device)
    data = data.map(
        _Scorer,
        fn_constructor_args=arguments,
        compute=ActorPoolStrategy(size=num_actors, max_tasks_in_flight_per_actor=2),
        num_gpus=1 if on_gpu else 0,
        num_cpus=1 - _READER_CPUS,
    )
    yield from data.iter_rows()


def _num_working_nodes() -> int:
    """Machines that are there and may be given work; a cluster's head may have no core to give."""
    return max(1, sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes()))


def _told(inputs: Inputs, start: int, stop: int) -> list[dict[str, Any]]:
    """What is known of some inputs before they are read."""
    return [
        {
            "case_id": _printable(inputs.case_ids[index]),
            "file": _printable(inputs.files[index]),
            "location": locate(inputs.folder, inputs.files[index]),
            "sex": inputs.sexes[index],
            "sex_from": "caller" if inputs.sexes[index] else "",
            "chronological_age_months": inputs.ages[index],
        }
        for index in range(start, stop)
    ]


def _printable(name: str) -> str:
    """A name as the table can hold it: bytes that are no UTF-8, which a disk allows, as ``\\udcff``."""
    return name.encode(errors="backslashreplace").decode()


@functools.lru_cache(maxsize=1)
def _reader(location: str) -> Reader:
    """One a process."""
    single_thread()
    bundle = Bundle.load(location)
    return Reader(bundle.recipe, bundle.segmenter)


def _read(chunk: dict[str, Any], *, location: str) -> dict[str, Any]:
    """Read the files of a chunk: in place of each location comes a reading, or the reason for none."""
    try:
        reader, rows = _reader(location), pickle.loads(chunk["rows"])
        for row in rows:
            row["reading"] = _reading(reader, row.pop("location"))
        return {"start": chunk["start"], "rows": pickle.dumps(rows), "error": ""}
    except Exception as error:  # Ray Data would drop it with the chunk, as if the worker had been lost
        return {"start": chunk["start"], "rows": b"", "error": _sentence(error)}


def _sentence(error: Exception) -> str:
    """What went wrong, and where."""
    said = " ".join(str(error).split()).rstrip(".") or "there was an error"  # that of a GPU has many lines
    return f"on {platform.node()}, {said} ({type(error).__name__})"


def _reading(reader: Reader, location: str) -> Reading | tuple[str, str]:
    if not location:
        return "missing_image", "The row names no file."
    try:
        path = as_path(location)
        if is_local(path) and path.exists() and not path.is_file():  # a pipe would be waited for
            return (
                "unreadable",
                "It is a folder, a link to one or a device, no file. Name the folder, or copy the file.",
            )
        return reader.read(read_limited(path))
    except RadiographError as error:
        return error.code, str(error)
    except Exception as error:  # a store's own errors are of any kind; one file must not stop a million others
        return "unreadable", f"The file cannot be read ({type(error).__name__})."


class _Scorer:
    """Keeps the models; predicts a chunk, writes its rows, and says how many they are or what went wrong."""

    def __init__(self, location: str, parts: str, profile: str, device: str) -> None:
        torch.set_num_threads(num_cores())  # Ray lets an actor without CPUs of its own have one thread
        self._location, self._device = location, device
        self._parts, self._profile = parts, profile

    def __call__(self, chunk: dict[str, Any]) -> dict[str, Any]:
        said = {"start": chunk["start"], "num_rows": 0, "error": chunk["error"]}
        if chunk["error"]:
            return said
        try:
            rows = pickle.loads(chunk["rows"])
            write_part(as_path(self._parts), int(chunk["start"]), answer(self._predictor, rows, self._profile))
            return said | {"num_rows": len(rows)}
        except Exception as error:  # as in `_read`
            return said | {"error": _sentence(error)}

    @functools.cached_property
    def _predictor(self) -> Predictor:
        return Predictor(Bundle.load(self._location), self._device)


def answer(predictor: Predictor, rows: list[dict[str, Any]], profile: str = "full") -> list[dict[str, Any]]:
    """Answer the rows whose ``reading`` is one; where nobody told the sex, a DICOM header may.

    Args:
        predictor: With the bundle.
        rows: case_id, file, sex, sex_from, chronological_age_months and reading, as the readers leave them.
        profile: Which members answer.

    Returns:
        Rows of `ensemble.parts.SCHEMA`, in the same order.
    """
    answered = [row for row in rows if isinstance(row["reading"], Reading)]
    for row in answered:
        header = row["reading"].header
        if not row["sex"] and header is not None and header.sex in ("male", "female"):
            row["sex"], row["sex_from"] = header.sex, "header"
    predictions: list[Prediction] = []
    if answered:
        predictions = predictor.predict(
            np.stack([row["reading"].pixels for row in answered]),
            np.array([{"male": True, "female": False}.get(row["sex"]) for row in answered], dtype=object),
            [
                row["reading"].warnings(
                    sex=row["sex"] or None, chronological_age_months=row["chronological_age_months"]
                )
                for row in answered
            ],
            profile=profile,
        )
    said = iter(predictions)
    about = {"version": predictor.bundle.version, "profile": profile}
    return [
        {name: value for name, value in row.items() if name != "reading"}
        | (_answered(next(said), row) if isinstance(row["reading"], Reading) else _refused(*row["reading"]))
        | about
        for row in rows
    ]


def _answered(prediction: Prediction, row: dict[str, Any]) -> dict[str, Any]:
    age = row["chronological_age_months"]
    found = None if age is None else prediction.beside(age, row["sex"] or None).chronology
    judged = {} if found is None else {"sds": found.sds, "status": found.status, "norms": found.source}
    by_sex = prediction.by_sex.items()
    return {
        "predicted_months": prediction.bone_age_months,
        **_ends(prediction.intervals),
        "spread_months": prediction.spread_months,
        "male_probability": prediction.by_sex["male"].probability if by_sex else None,
        **{f"if_{sex}_months": answer.bone_age_months for sex, answer in by_sex},
        **{f"if_{sex}_{end}": months for sex, answer in by_sex for end, months in _ends(answer.intervals).items()},
        **judged,
        "distribution": prediction.distribution,
        "findings": ",".join(sorted({warning.code for warning in prediction.warnings})),
        "warnings": " ".join(warning.message for warning in prediction.warnings),
        "reason": None,
        "detail": None,
    }


def _ends(intervals: dict[int, tuple[float, float]]) -> dict[str, float]:
    ends = (("low", 0), ("high", 1))
    return {f"{end}_{level}": pair[side] for level, pair in intervals.items() for end, side in ends}


def _refused(reason: str, detail: str) -> dict[str, Any]:
    return {"predicted_months": None, "reason": reason, "detail": detail}
