"""In which form an answer is wanted: JSON, a FHIR Observation or a DICOM report, by the Accept header (RFC 9110)."""

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from preprocessing.dicom import is_dicom
from serve import fhir
from serve.problems import Problem

JSON, FHIR, DICOM = "application/json", "application/fhir+json", "application/dicom"
OFFERED = (JSON, FHIR, DICOM)
"""The first one is given where the caller likes several equally well."""
FHIR_VERSIONS = {"4.0": "4.0", "4.3": "4.3", "5.0": "5.0"}
"""Of FHIR, as ``application/fhir+json; fhirVersion=4.0`` names them; an Observation of ours is valid in all."""


@dataclass(frozen=True)
class Form:
    """What the caller wants."""

    media_type: str
    """One of `OFFERED`."""
    fhir_version: str = "4.0"


def wanted(request: Request, *, offered: tuple[str, ...] = OFFERED) -> Form:
    """The form that the caller likes best.

    Args:
        request: Its ``Accept``; JSON where there is none.
        offered: Those that the path can give.

    Raises:
        Problem: None of them is acceptable.
    """
    header = ", ".join(request.headers.getlist("accept"))
    if not header.strip():
        return Form(offered[0])
    liked = [_range(text) for text in header.split(",")]
    best, form = 0.0, None
    for media_type in offered:
        of_type = media_type.partition("/")[0]
        fits = [
            (rank, quality, version)
            for name, rank, quality, version in liked
            if name in (media_type, f"{of_type}/*", "*/*")
        ]
        if not fits:
            continue
        _, quality, version = max(fits, key=lambda fit: fit[0])  # the most specific range counts
        is_known = media_type != FHIR or version is None or version in FHIR_VERSIONS
        if quality > best and is_known:
            best, form = quality, Form(media_type, version or "4.0")
    if form is None:
        raise Problem("not_acceptable", f"The answer comes as {', '.join(offered)}. Accept one of them.")
    return form


def check_before_scoring(form: Form, data: bytes) -> None:
    """Refuse at once what could not be given afterwards.

    Raises:
        Problem: A DICOM report is wanted of a file that is no DICOM: it would belong to no patient and no study.
    """
    if form.media_type == DICOM and not is_dicom(data):
        raise Problem(
            "not_acceptable", f"A DICOM report belongs to the study of a DICOM file. Send one, or accept {JSON}."
        )


async def rendered(
    form: Form,
    answer: dict[str, Any],
    *,
    created_s: float,
    sex: str,
    subject: str | None = None,
    data: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Response:
    """An answer in its form.

    Args:
        form: Not DICOM without `data`.
        answer: As it is stored.
        created_s: When it was, Unix seconds.
        sex: ``male``, ``female`` or ``unknown``.
        subject: As the caller named it.
        data: The file that was scored.
        headers: Of the response.

    Raises:
        Problem: The file's header cannot carry a report.
    """
    if form.media_type == JSON:
        return JSONResponse(answer, headers=headers)
    created = datetime.fromtimestamp(created_s, UTC)
    if form.media_type == FHIR:
        resource = fhir.observation(answer, created=created, sex=sex, subject=subject)
        return JSONResponse(resource, headers=headers, media_type=f"{FHIR}; fhirVersion={form.fhir_version}")
    from serve.dicom_report import report  # pydicom and highdicom: for those who ask for it alone

    written = await asyncio.to_thread(report, data, answer, created=created, sex=sex)
    return Response(written, headers=headers, media_type=DICOM)


def _range(text: str) -> tuple[str, int, float, str | None]:
    """A media range: its name, how specific it is, its quality, and the FHIR version that it names."""
    name, *parameters = (part.strip() for part in text.lower().split(";"))
    quality, version = 1.0, None
    for parameter in parameters:
        key, _, value = (part.strip() for part in parameter.partition("="))
        if key == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
        elif key == "fhirversion":
            version = value.strip('"')
    rank = 2 + (version is not None) if not name.endswith("/*") else int(name != "*/*")
    return name, rank, quality if math.isfinite(quality) and 0 <= quality <= 1 else 0.0, version
