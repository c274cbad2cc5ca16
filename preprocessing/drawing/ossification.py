"""When each ossification centre of the hand appears, fills its cartilage and fuses, by sex.

What is published, rounded to whole months, and what is ours:

- Appearance (median): after Garn SM, Rohmann CG, Silverman FN, "Radiographic standards for postnatal
  ossification and tooth calcification", Med Radiogr Photogr 43:45-66, 1967. Capitate and hamate first, the
  radius at about one year, the short bones over the next two, then triquetral, lunate and the radial
  carpals, the ulna, and the sesamoid of the thumb at puberty. The pisiform (9 to 10 years in girls, 11 to
  12 in boys) follows Scheuer & Black, "Developmental Juvenile Osteology", 2000.
- Fusion: its order (distal phalanges; metacarpals and proximal phalanges; middle phalanges; ulna; radius)
  and the years in which each is seen follow Greulich & Pyle, "Radiographic Atlas of Skeletal Development of
  the Hand and Wrist", 2nd ed. 1959, and Gilsanz & Ratib, "Hand Bone Age", 2005: distal phalanges at about
  13 1/2 years in girls and 15 1/2 in boys, the radius at about 16 1/2 and 18. Start and end of one fusion
  are set round those ages by us, as is the fading of the scar.
- Interpolated: how large a centre is between appearance and fusion. A square-root-like rise is used, as the
  atlases show centres that grow fast at first; epiphyses are as wide as their shaft at about 9 years in
  girls and 11 in boys (distal phalanges earlier), and cap it before they fuse. Spread between children is
  ours too: each centre runs a few percent early or late, so that no single centre gives bone age away.

The figures were set down from knowledge of these works, not transcribed from their tables; check one before any use
but drawing. They are no standard to read a child's radiograph by.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

Sex = Literal["female", "male"]

MIN_MONTHS, MAX_MONTHS = 0.0, 240.0

SPREAD = 0.03
"""Standard deviation, as a fraction of its age, of one centre's onset at the same bone age."""


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """Median ages, in months, of one centre in one sex."""

    appears: float
    """First visible as a dot."""
    full: float
    """Epiphysis: as wide as its shaft. Carpal: adult outline, touching its neighbours."""
    fusing: float | None = None
    """The growth plate begins to close; None for a centre that never fuses."""
    fused: float | None = None
    """The growth plate is bridged over its whole width."""

    def __post_init__(self) -> None:
        ages = [age for age in (self.appears, self.full, self.fusing, self.fused) if age is not None]
        if any(later <= earlier for earlier, later in pairwise(ages)):
            raise ValueError(f"appears < full < fusing < fused must hold, got {ages}.")


@dataclass(frozen=True, kw_only=True)
class Maturity:
    """State of one centre at one bone age; every field is 0 to 1 and never falls as bone age rises."""

    grown: float
    """Ossified part of the final linear size; 0 before the centre appears."""
    capped: float
    """How far an epiphysis has grown round its shaft after reaching its width."""
    fused: float
    """Bridged part of the growth plate."""
    faded: float
    """How far the white scar of the former plate has gone."""


# centre: (appears, full, fusing, fused) for girls, then boys; short bones are ray_segment, ray 1 = thumb.
_CARPALS = {
    "capitate": ((2, 126), (3, 150)),
    "hamate": ((2, 128), (4, 152)),
    "triquetral": ((20, 132), (29, 155)),
    "lunate": ((31, 134), (49, 157)),
    "scaphoid": ((49, 138), (68, 161)),
    "trapezium": ((47, 137), (70, 160)),
    "trapezoid": ((50, 135), (75, 158)),
    "pisiform": ((114, 162), (138, 182)),
    "sesamoid": ((129, 168), (153, 186)),
}
_EPIPHYSES = {
    "radius": ((10, 126, 174, 200), (13, 150, 194, 220)),
    "ulna": ((63, 138, 172, 192), (84, 162, 190, 212)),
    "1_metacarpal": ((19, 114, 158, 176), (32, 138, 180, 196)),
    "2_metacarpal": ((13, 116, 162, 180), (19, 140, 184, 200)),
    "3_metacarpal": ((13, 116, 162, 180), (21, 140, 184, 200)),
    "4_metacarpal": ((16, 117, 163, 181), (24, 141, 185, 201)),
    "5_metacarpal": ((16, 117, 163, 181), (26, 141, 185, 201)),
    "1_proximal": ((21, 112, 162, 178), (36, 136, 184, 200)),
    "2_proximal": ((11, 110, 163, 178), (16, 134, 184, 199)),
    "3_proximal": ((10, 110, 163, 178), (16, 134, 184, 199)),
    "4_proximal": ((11, 110, 163, 178), (17, 134, 184, 199)),
    "5_proximal": ((14, 112, 164, 179), (21, 136, 185, 200)),
    "2_middle": ((16, 112, 165, 180), (26, 136, 186, 201)),
    "3_middle": ((15, 111, 165, 180), (24, 135, 186, 201)),
    "4_middle": ((15, 111, 165, 180), (25, 135, 186, 201)),
    "5_middle": ((22, 116, 166, 181), (41, 140, 187, 202)),
    "1_distal": ((12, 102, 155, 168), (19, 126, 179, 192)),
    "2_distal": ((23, 108, 157, 170), (38, 132, 181, 194)),
    "3_distal": ((18, 106, 156, 169), (28, 130, 180, 193)),
    "4_distal": ((18, 106, 156, 169), (29, 130, 180, 193)),
    "5_distal": ((24, 109, 157, 170), (39, 133, 181, 194)),
}

CARPALS = tuple(_CARPALS)
EPIPHYSES = tuple(_EPIPHYSES)
CENTRES = CARPALS + EPIPHYSES


def timetable(centre: str, sex: Sex) -> Timetable:
    """Median ages of one of `CENTRES`."""
    column = 0 if sex == "female" else 1
    if centre in _CARPALS:
        appears, full = _CARPALS[centre][column]
        return Timetable(appears=appears, full=full)
    appears, full, fusing, fused = _EPIPHYSES[centre][column]
    return Timetable(appears=appears, full=full, fusing=fusing, fused=fused)


def draw_tempo(rng: np.random.Generator) -> dict[str, float]:
    """Draws how early (below 1) or late each centre of one child runs; as many draws for every child."""
    # Bounded, so that no centre strays beyond what the percentile tables show.
    deviations = SPREAD * np.clip(rng.standard_normal(len(CENTRES)), -2, 2)
    return {centre: float(1 + deviation) for centre, deviation in zip(CENTRES, deviations, strict=True)}


def maturity(centre: str, sex: Sex, bone_age_months: float, tempo: float = 1.0) -> Maturity:
    """State of `centre` at a bone age.

    Args:
        centre: One of `CENTRES`.
        sex: Girls run ahead of boys in every centre.
        bone_age_months: Months; every field of the result is non-decreasing in it.
        tempo: Above 1, the centre runs late by that factor.
    """
    table = timetable(centre, sex)
    age = bone_age_months / tempo
    # The exponent makes a new centre grow fast; the small second ramp goes on after `full`: no year is blind.
    grown = 0.93 * _ramp(age, table.appears, table.full) ** 0.52 + 0.07 * _ramp(age, table.appears, table.full + 36)
    if table.fusing is None or table.fused is None:
        return Maturity(grown=grown, capped=_ramp(age, table.full, table.full + 36), fused=0.0, faded=0.0)
    return Maturity(
        grown=grown,
        capped=_ramp(age, table.full - 18, table.fusing),
        fused=_ramp(age, table.fusing, table.fused),
        faded=_ramp(age, table.fused, table.fused + 30),
    )


def shaft_growth(sex: Sex, bone_age_months: float) -> float:
    """How far the shafts have grown into their cartilage: 0 at birth to 1 when the hand is mature.

    Interpolated: fast in infancy, then even; scaled by sex through the fusion of the third metacarpal.
    """
    end = timetable("3_metacarpal", sex).fused
    assert end is not None
    return float(_ramp(bone_age_months, 0.0, end) ** 0.6)


def _ramp(age: float, start: float, end: float) -> float:
    return min(1.0, max(0.0, (age - start) / (end - start)))
