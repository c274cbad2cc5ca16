"""Whether the service does what its OpenAPI document says: ``python -m benchmarks.serve_contract --cases 5000``.

Schemathesis draws requests that fit the document and requests that break it, sends them over HTTP to a service that
runs, and judges every answer: no status of 500 or more, no status, content type or shape that the document does not
name, nothing malformed accepted, no method beside those named. The last line is JSON with ``cases``, ``failures`` and
``statuses``.
"""

import argparse
import collections
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import negative_data_rejection, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.applications import Starlette

from benchmarks.sample import publish_sample
from benchmarks.serve_contract_site import IMAGES
from benchmarks.service import running_service

PATH = "/openapi.json"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


def measure(service: Starlette | str, cases: int, start: int = 0) -> dict[str, Any]:
    """Try a service against its own document.

    Args:
        service: An app in this process, or the URL of a service that runs, with ``/openapi.json``; it asks for no key.
        cases: To draw, over all operations and both kinds.
        start: Seed.

    Returns:
        ``cases`` sent, ``statuses`` by number, and ``failures``: one sentence for each operation and kind that fails.
    """
    statuses: collections.Counter[int] = collections.Counter()
    failures: list[str] = []
    images = st.sampled_from(IMAGES) | st.binary(max_size=64)
    schemathesis.openapi.format("binary", images)
    for kind in ("image/png", "image/jpeg", "image/tiff", "image/bmp", "application/dicom", "application/octet-stream"):
        schemathesis.openapi.media_type(kind, images)
    load = schemathesis.openapi
    schema = load.from_url(f"{service}{PATH}") if isinstance(service, str) else load.from_asgi(PATH, service)
    operations = [cast(Any, result).ok() for result in schema.get_all_operations()]
    # where a request can be got wrong in many ways more are drawn
    weights = [1 + 3 * bool(one.body) + len(list(one.query)) + len(list(one.path_parameters)) for one in operations]
    for operation, weight in zip(operations, weights, strict=True):
        can_break = bool(operation.body) or weight > 1
        for mode in GenerationMode if can_break else [GenerationMode.POSITIVE]:
            count = max(1, round(cases * weight / (2 * sum(weights))))
            name = f"{operation.label}, {mode.value}"
            try:
                _try(operation, mode, count, start, statuses)
            except (
                Exception,
                BaseExceptionGroup,
            ) as error:  # whatever was found or went wrong belongs to this operation
                failures.append(f"{name}: {str(error)[:2000]}")
    return {"cases": sum(statuses.values()), "failures": failures, "statuses": dict(sorted(statuses.items()))}


def _try(operation: Any, mode: GenerationMode, count: int, start: int, statuses: collections.Counter[int]) -> None:
    strategy = operation.as_strategy(generation_mode=mode)
    # a batch answers 200 with a problem for each file, whatever is wrong with what is said about it
    checks = [one for one in CHECKS if operation.path != "/v1/score/batch" or one is not negative_data_rejection]

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def judge(case: Any) -> None:
        response = case.call()
        statuses[response.status_code] += 1
        case.validate_response(response, checks=checks)

    judge()


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where anything failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve_contract", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="of an open service (default: one of a sample is started)")
    parser.add_argument("--plain", action="store_true", help="start it behind Serve's own proxy")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        url = options.url
        if url is None:
            registry = publish_sample(Path(stack.enter_context(tempfile.TemporaryDirectory())), num_trials=1)
            url = stack.enter_context(running_service(registry, *(["--plain"] if options.plain else []))).url
        found = measure(url, options.cases, options.seed)
    for failure in found["failures"]:
        print(failure, "\n")
    print(json.dumps({**found, "failures": len(found["failures"])}))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
