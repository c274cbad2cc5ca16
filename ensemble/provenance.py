"""Where a bundle's members come from, down to trial, fold and seed, and under which licence."""

import contextlib
import importlib.metadata
import platform
from typing import Any

from ensemble.candidates import Candidate, Study
from preprocessing.storage import canonical_hash
from search.space import TrialConfig

PACKAGES = (
    *("carpal", "numpy"),
    *("opencv-python-headless", "pillow", "pydicom", "pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm"),
    *("segmentation-models-pytorch", "timm", "torch", "torchvision", "safetensors"),
    *("albumentations", "scipy"),
)
"""Whose versions a bundle names: what decodes and resamples pixels, what computes an answer of them, and what altered
the pictures in training and fitted the weights."""


def licence_of(config: TrialConfig) -> str:
    """Licence of the weights that a trial started from."""
    if not config.pretrained:
        return "none: trained from random weights"
    return f"not known: ask whoever published {config.pretrained}"


def provenance(studies: tuple[Study, ...], members: list[Candidate]) -> dict[str, Any]:
    """The manifest's entry: what the members can be traced by."""
    return {
        "studies": [{"name": study.name, "study_hash": canonical_hash(study.about)} for study in studies],
        "cohort_hash": studies[0].about["cohort_hash"],
        "trials": [
            {
                "study": member.study_name,
                "trial": member.trial.number,
                "seed": member.trial.config.seed,
                "config_hash": canonical_hash(member.trial.config.to_dict()),
                "folds": list(member.trial.fold_hashes),
            }
            for member in members
        ],
        "packages": _packages(),
    }


def _packages() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        # Carpal itself is run from a checkout on a cluster, where it has no version
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
