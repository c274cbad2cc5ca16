"""The recipe: every setting that turns a decoded radiograph into model input."""

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Self

from preprocessing.storage import canonical_hash


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a radiograph becomes model input; stored with every cohort, trial and bundle, and named by its hash."""

    version: int = 1
    """Version of the steps themselves; it changes whenever the same settings would give other pixels."""
    size: int = 96
    """Height and width of the model input, in pixels."""
    clip_percentiles: tuple[float, float] = (1.0, 99.0)
    """Grey levels outside these percentiles of the picture are saturated before rescaling to 0..255."""

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"Recipe.version must be 1, got {self.version}. Use the release that wrote it.")
        if not 64 <= self.size <= 1024:
            raise ValueError(f"Recipe.size must lie within 64..1024 pixels, got {self.size}.")
        low, high = self.clip_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"clip_percentiles must satisfy 0 <= low < high <= 100, got {self.clip_percentiles}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return {**asdict(self), "clip_percentiles": list(self.clip_percentiles)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Rebuild a recipe, refusing settings this release does not know.

        Raises:
            ValueError: A key is unknown or missing, or a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(value) ^ known:
            raise ValueError(f"A recipe has exactly the keys {sorted(known)}; these differ: {sorted(unknown)}.")
        return cls(**{**value, "clip_percentiles": tuple(value["clip_percentiles"])})

    @cached_property
    def hash(self) -> str:
        """64 hex digits that name these settings."""
        return canonical_hash(self.to_dict())
