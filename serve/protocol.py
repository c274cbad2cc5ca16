"""What goes over the wire: a request becomes a query, a prediction becomes JSON.

A query's settings travel to the replicas as plain JSON values, its `Query.options`, beside the bytes or the pixels.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from ensemble.chronology import OLDEST_MONTHS
from serve.problems import Problem
from serve.uploads import read_upload

if TYPE_CHECKING:
    from ensemble.bundle import Bundle
    from ensemble.predictor import Prediction

SEX_WORDS = {
    "male": "male",
    "m": "male",
    "female": "female",
    "f": "female",
    "unknown": "unknown",
    "u": "unknown",
}
"""Accepted words, in any case, and what they mean."""
PROFILES = ("full", "fast")
PARAMETERS = ("sex", "subject", "chronological_age_months", "profile", "explain")
"""Of ``POST /v1/score``, in its path or in its form."""
_DECIMAL = re.compile(r"[0-9]{1,4}(\.[0-9]{1,9})?")


@dataclass(frozen=True)
class Query:
    """One radiograph to score."""

    data: bytes
    """The encoded file, as sent."""
    sex: str
    """``male``, ``female`` or ``unknown``."""
    subject: str | None = None
    """Whose radiograph it is, as the caller names it; it is neither logged nor stored, its pseudonym is."""
    chronological_age_months: float | None = None
    """When the radiograph was taken; the answer is judged by it, never changed."""
    profile: str = "full"
    """Which members answer: one of `PROFILES`."""
    explain: bool = False
    """Whether a heat map is wanted too; it takes a few times as long."""

    def options(self) -> dict[str, Any]:
        """What a version's application must know beside the bytes, as plain JSON values."""
        return {
            "sex": self.sex,
            "chronological_age_months": self.chronological_age_months,
            "profile": self.profile,
            "explain": self.explain,
        }


@dataclass(frozen=True)
class Outcome:
    """What a version's application says to a query."""

    answer: dict[str, Any]
    """From `answer`: it is stored and sent."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage: ``queue`` (for the decoder), ``decode``, ``preprocess``, ``batch`` (for the model), ``model``;
    and ``explain`` where a heat map was asked for. For the metrics alone, never part of the answer."""
    heatmap: bytes | None = None
    """PNG, where one was asked for; the answer's ``heatmap`` says what it shows and where it lies."""
    appearance: Mapping[str, float] = field(default_factory=dict)
    """Of the prepared picture, as `preprocessing.appearance` measures it; for the metrics alone too."""


async def read_query(request: Request) -> Query:
    """Take the image and its parameters out of a request, however they were sent.

    The parameters are query parameters or fields of a form. Nothing is ignored silently: a parameter that does not
    exist is refused, so that a misspelt one cannot change a reading unnoticed.

    Raises:
        Problem: The request does not hold exactly one image and one sex, or a parameter is wrong.
    """
    data, given = await read_upload(request)
    return parse_query(data, given)


def parse_query(data: bytes, given: Iterable[tuple[str, str]]) -> Query:
    """A query from the bytes of a file and the parameters that came with it.

    Raises:
        Problem: A parameter is wrong, unknown, or said twice with different values.
    """
    words: dict[str, list[str]] = {name: [] for name in PARAMETERS}
    for name, value in given:
        if name not in words:
            known = ", ".join(PARAMETERS)
            raise Problem("unknown_parameter", f"The parameters are {known}, got also {_quoted(name)}. Remove it.")
        words[name].append(value)
    return Query(
        data,
        parse_sex(words["sex"]),
        parse_subject(words["subject"]),
        parse_chronological_age(words["chronological_age_months"]),
        parse_profile(words["profile"]),
        parse_explain(words["explain"]),
    )


def parse_sex(words: Iterable[str]) -> str:
    """The one sex that all given words mean.

    Raises:
        Problem: No word, an unknown word, or words that contradict each other.
    """
    meanings = set()
    for word in words:
        if (meaning := SEX_WORDS.get(word.strip().lower())) is None:
            raise Problem(
                "sex_unknown_word", f"The sex must be male, female or unknown (or m, f, u), got {_quoted(word)}."
            )
        meanings.add(meaning)
    if not meanings:
        raise Problem(
            "sex_missing",
            "The reading depends on the sex, and none was given. Add ?sex=male or female, or unknown for both.",
        )
    if len(meanings) > 1:
        said = " and as ".join(sorted(meanings))
        raise Problem("sex_contradiction", f"The sex was given as {said}. Send one of them, once.")
    return meanings.pop()


def parse_subject(words: Iterable[str]) -> str | None:
    """The one subject that was given, or None.

    Raises:
        Problem: It is empty, too long, or there are two.
    """
    subjects = set(words)
    if not subjects:
        return None
    (subject, *others) = subjects
    if others or not (0 < len(subject) <= 128 and subject.isprintable()):
        raise Problem(
            "subject_malformed", "A subject has 1 to 128 printable letters, and a request has one. Send an identifier."
        )
    return subject


def parse_chronological_age(words: Iterable[str]) -> float | None:
    """The one chronological age that was given, in months, or None.

    Raises:
        Problem: It is no age of a child in months, or there are two.
    """
    given = set(words)
    if not given:
        return None
    (word, *others) = given
    # digits alone: float() takes underscores, spaces, other alphabets' digits, infinity and NaN too
    months = float(word) if _DECIMAL.fullmatch(word) else None
    if others or months is None or months > OLDEST_MONTHS:
        raise Problem(
            "chronological_age_malformed",
            f"The chronological age lies within 0..{OLDEST_MONTHS:.0f} months and is given once, as in "
            f"chronological_age_months=126.5, got {_quoted(word)}.",
        )
    return months


def parse_profile(words: Iterable[str]) -> str:
    """The one profile that was given, else ``full``.

    Raises:
        Problem: There is no such profile, or there are two.
    """
    given = set(words) or {"full"}
    if len(given) > 1 or not given <= set(PROFILES):
        raise Problem(
            "profile_unknown", f"A request has one profile, {' or '.join(PROFILES)}, got {_quoted(min(given))}."
        )
    return given.pop()


def parse_explain(words: Iterable[str]) -> bool:
    """Whether a heat map is wanted; not where nothing was said.

    Raises:
        Problem: It is neither true nor false.
    """
    given = set(words) or {"false"}
    if len(given) > 1 or not given <= {"true", "false"}:
        raise Problem(
            "explain_malformed",
            f"A heat map is asked for with explain=true, once, or false; got {_quoted(min(given))}.",
        )
    return given == {"true"}


def answer(prediction: "Prediction") -> dict[str, Any]:
    """A prediction as plain JSON values; the gateway adds the request's id."""
    return {
        "bone_age_months": round(float(prediction.bone_age_months), 4),
        "bone_age": prediction.bone_age,
        "spread_months": round(float(prediction.spread_months), 4),
        "intervals": _intervals(prediction.intervals),
        "by_sex": {
            sex: {
                "bone_age_months": round(answer.bone_age_months, 4),
                "intervals": _intervals(answer.intervals),
                "probability": round(answer.probability, 4),
            }
            for sex, answer in prediction.by_sex.items()
        },
        "male_probability": None if prediction.male_probability is None else round(prediction.male_probability, 4),
        "chronology": prediction.chronology.to_dict() if prediction.chronology else None,
        "profile": prediction.profile,
        "distribution": prediction.distribution.astype(float).round(7).tolist(),
        "warnings": [{"code": finding.code, "message": finding.message} for finding in prediction.warnings],
        "version": prediction.version,
        "recipe": prediction.recipe,
        "bundle": prediction.bundle,
        "cohort": prediction.cohort,
    }


def _intervals(intervals: Mapping[int, tuple[float, float]]) -> dict[str, list[float]]:
    """Low and high ends in months, by percent of cases held; JSON's keys are words."""
    return {str(level): [round(low, 4), round(high, 4)] for level, (low, high) in intervals.items()}


def describe(bundle: "Bundle", aliases: Mapping[str, str]) -> dict[str, Any]:
    """A bundle as ``GET /v1/versions`` lists it."""
    return {
        "version": bundle.version,
        "aliases": sorted(alias for alias, version in aliases.items() if version == bundle.version),
        "recipe": bundle.recipe.hash,
        "bundle": bundle.digest,
        "cohort": bundle.cohort,
        "members": sum(member.weight > 0 for member in bundle.members),
        "trials": bundle.manifest["provenance"]["trials"],
    }


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...")
