"""What was noticed about a radiograph on its way to model input: refused, repaired or worth a warning."""

from dataclasses import dataclass

from preprocessing.header import Header, contradictions

ACTIONS = ("refused", "repaired", "warned")


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed about one radiograph."""

    code: str
    """Stable word, such as ``inverted`` or ``contradiction``."""
    action: str
    """``refused``: there are no pixels; ``repaired``: the pixels show it no more; ``warned``: they do."""
    score: float
    """What was measured."""
    threshold: float
    """Where it begins to count."""
    message: str
    """A sentence for the reader of the result; it holds no identifier."""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"The action of a finding is one of {', '.join(ACTIONS)}, got {self.action!r}.")


def header_findings(
    header: Header | None,
    *,
    sex: str | None = None,
    chronological_age_months: float | None = None,
    laterality: str | None = "left",
    patient_hash: str | None = None,
) -> tuple[Finding, ...]:
    """Where a header contradicts the caller, as findings; arguments as in `preprocessing.header.contradictions`."""
    sentences = contradictions(
        header,
        sex=sex,
        chronological_age_months=chronological_age_months,
        laterality=laterality,
        patient_hash=patient_hash,
    )
    return tuple(Finding("contradiction", "warned", 1.0, 1.0, sentence) for sentence in sentences)
