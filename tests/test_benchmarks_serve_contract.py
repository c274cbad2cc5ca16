"""A few hundred drawn requests against the OpenAPI document; `benchmarks.serve_contract` sends thousands."""

from pathlib import Path

import pytest

from benchmarks.serve_contract import measure
from benchmarks.serve_contract_site import site


@pytest.mark.slow
def test_the_service_does_what_its_document_says(tmp_path: Path) -> None:
    with site(tmp_path) as app:
        found = measure(app, 200, start=7)
    assert not found["failures"], "\n".join(found["failures"])
    assert found["cases"] >= 150
