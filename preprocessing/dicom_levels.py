"""From stored values to grey levels with bone bright: rescale, VOI look-up table or window, inversion, padding.

All of these act on single values, so one table over every stored value (at most 65,536) does them exactly and at once.
With a VOI look-up table or a window the levels span 0..65535 whatever the depth, so that 12 stored bits keep their
4,096 levels; without one they stay the stored values, counted from the smallest one possible, since a rescale that is
linear changes nothing that the recipe's contrast step would not undo.
"""

import math
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from preprocessing.limits import unreadable

Display = Literal["voi_lut", "window", "stored", "colour"]


def apply_levels(stored: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, Display]:
    """Grey levels for display.

    The first VOI look-up table comes before the first window, as in PS3.3 C.11.2. One that would leave a single grey
    level where the stored values have more is passed over.

    Args:
        stored: ``(H, W)`` int32 stored values.
        dataset: The elements of the rescale, of the window, of the padding, and the photometric interpretation.

    Returns:
        ``(H, W)`` uint8 or uint16, and what the levels were made with. Padding has the darkest level of the rest.
    """
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    low = -(1 << (bits - 1)) if signed else 0
    values = np.arange(low, low + (1 << bits), dtype=np.int32)
    inverted = str(dataset.PhotometricInterpretation).strip() == "MONOCHROME1"
    padding = _padding(values, dataset)
    used = np.zeros(len(values), bool)
    used[np.unique(stored) - low] = True
    used &= ~padding
    if not used.any():
        used[:], padding[:] = True, False
    rescaled, plain = _rescale(values, dataset)
    for display in ("voi_lut", "window", "stored"):
        table = _table(display, rescaled, plain, dataset)
        if table is not None and (display == "stored" or np.ptp(table[used]) > 0 or np.count_nonzero(used) == 1):
            break
    assert table is not None
    if inverted:
        table = (len(values) - 1 if display == "stored" and plain is not None else 65535) - table
    table[padding] = table[used].min()
    levels = table.astype(np.uint8 if table.max() < 256 and bits <= 8 else np.uint16)
    return levels[stored - low], display  # type: ignore[return-value]


def _padding(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Which stored values mark what lies outside the picture (PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(len(values), bool)
    last = dataset.get("PixelPaddingRangeLimit")
    last = last if isinstance(last, int) else first
    width = 1 << 16  # an unsigned padding value for signed pixels is a common fault: both are the same two bytes
    if values[0] < 0 and min(first, last) > 32767:
        first, last = first - width, last - width
    elif values[0] == 0 and max(first, last) < 0:
        first, last = first + width, last + width
    return (values >= min(first, last)) & (values <= max(first, last))


def _rescale(values: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, np.ndarray | None]:
    """Rescaled values as float64; and, where the rescale is linear, the stored levels in the rescale's direction."""
    if dataset.get("ModalityLUTSequence"):
        try:
            return apply_modality_lut(values, dataset).astype(np.float64), None
        except Exception as error:  # pydicom on a malformed table
            raise unreadable("DICOM", f"its modality table, {type(error).__name__}") from None
    slope, intercept = (_first(dataset.get(k), d) for k, d in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)))
    if not slope or slope is None or intercept is None:
        raise unreadable("DICOM", "its rescale is no line")
    levels = values - values[0]
    return values * slope + intercept, levels if slope > 0 else levels[::-1].copy()


def _table(display: str, rescaled: np.ndarray, plain: np.ndarray | None, dataset: Dataset) -> np.ndarray | None:
    """Integer levels for every stored value, or None where the header does not ask for this display."""
    if display == "voi_lut":
        if not dataset.get("VOILUTSequence"):
            return None
        try:
            levels = apply_voi(np.rint(np.clip(rescaled, -(2**31), 2**31 - 1)).astype(np.int32), dataset)
            depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        except Exception as error:  # pydicom on a malformed table
            raise unreadable("DICOM", f"its VOI table, {type(error).__name__}") from None
        full = max((1 << min(max(depth, 1), 16)) - 1, int(levels.max()))
        return np.rint(levels.astype(np.float64) * (65535 / full)).astype(np.int64)
    if display == "window":
        fraction = _window(rescaled, dataset)
        return None if fraction is None else np.rint(fraction * 65535).astype(np.int64)
    if plain is not None:
        return plain.astype(np.int64)
    span = max(float(np.ptp(rescaled)), 1.0)
    return np.rint((rescaled - rescaled.min()) * (65535 / span)).astype(np.int64)


def _window(values: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Shares of full scale by the first window (PS3.3 C.11.2.1.2 and .3), or None where there is no usable one."""
    center, width = (_first(dataset.get(keyword), None) for keyword in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if center is None or width is None or width <= 0:
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function != "LINEAR_EXACT":
        center, width = center - 0.5, width - 1
    if width <= 0:
        return None
    return np.clip((values - center) / width + 0.5, 0, 1)


def _first(value: object, default: float | None) -> float | None:
    """The first of one or several numbers; `default` where there is none, None where it is not finite."""
    if not isinstance(value, (str, int, float)) and hasattr(value, "__getitem__") and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return default
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
