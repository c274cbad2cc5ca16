"""Options that say how a service is asked that is not Carpal's own."""

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ensemble.endpoint import Endpoint


_AGE_FIELD = "chronological_age_months"


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    group = parser.add_argument_group(
        "another service", "how an endpoint is asked that is not Carpal's own; a key stands in CARPAL_KEY"
    )
    group.add_argument("--form", metavar="FIELD", default="", help="field of a multipart form for the file")
    group.add_argument("--sex-field", metavar="FIELD", default="sex", help="field that states the sex (default sex)")
    group.add_argument(
        "--sex-words",
        metavar="GIRL,BOY,UNKNOWN",
        default="female,male,unknown",
        help="(default female,male,unknown; of two, the field is left out where the sex is unknown)",
    )
    group.add_argument(
        "--age-field",
        metavar="FIELD",
        default=_AGE_FIELD,
        help=f"field that states the chronological age (default {_AGE_FIELD}); '' states none, "
        "and leaves out the alterations of it",
    )
    group.add_argument("--age-unit", choices=("months", "years"), default="months", help="of that age (default months)")
    group.add_argument(
        "--answer",
        metavar="PATH",
        default="bone_age_months",
        help="of the bone age in its JSON; dots go deeper (default bone_age_months)",
    )
    group.add_argument("--answer-unit", choices=("months", "years"), default="months", help="(default months)")
    group.add_argument(
        "--interval",
        metavar="PATH",
        default="intervals.90",
        help="of the low and the high end of its 90 %% interval, a list in the answer's unit (default intervals.90); "
        "where an answer has none, coverage is left out",
    )


def endpoint_of(options: argparse.Namespace, url: str) -> "Endpoint":
    """The service at an address, as the options describe it; its key stands in the environment.

    Raises:
        ValueError: Nothing can be sent to that address, the words for the sex are not two or three, or an age in years
            has no field of its own.
    """
    from ensemble.endpoint import Endpoint

    words = tuple(options.sex_words.split(","))
    if not 2 <= len(words) <= 3:
        raise ValueError(f"--sex-words are two words or three, with commas, got {options.sex_words!r}.")
    if options.age_unit == "years" and options.age_field == _AGE_FIELD:
        raise ValueError(f"--age-unit years needs a field of that unit, got {_AGE_FIELD}. Name it with --age-field.")
    return Endpoint(
        url=url,
        form=options.form,
        sex_field=options.sex_field,
        sex_words=words,
        age_field=options.age_field,
        age_unit=options.age_unit,
        answer=options.answer,
        answer_unit=options.answer_unit,
        interval=options.interval,
        key=os.environ.get("CARPAL_KEY", ""),
    )
