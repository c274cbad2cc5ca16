"""Silence around the decoding libraries: their warnings and logs quote what stands in a header."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_depth = 0
_saved: warnings.catch_warnings | None = None

# Pillow logs every TIFF tag with its value at level DEBUG, pydicom logs what it warns about.
for _name in ("pydicom", "highdicom", "pylibjpeg", "openjpeg", "rle", "jpeg_ls"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
logging.getLogger("PIL").setLevel(logging.INFO)


@contextmanager
def quiet() -> Iterator[None]:
    """No warning while any thread is inside.

    `warnings.catch_warnings` alone restores the wrong filters when threads overlap: the first one in sets the
    filter, the last one out restores it.
    """
    global _depth, _saved
    with _lock:
        _depth += 1
        if _depth == 1:
            _saved = warnings.catch_warnings()
            _saved.__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _saved is not None:
                _saved.__exit__(None, None, None)
                _saved = None
