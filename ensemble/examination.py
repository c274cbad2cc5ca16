"""The whole examination that the gate judges: the stress test of a bundle, and how it stands beside another."""

from collections.abc import Callable
from typing import Any

from ensemble.alterations import suite
from ensemble.bundle import Bundle
from ensemble.material import drawn, material
from ensemble.predictor import Predictor
from ensemble.standing import NUM_CASES, standing
from ensemble.stress import stress
from ensemble.subjects import bundle_subject
from ensemble.unseen import seen
from ensemble.verdict import SCHEMA
from preprocessing.progress import counting
from preprocessing.source import Source


def examine(
    bundle: Bundle,
    champion: Bundle | None,
    source: Source,
    *,
    num_cases: int = 100,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[str], Callable[[int, int], None]] = counting,
) -> dict[str, Any]:
    """Put a bundle under stress, and compare it with the one whose place it may take.

    Args:
        bundle: Examined.
        champion: Whose place it may take; None where there is none, or it is the same.
        source: Labelled radiographs that neither was trained on.
        num_cases: Of the stress test; the comparison takes more, see `ensemble.standing`.
        seed: Of every draw.
        device: ``cpu`` or a CUDA device.
        progress: Makes a progress line of what is counted.

    Returns:
        What `ensemble.stress.stress` returns, and ``schema``, ``subject``, ``version``, ``standing``; and ``source``,
        as `ensemble.material.material` names the cases of both, with the number of them that the bundle has ``seen``.

    Raises:
        BundleError: The bundle does not say what it was trained on.
        StressError: No case is answered as it is.
    """
    rows = drawn(source, max(num_cases, NUM_CASES), seed)
    about = material(source, rows) | {"seen": int(seen(bundle, source)[rows].sum())}
    predictor = Predictor(bundle, device)
    other = None if champion is None or champion.version == bundle.version else Predictor(champion, device)
    show = progress("radiographs answered")
    stands = standing(predictor, other, source, seed=seed, progress=show)
    show = progress("cases put under stress")
    ask, norms = bundle_subject(predictor), predictor.norms
    report = stress(ask, source, suite(), norms=norms, num_cases=num_cases, seed=seed, progress=show)
    names = {"schema": SCHEMA, "subject": bundle.version, "version": bundle.version, "source": about}
    return names | report | {"standing": stands}
