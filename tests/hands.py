"""Drawn radiographs for tests that find the hand, drawn once a run."""

from functools import cache

import cv2
import numpy as np

from preprocessing.phantom import Phantom, draw_phantom
from preprocessing.recipe import Recipe
from preprocessing.standardize import Reader


@cache
def hand(seed: int = 0, *variants: str, months: float = 120.0) -> Phantom:
    """A drawn hand, 320 pixels high."""
    return draw_phantom(months, "male", np.random.default_rng(seed), height=320, variants=variants)


@cache
def reader(**changes: object) -> Reader:
    """A reader by the standard recipe, with changes."""
    return Reader(Recipe.standard(**{"size": 96, **changes}))


def png(image: np.ndarray) -> bytes:
    """The picture as a PNG."""
    return cv2.imencode(".png", image)[1].tobytes()


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures' pixels."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
