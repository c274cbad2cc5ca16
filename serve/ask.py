"""Ask a running service: ``python -m serve.ask URL FILE --sex male``, or about a case of a cohort.

The key, where the service asks for one, is read from ``$CARPAL_KEY``.
"""

import argparse
import base64
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocessing.radiograph import RadiographError, decode
from preprocessing.storage import StorageError, as_path, write_json

THUMBNAIL_SIDE = 512
_TIMEOUT_S = 60.0


class AskError(RuntimeError):
    """No answer: the sentence says why and what to do."""


@dataclass(frozen=True)
class Case:
    """What is asked, and the truth where it is known."""

    data: bytes
    sex: str
    file: str
    """Base name only."""
    case_id: str | None = None
    bone_age_months: float | None = None


def main(arguments: list[str] | None = None) -> int:
    """Print one answer; exit status 2 for a wrong call, 1 when no answer came."""
    options = _parser().parse_args(arguments)
    try:
        case = _case(options)
        if options.wait:
            wait_until_ready(options.url, options.wait)
        answer = ask(options.url, case.data, case.sex)
        if options.out:
            write_json(as_path(options.out), _record(case, answer))
    except (AskError, RadiographError) as error:
        print(f"ask: {error}", file=sys.stderr)
        return 1
    except (StorageError, OSError, ValueError) as error:
        print(f"ask: {error}", file=sys.stderr)
        return 2
    print(_sentence(case, answer))
    return 0


def ask(url: str, data: bytes, sex: str) -> dict[str, Any]:
    """POST one image to ``/v1/score``.

    Args:
        url: Where the service listens, such as ``http://127.0.0.1:8000``.
        data: The encoded file.
        sex: ``male``, ``female`` or ``unknown``.

    Raises:
        AskError: The service is not there, or refused the image.
    """
    query = urllib.parse.urlencode({"sex": sex})
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/score?{query}",
        data,
        {"Content-Type": "application/octet-stream", **_key()},
        method="POST",
    )
    return _send(request, _TIMEOUT_S)


def _key() -> dict[str, str]:
    """The caller's key; in the environment, since a command line is seen by everybody on the machine."""
    key = os.environ.get("CARPAL_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def wait_until_ready(url: str, seconds: float) -> None:
    """Return as soon as ``/readyz`` answers 200.

    Raises:
        AskError: It did not within the time.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            _send(urllib.request.Request(f"{url.rstrip('/')}/readyz"), 10.0)
            return
        except AskError as error:
            if time.monotonic() > end:
                raise AskError(f"{url} was not ready within {seconds:.0f} s: {error}") from None
        time.sleep(0.3)


def closest_to_median(cases: Any) -> Any:
    """The row whose bone age is closest to the median; the first by id among equals."""
    distance = (cases["bone_age_months"] - cases["bone_age_months"].median()).abs()
    return cases.assign(distance=distance).sort_values(["distance", "case_id"]).iloc[0]


def thumbnail(data: bytes) -> bytes:
    """A PNG for a page: at most 512 pixels a side, 8 bits, stretched from darkest to brightest."""
    image_HW = decode(data)
    scale = min(1.0, THUMBNAIL_SIDE / max(image_HW.shape))
    height, width = (max(1, round(side * scale)) for side in image_HW.shape)
    small = cv2.resize(image_HW.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    stretched = (small - small.min()) * (255 / max(float(np.ptp(small)), 1e-6))
    return cv2.imencode(".png", np.rint(stretched).astype(np.uint8))[1].tobytes()


def _case(options: argparse.Namespace) -> Case:
    if (options.file is None) == (options.cohort is None):
        raise ValueError("Give a FILE with --sex, or --cohort COHORT.")
    if options.cohort is None:
        if options.sex is None:
            raise ValueError("A FILE needs --sex male, female or unknown: the reading depends on it.")
        if options.case is not None:
            raise ValueError("--case names a case of a --cohort, and none was given.")
        path = Path(options.file)
        return Case(path.read_bytes(), options.sex, path.name)
    return _held_out_case(options.cohort, options.case, options.sex)


def _held_out_case(cohort_path: str, case_id: str | None, sex: str | None) -> Case:
    from preprocessing.cohort import Cohort  # pandas: not needed for a single file

    cohort = Cohort.load(cohort_path)
    test = cohort.cases.iloc[cohort.test_rows()]
    if test.empty:
        raise ValueError(f"{cohort_path} has no locked test split. Prepare it with --test above 0.")
    if case_id is None:
        row = closest_to_median(test)
    else:
        chosen = test[test["case_id"] == case_id]
        if chosen.empty:
            raise ValueError(f"Case {case_id} is not in the locked test split, which begins {list(test.case_id[:5])}.")
        row = chosen.iloc[0]
    data = (as_path(cohort.source) / row["file"]).read_bytes()
    name = Path(row["file"]).name
    return Case(data, sex or row["sex"], name, str(row["case_id"]), float(row["bone_age_months"]))


def _send(request: urllib.request.Request, timeout_s: float) -> dict[str, Any]:
    host = urllib.parse.urlsplit(request.full_url).hostname
    # a web proxy in the environment must not catch what stays on this machine
    proxies: dict[str, str] | None = {} if host in ("127.0.0.1", "localhost", "::1") else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        with opener.open(request, timeout=timeout_s) as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer
    except urllib.error.HTTPError as error:
        raise AskError(_refusal(error)) from None
    except (OSError, ValueError) as error:  # refused, reset, timed out, or something else than our service
        reason = getattr(error, "reason", error)
        raise AskError(
            f"No bone-age service answers at {request.full_url} ({reason}). Start one: python -m serve; of one that a "
            "file declared, serve status tells why it does not run"
        ) from None


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        problem = json.loads(error.read())
        return f"{problem['detail']} ({problem['status']} {problem['code']})"
    except (ValueError, KeyError, TypeError, OSError):
        return f"{error.url} answers {error.code}, but not as a bone-age service does. Check the address."


def _record(case: Case, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "case_id": case.case_id,
        "sex": case.sex,
        "bone_age_months_true": case.bone_age_months,
        "file": case.file,
        "image_png_base64": base64.b64encode(thumbnail(case.data)).decode("ascii"),
        "answer": answer,
    }


def _sentence(case: Case, answer: dict[str, Any]) -> str:
    months, spread = answer["bone_age_months"], answer["spread_months"]
    lines = [
        f"{f'case {case.case_id}' if case.case_id else case.file} ({case.sex})",
        f"  bone age   {answer['bone_age']}  ({months:.1f} months, members differ by {spread:.1f})",
    ]
    if case.bone_age_months is not None:
        error = abs(months - case.bone_age_months)
        lines.append(f"  true       {case.bone_age_months:.1f} months  ({error:.1f} months apart)")
    lines += [f"  warning    {warning['message']}" for warning in answer["warnings"]]
    lines.append(f"  scored by  {answer['version']}, request {answer['request_id']}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serve.ask", description=__doc__)
    parser.add_argument("url", help="where the service listens, such as http://127.0.0.1:8000")
    parser.add_argument("file", nargs="?", help="a radiograph: PNG, JPEG, TIFF, BMP or DICOM")
    parser.add_argument("--sex", choices=["male", "female", "unknown"], help="sex of the child (a cohort knows it)")
    parser.add_argument("--cohort", help="take the radiograph from the locked test split of this cohort")
    parser.add_argument("--case", help="id of the case (default: the one closest to the median bone age)")
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="wait so long for the service to become ready")
    parser.add_argument("--out", help="write the answer, the truth and a small picture to this JSON file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
