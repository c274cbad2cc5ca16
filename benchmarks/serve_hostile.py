"""Send a running service hostile uploads, wherever images go in.

    python -m benchmarks.serve_hostile --cases 600 [--url URL]

In turn: what our tests list by hand (`tests.hostile_uploads`), a drawn picture of no hand, and twice damaged files of
every format in damaged requests. Every answer must be a reading or a documented refusal in its one shape: no status
500, no trace of our code, nothing of what was sent; and a good radiograph must be scored before and after. A request is
made from its number and the seed alone. The key, where the service asks for one, is read from ``$CARPAL_KEY``. The last
line is JSON.
"""

import argparse
import collections
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.mutation import mutated, seeds
from benchmarks.sample import service_at
from benchmarks.serve_throughput import phantom_png
from preprocessing.drawing.wrong import KINDS, draw_wrong_input
from preprocessing.phantom_files import encode_png
from serve.problems import STATUS
from tests.hostile_uploads import UPLOADS

BOUNDARY, NAME = "carpal-hostile", "Quixotic^Zebedee"
_WORDS = {
    "sex": ["male", "F", "unknown", "", "boy", "1", "male\0", "männlich", "x" * 5000, "%s%n", "' OR 1=1--"],
    "subject": ["a", "", "x" * 200, "\0", "../../etc/passwd", "<script>", NAME, "\u202e"],
    "chronological_age_months": ["120", "12.5", "-1", "1e3", "nan", "9" * 400, "٣", "0x10", "240.000001"],
    "profile": ["full", "fast", "best", "", "FULL"],
    "explain": ["false", "true", "1", "TRUE"],
    "use_mask": ["1"],
}
_HEADERS = {
    "accept": ["*/*", "application/json", "application/fhir+json", "application/dicom", ";q=1", "image/*", "a" * 4000],
    "idempotency-key": ["k", "", "a b", "x" * 200, "k/0", "é"],
    "x-request-id": ["abc", "", "\xff\xfe", "x" * 5000],
    "content-type": ["image/png", "", "application/json", "multipart/form-data", ";;;=", "text/plain; charset=utf-16"],
    "authorization": ["Bearer x", "Basic eA==", "Bearer " + "x" * 5000],
    "x-request-timeout-seconds": ["0"],
}


@dataclass(frozen=True)
class Hostile:
    """One request."""

    family: str
    path: str
    headers: dict[str, bytes]
    content: bytes
    params: list[tuple[str, str]] = field(default_factory=list)
    method: str = "POST"


def hostile(corpus: dict[str, bytes], seed: int, case: int) -> Hostile:
    """The request of a number."""
    turn, way = divmod(case, 4)
    if way == 0:
        upload = UPLOADS[turn % len(UPLOADS)]
        listed = {name: value.encode() for name, value in upload.headers.items()}
        return Hostile("listed by hand", upload.path, listed, upload.content, method=upload.method)
    rng = np.random.default_rng([seed, case])
    if way == 1:
        drawn = encode_png(draw_wrong_input(KINDS[turn % len(KINDS)], rng, height=int(rng.integers(256, 401))))
        return Hostile("no hand", "/v1/score", {}, drawn, [("sex", "male")])
    return _damaged_request(corpus, seed, case, rng)


def _damaged_request(corpus: dict[str, bytes], seed: int, case: int, rng: np.random.Generator) -> Hostile:
    files = [
        mutated(corpus, seed, case + 1_000_000 * index) if rng.random() < 0.8 else _seed(corpus, rng)
        for index in range(int(rng.integers(1, 5)))
    ]
    params = [(name, _pick(rng, words)) for name, words in _WORDS.items() if rng.random() < 0.08]
    if rng.random() < 0.8:
        params = [("sex", "male"), *(pair for pair in params if pair[0] != "sex")]
    headers = {
        name: _pick(rng, words).encode("utf-8" if name == "idempotency-key" else "latin-1", "replace")
        for name, words in _HEADERS.items()
        if name != "authorization" and rng.random() < 0.06
    }
    if rng.random() < 0.05:
        headers["authorization"] = _pick(rng, _HEADERS["authorization"]).encode()
    way = rng.choice(["raw", "form", "batch", "broken form"])
    if way == "raw":
        return Hostile("damaged file", "/v1/score", headers, files[0], params)
    headers["content-type"] = f"multipart/form-data; boundary={BOUNDARY}".encode()
    content = _form(files if way != "form" else files[:1], params)
    if way == "broken form":
        content = _damaged(rng, content)
    path = "/v1/score" if way == "form" or rng.random() < 0.3 else "/v1/score/batch"
    family = {"form": "damaged file in a form", "batch": "damaged files in a form", "broken form": "broken form"}[way]
    return Hostile(family, path, headers, content)


def verdict(answer: Any) -> str:
    """What came back: a code, ``read``, or ``failed: ...`` for what must not."""
    media_type, text = answer.headers.get("content-type", ""), answer.content.decode("utf-8", "replace")
    if answer.status_code == 500:
        return "failed: status 500"
    if "Traceback" in text or "site-packages" in text:
        return "failed: a trace of our code"
    if media_type == "application/dicom":
        return "read"  # it carries the patient back to whoever sent it
    if NAME in text and not media_type.startswith("application/fhir+json"):
        return "failed: what was sent came back"
    if answer.status_code == 200:
        found = answer.json()
        for item in found.get("answers", []):
            if item["status"] != 200 and _wrong(item["problem"], item["status"]):
                return f"failed: {_wrong(item['problem'], item['status'])}"
        return "read"
    if media_type != "application/problem+json":
        return f"failed: status {answer.status_code} as {media_type!r}"
    wrong = _wrong(answer.json(), answer.status_code)
    return f"failed: {wrong}" if wrong else str(answer.json()["code"])


def run(send: Callable[..., Any], cases: int, *, first: int = 0, seed: int = 0, key: str = "") -> dict[str, Any]:
    """Send all cases with a client's ``request`` and gather what came back, by family and in all."""
    corpus = seeds()
    families: dict[str, collections.Counter[str]] = {}
    failed: list[tuple[int, str]] = []
    slowest = 0.0
    for case in range(first, first + cases):
        sent = hostile(corpus, seed, case)
        headers = {**({"authorization": f"Bearer {key}".encode()} if key else {}), **sent.headers}
        begin = time.perf_counter()
        answer = send(sent.method, sent.path, params=sent.params or None, headers=headers, content=sent.content)
        slowest = max(slowest, time.perf_counter() - begin)
        outcome = verdict(answer)
        families.setdefault(sent.family, collections.Counter())[outcome] += 1
        if outcome.startswith("failed"):
            failed.append((case, outcome))
    counts = sum(families.values(), collections.Counter[str]())
    return {
        "cases": cases,
        "failed": failed,
        "slowest_s": round(slowest, 3),
        "outcomes": dict(counts.most_common()),
        "families": {family: dict(told.most_common()) for family, told in sorted(families.items())},
    }


def _wrong(problem: dict[str, Any], status: int) -> str:
    if STATUS.get(problem["code"]) != status or problem["status"] != status:
        return f"status {status} for the code {problem['code']}"
    return "" if re.match(r"[A-Z].+[.]", problem["detail"], re.DOTALL) else "no sentence"


def _seed(corpus: dict[str, bytes], rng: np.random.Generator) -> bytes:
    return corpus[sorted(corpus)[rng.integers(len(corpus))]]


def _pick(rng: np.random.Generator, words: list[str]) -> str:
    return words[rng.integers(len(words))]


def _form(files: list[bytes], params: list[tuple[str, str]]) -> bytes:
    parts = [(f'name="file"; filename="{NAME}.png"', data) for data in files]
    parts += [(f'name="{name}"', value.encode()) for name, value in params]
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"
        for disposition, content in parts
    )
    return body + f"--{BOUNDARY}--\r\n".encode()


def _damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Cut, doubled, or with some bytes of its frame changed."""
    kind = rng.integers(3)
    if kind == 0:
        return content[: rng.integers(len(content))]
    if kind == 1:
        at = int(rng.integers(len(content)))
        return content[:at] + content
    changed = bytearray(content)
    for at in [*rng.integers(0, min(200, len(content)), 3), *rng.integers(0, len(content), 3)]:
        changed[at] = rng.integers(256)
    return bytes(changed)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where an answer was not as it must be."""
    import httpx2

    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_hostile", description=__doc__)
    parser.add_argument("--url", help="of a service (default: one of a sample is started)")
    parser.add_argument("--plain", action="store_true", help="start it behind Serve's own proxy")
    parser.add_argument("--cases", type=int, default=600, help="to send (default 600)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default 0)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with (
        service_at(options.url, plain=options.plain) as url,
        httpx2.Client(base_url=url, timeout=120, trust_env=False) as client,
    ):
        key = os.environ.get("CARPAL_KEY", "")

        def scores() -> bool:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            answer = client.post("/v1/score", params={"sex": "male"}, headers=headers, content=phantom_png(640))
            return answer.status_code == 200

        if not scores():
            raise RuntimeError("The service does not score a good radiograph: nothing it refuses says anything.")
        found = run(client.request, options.cases, first=options.first, seed=options.seed, key=key)
        found["scores_afterwards"] = scores()
    for family, told in found["families"].items():
        words = ", ".join(f"{STATUS.get(outcome, 200)} {outcome}: {count}" for outcome, count in told.items())
        print(f"{family:24}{sum(told.values()):5}  {words}")
    print(json.dumps(found))
    return int(bool(found["failed"]) or not found["scores_afterwards"])


if __name__ == "__main__":
    sys.exit(main())
