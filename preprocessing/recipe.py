"""The recipe: every setting that turns a decoded radiograph into model input."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

from preprocessing.gate import Gate, is_number
from preprocessing.storage import StorageError, canonical_hash, sha256_file

VERSION = 4
VIEWS = ("full", "crop", "masked")
"""The pictures that can be made of one radiograph, in the order in which a cohort stores them."""
SEGMENTER = "segmenter.safetensors"
"""Name of the weights that find the hand, in a cohort, a study and a bundle."""
SHIPPED = Path(__file__).parent / "weights" / SEGMENTER
"""Weights learnt from drawn hands alone; `docs/segmenter.md` holds the commands that made them."""
_TYPES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and is_number(value)),
    float: ("a number", is_number),
    str: ("a text", lambda value: isinstance(value, str)),
    tuple[str, ...]: ("a list of texts", lambda value: _is_list(value, lambda item: isinstance(item, str))),
    tuple[float, float]: ("a list of two numbers", lambda value: _is_list(value, is_number) and len(value) == 2),
    Gate: ("an object of thresholds", lambda value: isinstance(value, Gate)),
}
"""What a setting of each type must be, in words and as a check: a JSON file may hold anything anywhere, and in Python
the text "false" counts as true."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a radiograph becomes model input; stored with every cohort, trial and bundle, and named by its hash."""

    version: int = VERSION
    """Version of the steps themselves; it changes whenever the same settings would give other pixels."""
    size: int = 96
    """Height and width of the model input, in pixels."""
    views: tuple[str, ...] = ("full",)
    """Which pictures are made of each radiograph: some of `VIEWS`, in that order; a trial sees one of them."""
    clip_percentiles: tuple[float, float] = (1.0, 99.0)
    """Grey levels outside these percentiles of the picture are saturated before rescaling to 0..255."""
    align: bool = False
    """Turn the fingers up and the thumb to the right, and mirror right hands."""
    clahe_clip: float = 0.0
    """Clip limit of the contrast-limited adaptive histogram equalisation, in counts of a flat histogram; 0 is off."""
    clahe_tiles: int = 8
    """Its tiles along each side."""
    pad: str = "black"
    """``black`` or ``white``: what lies beyond the picture, and beyond the hand in the masked view."""
    subtract_mean: bool = False
    """Move each picture's mean to 128 (Chen subtracts it; pixels here have no sign)."""
    repair_inversion: bool = True
    """Turn pictures with dark bones round; without it they are passed on with a warning."""
    gate: Gate = field(default_factory=Gate)
    """Where a check refuses, repairs or warns."""
    segmenter: str = ""
    """sha256 of the weights that find the hand, 64 hex digits; empty where no step needs them."""

    def __post_init__(self) -> None:
        _check_version(self.version)
        for item in fields(self):
            meant, is_meant = _TYPES[item.type]
            if not is_meant(value := getattr(self, item.name)):
                raise ValueError(f"Recipe.{item.name} must be {meant}, got {value!r}.")
        if not 64 <= self.size <= 1024:
            raise ValueError(f"Recipe.size must lie within 64..1024 pixels, got {self.size}.")
        if not self.views or self.views != tuple(view for view in VIEWS if view in self.views):
            raise ValueError(f"Recipe.views must be some of {', '.join(VIEWS)}, in that order, got {self.views}.")
        low, high = self.clip_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"clip_percentiles must satisfy 0 <= low < high <= 100, got {self.clip_percentiles}.")
        if not 0 <= self.clahe_clip <= 40 or not 1 <= self.clahe_tiles <= 32:
            raise ValueError(
                f"clahe_clip must lie within 0..40 and clahe_tiles within 1..32, got {self.clahe_clip} and "
                f"{self.clahe_tiles}. Usual are 2.0 and 8."
            )
        if self.pad not in ("black", "white"):
            raise ValueError(f"Recipe.pad must be black or white, got {self.pad!r}.")
        if not self.segmenter and (self.align or self.views != ("full",)):
            raise ValueError(
                f"The views {self.views} with align={self.align} need to find the hand: name a segmenter, or keep to "
                "the view full without alignment."
            )
        if self.segmenter and not re.fullmatch(r"[0-9a-f]{64}", self.segmenter):
            raise ValueError(f"Recipe.segmenter must be a sha256 of 64 hex digits or empty, got {self.segmenter!r}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Rebuild a stored recipe, refusing settings this release does not know.

        Raises:
            ValueError: It is of another version, a key is unknown or missing, or a value is of a wrong type or out of
                range.
        """
        _check_version(value.get("version"))
        known = {item.name for item in fields(cls)}
        if unknown := set(value) ^ known:
            raise ValueError(f"A recipe has exactly the keys {sorted(known)}; these differ: {sorted(unknown)}.")
        try:
            return cls(**_from_json(value))
        except ValueError as error:  # earlier releases stored settings of a wrong type
            raise ValueError(
                f"{error} Use the release that wrote it, or prepare the cohort, search and build again."
            ) from None

    @classmethod
    def standard(cls, /, **changes: Any) -> Self:
        """The recipe that new cohorts get: the gate and the steps that helped in `benchmarks.preprocessing_ablation`.

        Args:
            changes: Settings that differ from it; of the gate, the thresholds that do.

        Raises:
            ValueError: A setting is unknown, of a wrong type or out of range.
        """
        settings: dict[str, Any] = {"views": ("crop",), "align": True, "clahe_clip": 2.0, **changes}
        if "segmenter" not in settings:
            settings["segmenter"] = shipped_segmenter()
        known = {item.name for item in fields(cls)}
        if unknown := set(settings) - known:
            raise ValueError(f"A recipe has the settings {sorted(known)}; these are none: {sorted(unknown)}.")
        if isinstance(settings.get("gate"), dict):
            settings["gate"] = asdict(Gate()) | settings["gate"]
        return cls(**_from_json(settings))

    @cached_property
    def hash(self) -> str:
        """64 hex digits that name these settings."""
        return canonical_hash(self.to_dict())


@cache
def shipped_segmenter() -> str:
    """sha256 of the weights that come with the package."""
    return sha256_file(SHIPPED)


def check_weights(recipe: Recipe, weights: Path | None) -> Path | None:
    """The segmenter's file, once it is known to be the one that the recipe names.

    Args:
        recipe: What names it.
        weights: The file; None where it is the shipped one, or none at all.

    Raises:
        StorageError: It is missing or another one.
    """
    if not recipe.segmenter:
        return None
    if weights is None and recipe.segmenter == shipped_segmenter():
        return SHIPPED
    if weights is None or not weights.is_file():
        raise StorageError(f"The recipe needs the segmenter {recipe.segmenter[:12]}..., and {weights} is no such file.")
    if (found := sha256_file(weights)) != recipe.segmenter:
        raise StorageError(
            f"{weights} must be the segmenter {recipe.segmenter[:12]}... that the recipe names, got {found[:12]}... "
            "Restore the file."
        )
    return weights


def _is_list(value: object, is_item: Callable[[object], bool]) -> bool:
    return isinstance(value, tuple) and all(map(is_item, value))


def _from_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as the fields hold them; what is of a wrong type stays as it is, for the recipe to refuse."""
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    if isinstance(gate := found.get("gate"), dict):
        found["gate"] = Gate.from_dict(gate)
    return found


def _check_version(version: object) -> None:
    if version != VERSION:
        raise ValueError(
            f"Recipe.version must be {VERSION}, got {version}: its steps would give other pixels than these. "
            "Use the release that wrote it, or prepare the cohort again."
        )
