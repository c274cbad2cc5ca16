"""How drawn pictures and their truth are written: PNG files and tables whose bytes depend on their content alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from preprocessing.drawing.wrong import KINDS, draw_wrong_input


def write_wrong_inputs(out: Path, num_wrong: int, seed: int) -> None:
    """Writes ``out/wrong/<n>.png``, every kind in turn, and ``out/wrong.csv`` (file, kind); nothing for 0."""
    if not num_wrong:
        return
    (out / "wrong").mkdir()
    rows = []
    for index in range(num_wrong):
        rng = np.random.default_rng(np.random.SeedSequence([seed, index, 1]))
        kind = KINDS[index % len(KINDS)]
        image = draw_wrong_input(kind, rng, height=int(rng.integers(256, 401)))
        (out / "wrong" / f"{1 + index}.png").write_bytes(encode_png(image))
        rows.append((f"wrong/{1 + index}.png", kind))
    write_table(out / "wrong.csv", ("file", "kind"), rows)


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_text(table.getvalue())


def encode_png(image: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    # A fixed level and strategy: the bytes then depend on the pixels alone.
    done, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, 1])
    assert done
    return encoded.tobytes()
