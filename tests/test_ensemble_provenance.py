"""Provenance: what a bundle says of where it comes from."""

import importlib.metadata

from ensemble.provenance import PACKAGES, provenance


class Study:
    name = "study"
    about = {"cohort_hash": "c"}  # noqa: RUF012


def test_every_package_that_makes_pixels_or_answers_is_named_with_its_version():
    packages = provenance((Study(),), [])["packages"]
    for name in ("opencv-python-headless", "pillow", "pydicom", "torchvision", "scipy", "safetensors", "timm"):
        assert packages[name] == importlib.metadata.version(name)
    assert set(packages) <= {"python", *PACKAGES}
