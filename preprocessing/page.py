"""What all pages share: the template environment with its base style sheet, pictures inside the page, and number words.

A page is one file that needs no other and no network: style sheet, pictures and drawings lie in it.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

MINUS, THIN = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
NO_INTERVAL = "\N{EN DASH}"
_BASE = Path(__file__).parent / "templates"


def environment(templates: Path, **filters: Callable[..., Any]) -> jinja2.Environment:
    """Templates of a folder, which extend ``page.html``: what they print is escaped, and a missing name is an error.

    Args:
        templates: Searched first; ``page.html`` and its macros lie beside this module.
        filters: Of the caller's own, beside those that all pages know.
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, _BASE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": lambda value: f"{value:,}",
        "months": _months,
        "percent": lambda value: f"{100 * value:.0f}{THIN}%",
        "signed": signed,
        "short": in_short,
        "years": in_years,
        "interval": lambda ends, kind="months", *digits: (
            NO_INTERVAL if ends is None else " to ".join(made.filters[kind](end, *digits) for end in ends)
        ),
        **filters,
    }
    return made


def embed(png: bytes) -> str:
    """A PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def encoded(picture: np.ndarray) -> bytes:
    """A picture as PNG bytes, grey ``(H, W)`` or red first ``(H, W, 3)``, uint8."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", np.ascontiguousarray(picture))[1].tobytes()


def radiograph(pixels_HW: np.ndarray) -> bytes:
    """A prepared radiograph as PNG bytes, cut to where it is not padding."""
    rows, columns = np.flatnonzero(pixels_HW.any(axis=1)), np.flatnonzero(pixels_HW.any(axis=0))
    if len(rows) and len(columns):
        pixels_HW = pixels_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return encoded(pixels_HW)


def signed(value: float, digits: int = 1) -> str:
    """With its sign, a real minus among them."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def in_short(value: float) -> str:
    """A score as a person reads it: two digits after the point at most."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")


def in_years(months: float) -> str:
    """Years and months, as bone ages are spoken of."""
    years, rest = divmod(round(months), 12)
    return f"{years} y {rest} m" if rest else f"{years} y"


def _months(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}"
