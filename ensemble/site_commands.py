"""The command ``calibrate``: a bundle fitted to a site's own labelled radiographs, where that helps."""

import argparse
from typing import Any

from ensemble.arguments import BUNDLE, add_bundle
from preprocessing.progress import Progress
from preprocessing.sources import add_options, options_of


def add(commands: Any) -> None:
    """Add it to a parser's commands."""
    parser = commands.add_parser("calibrate", help="fit a bundle to a site's labelled radiographs, where that helps")
    add_bundle(parser, text=f"{BUNDLE}; its registry gets the new version")
    parser.add_argument("source", help="labelled radiographs of the site; the bundle's training cases are left out")
    parser.add_argument("--site", required=True, metavar="NAME", help="of the site, a word")
    parser.add_argument("--alias", help="name that will point to the new version (default: none)")
    add_options(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> None:
    from ensemble.predictor import Predictor
    from ensemble.printed import rejected_lines
    from ensemble.registry import RegistryError, check_alias, named_bundle, registry_around
    from ensemble.site import calibrate
    from ensemble.stress_commands import settle

    if options.alias:
        check_alias(options.alias)
    bundle = named_bundle(options.bundle, options.version)
    registry = registry_around(bundle)
    if registry is None:
        raise RegistryError(
            f"{bundle.location} lies in no registry, so its calibrated version could be published to none. Name "
            "REGISTRY@VERSION, or a bundle in its registry's folder bundles."
        )
    predictor = Predictor(bundle)
    bars: list[Progress] = []

    def show(done: int, total: int) -> None:
        if not bars:
            bars.append(Progress("radiographs predicted", total))
        bars[0](done)

    found = calibrate(predictor, options.source, options.site, options_of(options), progress=show)
    published = registry.publish(found.write)
    lines = _lines(found.evidence, found.calibrations["full"])
    if len(found.problems):
        lines += rejected_lines(found.evidence["rejected_reasons"], found.problems.to_dict("records"))
    print("\n".join(lines))
    print(f"published {published.version}, {bundle.version} calibrated to {options.site}")
    if options.alias:
        settle(registry, published.version, options.alias)


def _lines(evidence: dict[str, Any], calibration: dict[str, Any]) -> list[str]:
    low, high = evidence["gain_ci95"]
    lines = [
        f"nested validation on {evidence['n']} cases: mean absolute error {evidence['mae_before_months']:.2f} to "
        f"{evidence['mae_after_months']:.2f} months, gain {evidence['gain_months']:.2f} "
        f"(95 % interval {low:.2f} to {high:.2f})"
    ]
    for sex, line in calibration["site"]["correction"].items():
        lines.append(f"  {sex:<7} {line['offset_months']:+.2f} months at 10 years, slope {line['slope']:+.3f}")
    after = calibration["intervals"]["out_of_fold"]["levels"]
    for one, other in zip(evidence["coverage_before"], after, strict=True):
        lines.append(
            f"  {one['level']} % interval: held {100 * one['share']:.1f} % at {one['width_months']:.1f} months, "
            f"now {100 * other['share']:.1f} % at {other['width_months']:.1f} months"
        )
    return lines
