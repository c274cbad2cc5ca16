"""Commands about robustness: stress tests a bundle or an endpoint, promote lets what passed become champion."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ensemble import endpoint_options
from ensemble.arguments import BUNDLE, add_bundle, count, seed
from preprocessing.progress import counting
from preprocessing.sources import SourceOptions, add_options, options_of
from preprocessing.storage import as_path, write_atomic

if TYPE_CHECKING:
    from ensemble.alterations import Alteration
    from ensemble.bundle import Bundle
    from ensemble.chronology import Norms
    from ensemble.endpoint import Endpoint
    from ensemble.registry import Registry
    from ensemble.subjects import Subject
    from preprocessing.source import Source

CHAMPION = "champion"


def add(commands: Any) -> None:
    """Add them to a parser's commands."""
    stress = commands.add_parser("stress", help="alter labelled radiographs in many ways and see what is answered")
    add_bundle(stress, "subject", text=f"{BUNDLE}; or an http(s) address")
    stress.add_argument(
        "source", help="labelled pictures that the subject was not trained on; of a cohort the locked test"
    )
    stress.add_argument(
        "--against", metavar="ALIAS", default=CHAMPION, help="whose place it may take (default champion)"
    )
    stress.add_argument("--cases", type=count, default=100, help="at most so many, drawn once (default 100)")
    stress.add_argument("--seed", type=seed, default=0, help="of the draw and of the noise (default 0)")
    stress.add_argument("--families", metavar="NAME,NAME", help="only these families (then no gate is judged)")
    stress.add_argument("--out", metavar="FOLDER", help="write the report, its table, its drawing and a page")
    stress.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    stress.add_argument("--device", default="cpu", help="cpu (default) or a CUDA device")
    endpoint_options.add(stress)
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
    from ensemble.examination import examine
    from ensemble.members import check_device
    from ensemble.stress import StressError, check_ages
    from ensemble.stress_report import table_text, write
    from ensemble.verdict import encoded

    alterations = [alteration for alteration in suite() if _states_age(options) or alteration.age == "as it is"]
    if options.families:
        wanted, known = options.families.split(","), dict.fromkeys(a.family for a in alterations)
        if unknown := [name for name in wanted if name not in known]:
            raise StressError(f"The families are {', '.join(known)}, got {unknown[0]!r}.")
        alterations = [alteration for alteration in alterations if alteration.family in wanted]
    # what cannot be right is refused before the cases are opened, so that no reading of a locked test is noted for it
    check_ages(alterations, options.cases, _states_age(options))
    check_device(options.device)
    bundle, champion = _named(options)
    subject = endpoint_options.endpoint_of(options, options.subject) if bundle is None else bundle
    source = _opened(options.source, options_of(options), bundle, champion, "stress")
    if bundle is None or options.families:
        report = _asked(options, subject, source, alterations)
    else:
        asked = {"num_cases": options.cases, "seed": options.seed, "device": options.device}
        report = examine(bundle, champion, source, **asked, progress=counting)
    if options.out:
        write(report, source, alterations, as_path(options.out))
        write_atomic(as_path(options.out) / "stress.json", encoded(report))
    print(encoded(report).decode() if options.json else table_text(report))
    if "standing" in report:
        _judge(options, report)


def _named(options: argparse.Namespace) -> "tuple[Bundle | None, Bundle | None]":
    """The bundle, and the one whose place it may take; None of an endpoint, and where only some families are asked.

    Raises:
        RegistryError: The registry has none of the name.
    """
    from ensemble.registry import named_bundle, registry_of

    if _is_address(options.subject):
        return None, None
    bundle, registry = named_bundle(options.subject, options.version), registry_of(options.subject)
    if registry is None or options.families:
        return bundle, None
    if options.against == CHAMPION and CHAMPION not in registry.aliases():
        return bundle, None  # the first of its registry
    return bundle, registry.resolve(options.against)


def _asked(
    options: argparse.Namespace, subject: "Bundle | Endpoint", source: "Source", alterations: "list[Alteration]"
) -> dict[str, Any]:
    from ensemble.stress import stress

    ask, norms, about = _subject(subject, options.device)
    show = counting("cases put under stress")
    asked = {"num_cases": options.cases, "seed": options.seed, "states_age": _states_age(options)}
    found = stress(ask, source, alterations, norms=norms, **asked, progress=show)
    return about | found


def _subject(subject: "Bundle | Endpoint", device: str) -> "tuple[Subject, Norms, dict[str, Any]]":
    """Who is asked, by which norms an error is significant, and what the report says of who it is."""
    from ensemble.chronology import PUBLISHED
    from ensemble.endpoint import Endpoint
    from ensemble.predictor import Predictor
    from ensemble.subjects import bundle_subject

    if isinstance(subject, Endpoint):
        return subject.ask, PUBLISHED, {"subject": subject.url}
    predictor = Predictor(subject, device)
    return bundle_subject(predictor), predictor.norms, {"subject": subject.version, "version": subject.version}


def _is_address(subject: str) -> bool:
    return subject.startswith(("http://", "https://"))


def _states_age(options: argparse.Namespace) -> bool:
    """A bundle is asked as the service asks it, which takes the age."""
    return bool(options.age_field) or not _is_address(options.subject)


def _judge(options: argparse.Namespace, report: dict[str, Any]) -> None:
    """Note the verdict where the bundle came from a registry."""
    from ensemble.gate import Policy, failures
    from ensemble.registry import registry_of
    from ensemble.verdict import recorded

    registry = registry_of(options.subject)
    found = recorded(registry, report) if registry else failures(report, Policy())
    where = f"recorded in {registry.path}" if registry else "not recorded: the bundle was not named by its registry"
    lines = [f"gate: {'failed' if found else 'passed'}, {where}", *(f"  {sentence}" for sentence in found)]
    print("\n".join(lines), file=sys.stderr if options.json else sys.stdout)


def _promote(options: argparse.Namespace) -> None:
    from ensemble.registry import Registry
    from ensemble.verdict import promote

    now, before = promote(Registry(options.registry), options.bundle, options.alias, regardless=options.regardless)
    print(_moved(options.alias, now, before))


def settle(registry: "Registry", version: str, alias: str, *, gate: str = "", device: str = "cpu") -> None:
    """Let an alias move to a bundle that was just published, if it may, and say what became of it.

    Args:
        registry: That holds the bundle.
        version: Of the bundle.
        alias: Taken at once where it points to nothing yet.
        gate: Labelled radiographs for the examination, after which it moves if the bundle has passed. Empty: an alias
            that points to another bundle stays.
        device: For the examination.

    Raises:
        RegistryError: The bundle has not passed.
    """
    from ensemble.examination import examine
    from ensemble.stress_report import table_text
    from ensemble.verdict import claim, promote, recorded

    before = registry.aliases().get(alias)
    if gate and before != version:
        champion = registry.resolve(before) if before else None
        bundle = registry.resolve(version)
        source = _opened(gate, SourceOptions(), bundle, champion, "build --gate")
        report = examine(bundle, champion, source, device=device, progress=counting)
        recorded(registry, report)
        print(table_text(report))
        print(_moved(alias, *promote(registry, version, alias)))
    elif (now := claim(registry, version, alias)) != version:
        print(
            f"{alias} stays {now}, until the new one has passed the gate beside it:\n"
            f"  python -m ensemble stress {registry.path}@{version} SOURCE"
            + (f" --against {alias}" if alias != CHAMPION else "")
            + f"\n  python -m ensemble promote {registry.path} {version}"
            + (f" --alias {alias}" if alias != CHAMPION else "")
        )
    elif before != version:
        print(_moved(alias, version, before))


def _opened(
    source: str, options: SourceOptions, bundle: "Bundle | None", champion: "Bundle | None", command: str
) -> "Source":
    """The labelled cases; of a locked test, whoever is asked is noted before, and whoever stands beside."""
    from ensemble.locked import open_source

    both = [bundle, *([champion] if bundle and champion and champion.version != bundle.version else [])]
    purpose = f"to judge {bundle.version if bundle else 'a service'} under stress"
    cases, says = open_source(source, options, both, command=command, purpose=purpose)
    for said in says:
        print(f"ensemble: {said}", file=sys.stderr)
    return cases


def _moved(alias: str, now: str, before: str | None) -> str:
    return f"{alias} is now {now}" + (f", was {before}" if before and before != now else "")
