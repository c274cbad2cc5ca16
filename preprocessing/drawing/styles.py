"""What happens to a radiograph after the exposure: scanning, framing, turning, cropping, and printing in an atlas.

Every function takes a `Sheet` and gives one; nothing here knows bone age, and no caption tells one.
"""

from __future__ import annotations

import cv2
import numpy as np

from preprocessing.drawing.sheet import Sheet
from preprocessing.drawing.skeleton import FloatArray


def faded(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A scan of an old film: all grey levels within a narrow band, over a veil that is uneven."""
    height, width = sheet.shape
    span = rng.uniform(14, 60)
    floor = (235 - span) * rng.random() ** 2  # most such scans are dark
    veil = cv2.resize(rng.standard_normal((3, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    grey = np.clip(sheet.grey_HW, 0, 255) / 255
    noise = np.float32(rng.uniform(0.2, 1.2)) * rng.standard_normal((height, width), dtype=np.float32)
    shown = np.float32(floor) + np.float32(span) * (grey + np.float32(rng.uniform(0, 0.12)) * veil) + noise
    return sheet.shown(np.clip(shown, 0, 255))


def saturated(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """Over- or under-exposed: bright parts are white or dark ones black, and what was there is lost."""
    if rng.random() < 0.6:
        white = np.percentile(sheet.grey_HW[sheet.mask_HW > 0], rng.uniform(40, 90)) if sheet.mask_HW.any() else 120
        return sheet.shown(np.clip(sheet.grey_HW * np.float32(255 / max(float(white), 20.0)), 0, 255))
    black = np.percentile(sheet.grey_HW[sheet.mask_HW > 0], rng.uniform(30, 60)) if sheet.mask_HW.any() else 80
    return sheet.shown(np.clip((sheet.grey_HW - np.float32(black)) * np.float32(255 / (255 - min(black, 200))), 0, 255))


def framed(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """The exposed field as a tilted rectangle in a larger picture, with a rim, once or twice; unevenly lit, with a
    band or corner that was exposed otherwise, and more lettering."""
    if rng.random() < 0.7:
        sheet = _lettered(_unevenly_lit(sheet, rng), rng)
    for _ in range(2 if rng.random() < 0.25 else 1):
        sheet = _in_frame(sheet, rng)
    return sheet


def _unevenly_lit(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    height, width = sheet.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    rise = np.maximum(np.abs(x), np.abs(y)) ** np.float32(rng.uniform(2, 10))
    grey = sheet.grey_HW + np.float32(rng.uniform(0, 70) * (rng.random() < 0.6)) * rise
    turn, far = rng.uniform(0, 2 * np.pi), np.float32(rng.uniform(-0.5, 1.3))
    beyond = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn)) > far
    if rng.random() < 0.3:
        grey = np.where(beyond, grey + np.float32(rng.uniform(-25, 40)), grey)
    if rng.random() < 0.15:  # a corner of the cassette that no beam met
        grey = np.where((np.abs(x) + np.abs(y) > rng.uniform(1.6, 1.9)) & (x * y * rng.choice([-1, 1]) > 0), 250, grey)
    return sheet.shown(np.clip(grey, 0, 255))


def _lettered(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """Names, dates and side in solid or hollow letters, at any angle, at a free place."""
    height, width = sheet.shape
    text = "".join(rng.choice(list("ABCDEFGHJKLMNOPRSTUW0123456789"), int(rng.integers(1, 6))))
    size, ink = height * rng.uniform(0.02, 0.11), np.float32(rng.uniform(120, 255))
    font, thick = int(rng.choice([0, 3, 4])), max(1, int(size / rng.uniform(5, 12)))
    (long, tall), _ = cv2.getTextSize(text, font, float(size / 22), thick)
    side = int(np.hypot(long, tall)) + 8
    if side >= 0.8 * min(height, width):
        return sheet
    stamp = np.zeros((side, side), np.uint8)
    at = ((side - long) // 2, (side + tall) // 2)
    cv2.putText(stamp, text, at, font, float(size / 22), 255, thick, cv2.LINE_AA)
    if rng.random() < 0.35:
        stamp = cv2.morphologyEx(stamp, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    turn = float(rng.choice([0.0, 90.0, rng.uniform(0, 360)]))
    spin = cv2.getRotationMatrix2D((side / 2, side / 2), turn, 1.0)
    weight = cv2.warpAffine(stamp, spin, (side, side)).astype(np.float32) / 255
    if rng.random() < 0.4:  # the plate that holds the letters
        plate = np.zeros((side, side), np.uint8)
        cv2.rectangle(plate, (at[0] - 3, at[1] - tall - 3), (at[0] + long + 3, at[1] + 3), 255, -1)
        held = cv2.warpAffine(plate, spin, (side, side)).astype(np.float32) / 255
        weight = np.maximum(weight, np.float32(rng.uniform(0.05, 0.3)) * held)
    grey = sheet.grey_HW.copy()
    for left, top in (rng.random((12, 2)) * (width - side, height - side)).astype(int):
        window = (slice(top, top + side), slice(left, left + side))
        if not sheet.mask_HW[window].any():
            grey[window] = grey[window] * (1 - weight) + ink * weight
            break
    return sheet.shown(grey)


def _in_frame(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    height, width = sheet.shape
    margins = rng.uniform(0.0, 0.22, 4) * (rng.random(4) < 0.75) * height
    left, top = int(margins[0]), int(margins[1])
    size = (height + top + int(margins[3]), width + left + int(margins[2]))
    tilt = np.radians(np.clip(2.5 * rng.standard_normal(), -7, 7))
    cos, sin = float(np.cos(tilt)), float(np.sin(tilt))
    centre = np.array([width / 2, height / 2])
    turn: FloatArray = np.array([[cos, -sin], [sin, cos]])
    shift = centre + np.array([left, top]) - turn @ centre
    move = np.concatenate([turn, shift[:, None]], axis=1).astype(np.float32)
    kind, corner = rng.integers(4), float(np.median(sheet.grey_HW[:8, :8]))
    level = (0.0, float(rng.uniform(0, 60)), corner + float(rng.uniform(10, 60)), float(rng.uniform(150, 250)))[kind]
    moved = sheet.moved(move, size, level)

    edges = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64) @ turn.T + shift
    inside = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(inside, (edges * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    weight = cv2.GaussianBlur(inside, (0, 0), float(rng.uniform(0.4, 2.5))).astype(np.float32) / 255
    grey = moved.grey_HW * weight + np.float32(level) * (1 - weight)
    if rng.random() < 0.5:  # a bright or dark line along the shutters
        line = np.zeros(size, np.uint8)
        cv2.polylines(
            line, [edges.astype(np.int32)], True, 255, max(1, int(height * rng.uniform(0.004, 0.02))), cv2.LINE_AA
        )
        rim = cv2.GaussianBlur(line, (0, 0), float(rng.uniform(0.5, 2))).astype(np.float32) / 255
        grey = grey + rim * (np.float32(rng.choice([20.0, 120.0, 230.0])) - grey) * np.float32(rng.uniform(0.4, 1))
    noise = np.float32(rng.uniform(0, 1.5)) * rng.standard_normal(size, dtype=np.float32)
    # Outside the shutters no hand is seen, so none is there.
    seen = np.where(inside > 127, np.uint8(255), np.uint8(0))
    return Sheet(
        grey_HW=np.asarray(grey + noise, np.float32),
        mask_HW=np.minimum(moved.mask_HW, seen),
        bones_HW=np.minimum(moved.bones_HW, seen),
        points=moved.points,
    )


def turned(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """The file itself turned: by quarters, or by any angle on a larger ground that is black, white or as its edge."""
    height, width = sheet.shape
    degrees = float(rng.choice([90.0, 180.0, 270.0])) if rng.random() < 0.5 else float(rng.uniform(0, 360))
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    size = (round(height * cos + width * sin), round(width * cos + height * sin))
    turn[:, 2] += ((size[1] - width) / 2, (size[0] - height) / 2)
    level = float(rng.choice([0.0, 0.0, float(np.median(sheet.grey_HW[:8, :8])), 255.0]))
    return sheet.moved(turn.astype(np.float32), size, level)


def cut(sheet: Sheet, rng: np.random.Generator) -> tuple[Sheet, str]:
    """Cuts the picture through the fingers, through carpus or palm, or along one side; and says which."""
    what = str(rng.choice(["fingers", "fingers", "wrist", "wrist", "side"]))
    wrist, tip, knuckle = (np.array(sheet.points[name]) for name in ("wrist", "middle_fingertip", "3_proximal"))
    share = rng.uniform(0.1, 0.9)
    if what == "fingers":
        through, outward = knuckle + share * (tip - knuckle), tip - wrist
    elif what == "wrist":
        through, outward = wrist + (0.25 + 0.75 * share) * (knuckle - wrist), wrist - tip
    else:
        ray = int(rng.choice([1, 5]))
        side, other = np.array(sheet.points[f"{ray}_proximal"]), np.array(sheet.points["3_proximal"])
        through, outward = side + share * 0.6 * (np.array(sheet.points[f"fingertip_{ray}"]) - side), side - other
    height, width = sheet.shape
    left, top, right, bottom = 0, 0, width, height
    least = height // 4  # of the picture is left, whatever is asked
    if abs(outward[1]) >= abs(outward[0]):
        row = int(through[1])
        top, bottom = (
            (min(max(row, 0), height - least), height) if outward[1] < 0 else (0, max(min(row, height), least))
        )
    else:
        column, least = int(through[0]), width // 4
        left, right = (
            (min(max(column, 0), width - least), width) if outward[0] < 0 else (0, max(min(column, width), least))
        )
    return sheet.cropped(left, top, right, bottom), what


def atlas(sheet: Sheet, rng: np.random.Generator) -> Sheet:
    """A plate of a printed atlas: cropped to the hand, hard contrast, dark ground, a caption that tells no age."""
    rows, columns = np.nonzero(sheet.mask_HW)
    height, width = sheet.shape
    if rows.size:
        gap = (rng.uniform(0.0, 0.06, 4) * height).astype(int)
        sheet = sheet.cropped(
            max(0, int(columns.min()) - gap[0]),
            max(0, int(rows.min()) - gap[1]),
            min(width, int(columns.max()) + 1 + gap[2]),
            min(height, int(rows.max()) + 1 + gap[3]),
        )
    height, width = sheet.shape
    low, high = np.percentile(sheet.grey_HW, (rng.uniform(5, 40), rng.uniform(98, 99.8)))
    hard = np.clip((sheet.grey_HW - np.float32(low)) / np.float32(max(high - low, 8)), 0, 1)
    hard = hard ** np.float32(rng.uniform(0.9, 1.8))
    grain = np.float32(rng.uniform(0, 0.05)) * rng.standard_normal((height, width), dtype=np.float32)
    black, white = rng.uniform(0, 25), rng.uniform(200, 255)
    sheet = sheet.shown(np.clip(np.float32(black) + np.float32(white - black) * (hard + grain), 0, 255))
    if rng.random() < 0.7:
        strip, paper = int(height * rng.uniform(0.06, 0.16)), float(rng.choice([0.0, 255.0, 235.0]))
        above = rng.random() < 0.3
        shift: FloatArray = np.array([[1, 0, 0], [0, 1, strip if above else 0]], np.float32)
        sheet = sheet.moved(shift, (height + strip, width), paper)
        words = f"{rng.choice(['PLATE', 'STANDARD', 'FIG.', 'MALE', 'FEMALE', 'No.'])} {int(rng.integers(1, 60))}"
        ink = 0.0 if paper > 127 else 255.0
        place = (int(width * rng.uniform(0.02, 0.4)), int(0.7 * strip) + (0 if above else height))
        written = np.zeros(sheet.shape, np.uint8)
        size = strip / 22 * rng.uniform(0.3, 0.6)
        cv2.putText(written, words, place, int(rng.choice([0, 3, 4])), size, 255, max(1, int(strip / 16)), cv2.LINE_AA)
        weight = written.astype(np.float32) / 255
        sheet = sheet.shown(sheet.grey_HW * (1 - weight) + np.float32(ink) * weight)
    return sheet
