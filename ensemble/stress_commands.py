"""Commands about robustness: stress tests a bundle or an endpoint, promote lets what passed become champion."""

import argparse
import hashlib
import json
from typing import Any

from preprocessing.progress import counting
from preprocessing.sources import add_options, options_of
from preprocessing.storage import as_path, write_atomic


def add(commands: Any) -> None:
    """Add them to a parser's commands."""
    stress = commands.add_parser("stress", help="alter labelled radiographs in many ways and see what is answered")
    stress.add_argument(
        "subject", help="folder of a bundle, a registry, REGISTRY@VERSION_OR_ALIAS, or an http(s) address"
    )
    stress.add_argument(
        "source", help="labelled pictures that the subject was not trained on; of a cohort the locked test"
    )
    stress.add_argument("--version", default="champion", help="version or alias in the registry (default champion)")
    stress.add_argument("--cases", type=int, default=100, help="at most so many, drawn once (default 100)")
    stress.add_argument("--seed", type=int, default=0, help="of the draw and of the noise (default 0)")
    stress.add_argument("--families", metavar="NAME,NAME", help="only these families (then no gate is judged)")
    stress.add_argument("--out", metavar="FOLDER", help="write the report, its table, its drawing and a page")
    stress.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    stress.add_argument("--device", default="cpu", help="cpu (default) or a CUDA device")
    group = stress.add_argument_group("another service", "how an endpoint is asked that is not Carpal's own")
    group.add_argument("--form", metavar="FIELD", default="", help="field of a multipart form for the file")
    group.add_argument("--sex-field", metavar="FIELD", default="sex", help="field that states the sex (default sex)")
    group.add_argument("--sex-words", metavar="GIRL,BOY", default="female,male", help="(default female,male)")
    group.add_argument("--answer", metavar="PATH", default="bone_age_months", help="of the bone age in its JSON")
    group.add_argument("--answer-unit", choices=("months", "years"), default="months", help="(default months)")
    add_options(stress)
    stress.set_defaults(run=_stress)

    promote = commands.add_parser("promote", help="move an alias to a bundle that has passed the gate")
    promote.add_argument("registry", help="folder with published bundles, local or an fsspec URI")
    promote.add_argument("bundle", help="version or alias of the bundle")
    promote.add_argument("--alias", default="champion", help="what moves (default champion)")
    promote.add_argument("--regardless", metavar="REASON", default="", help="although it has not passed; recorded")
    promote.set_defaults(run=_promote)


def _stress(options: argparse.Namespace) -> None:
    from ensemble.alterations import suite
    from ensemble.stress import StressError, read_cases, stress
    from ensemble.stress_report import table_text, write

    alterations = suite()
    if options.families:
        wanted, known = options.families.split(","), dict.fromkeys(a.family for a in alterations)
        if unknown := [name for name in wanted if name not in known]:
            raise StressError(f"The families are {', '.join(known)}, got {unknown[0]!r}.")
        alterations = [alteration for alteration in alterations if alteration.family in wanted]
    source = read_cases(options.source, options_of(options))
    ask, about = _subject(options)
    report = about | stress(
        ask,
        source,
        alterations,
        num_cases=options.cases,
        seed=options.seed,
        progress=counting("cases put under stress"),
    )
    content = (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()
    if options.out:
        write(report, source, alterations, as_path(options.out))
        write_atomic(as_path(options.out) / "stress.json", content)
    print(content.decode() if options.json else table_text(report))
    if "version" in about and not options.families:
        _judge(options, report, hashlib.sha256(content).hexdigest())


def _subject(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    if options.subject.startswith(("http://", "https://")):
        from ensemble.subjects import Endpoint

        girl, _, boy = options.sex_words.partition(",")
        endpoint = Endpoint(
            url=options.subject,
            form=options.form,
            sex_field=options.sex_field,
            sex_words=(girl, boy),
            answer=options.answer,
            answer_unit=options.answer_unit,
        )
        return endpoint.ask, {"subject": options.subject}
    from ensemble.predictor import Predictor
    from ensemble.registry import named_bundle
    from ensemble.subjects import bundle_subject

    bundle = named_bundle(options.subject, options.version)
    return bundle_subject(Predictor(bundle, options.device)), {"subject": bundle.version, "version": bundle.version}


def _judge(options: argparse.Namespace, report: dict[str, Any], sha256: str) -> None:
    """Note the verdict where the bundle came from a registry."""
    import sys

    from ensemble.gate import Policy, failures, record
    from ensemble.registry import registry_of

    registry = registry_of(options.subject)
    found = record(registry, report["version"], report, sha256) if registry else failures(report, Policy())
    where = f"recorded in {registry.path}" if registry else "not recorded: the bundle was not named by its registry"
    lines = [f"gate: {'failed' if found else 'passed'}, {where}", *(f"  {sentence}" for sentence in found)]
    print("\n".join(lines), file=sys.stderr if options.json else sys.stdout)


def _promote(options: argparse.Namespace) -> None:
    from ensemble.gate import promote
    from ensemble.registry import Registry

    now, before = promote(Registry(options.registry), options.bundle, options.alias, regardless=options.regardless)
    print(f"{options.alias} is now {now}" + (f", was {before}" if before and before != now else ""))
