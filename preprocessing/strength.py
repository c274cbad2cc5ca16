"""How far the random changes to training images go at each strength of the augmentation.

Between 0 and 0.5 each limit rises in a straight line from nothing to a mild published setting, from 0.5 to 1 on to
a strong one. What is drawn is uniform within the limit, both ways; zoom and gamma are so in their logarithm.

| limit | at 0.5 | at 1 | sources (mild; strong) |
|---|---|---|---|
| mirrored, probability | 0.5 | 0.5 | nhattoan A2; Deeplasia |
| rotation | 7° | 30° | A2; Deeplasia; BoNet's 20° is passed at 0.78 |
| shift, share of the side | 0.03 | 0.2 | A2; Deeplasia, BoNet |
| zoom, times or divided by | 1.05 | 1.25 | A2; Deeplasia; a crop to 0.875 (224 of 256), zoom 1.14, is passed at 0.73 |
| shear | 0° | 10° | none; Deeplasia |
| brightness, share of white | 0.1 | 0.1 | A2; more loses bones of bright films, fingertips of dark ones |
| contrast, factor about 1 | 0.1 | 0.15 | A2; the same, seen on RSNA 2017 |
| gamma, to the power of or one over | 1.1 | 1.4 | A2; Deeplasia (0.7 to 1.3) |
| CLAHE, clip limit 3, probability | 0 | 0.25 | none; Deeplasia |
| sharpened, probability | 0 | 0.2 | none; Deeplasia |
| blurred, probability | 0.1 | 0.2 | ours; up to 0.3 % of the side at 0.5, 0.6 % at 1 |
| noise, probability | 0.1 | 0.2 | ours; standard deviation up to 3 % of the grey level at 0.5, 8 % at 1 |
| marker or plate, probability | 0.1 | 0.3 | ours, after nhattoan's artefact training |
| frame or collimator, probability | 0.1 | 0.3 | the same; up to 5 % of the side at 0.5, 10 % at 1 |
| inverted, probability | 0.002 | 0.01 | Pan; rare, since the recipe repairs inversions |

Outside the edge the nearest pixel goes on. A2 is the setting that gained most in nhattoan's ablation (0.46 months);
Deeplasia's gained 0.001 more.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a change may go; the table above."""

    mirrored: float = 0.0
    rotation_deg: float = 0.0
    shift: float = 0.0
    zoom: float = 1.0
    shear_deg: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 1.0
    clahe: float = 0.0
    sharpened: float = 0.0
    blurred: float = 0.0
    blur_side: float = 0.0
    noisy: float = 0.0
    noise_sd: float = 0.0
    marked: float = 0.0
    bordered: float = 0.0
    border_side: float = 0.0
    inverted: float = 0.0


NONE = Limits()
MILD = Limits(
    mirrored=0.5,
    rotation_deg=7,
    shift=0.03,
    zoom=1.05,
    brightness=0.1,
    contrast=0.1,
    gamma=1.1,
    blurred=0.1,
    blur_side=0.003,
    noisy=0.1,
    noise_sd=0.03,
    marked=0.1,
    bordered=0.1,
    border_side=0.05,
    inverted=0.002,
)
STRONG = Limits(
    mirrored=0.5,
    rotation_deg=30,
    shift=0.2,
    zoom=1.25,
    shear_deg=10,
    brightness=0.1,
    contrast=0.15,
    gamma=1.4,
    clahe=0.25,
    sharpened=0.2,
    blurred=0.2,
    blur_side=0.006,
    noisy=0.2,
    noise_sd=0.08,
    marked=0.3,
    bordered=0.3,
    border_side=0.1,
    inverted=0.01,
)


def limits(strength: float) -> Limits:
    """Limits of a strength.

    Raises:
        ValueError: The strength is outside 0..1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"Augmentation strength must lie within 0..1, got {strength}. 0 leaves images alone.")
    low, high, share = (NONE, MILD, 2 * strength) if strength <= 0.5 else (MILD, STRONG, 2 * strength - 1)
    return Limits(
        **{f.name: (1 - share) * getattr(low, f.name) + share * getattr(high, f.name) for f in fields(Limits)}
    )
