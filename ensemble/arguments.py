"""The words of a command line by which several commands are told which bundle is meant."""

import argparse

BUNDLE = "folder of a bundle, a registry, or REGISTRY@VERSION_OR_ALIAS, local or an fsspec URI"
"""What `ensemble.registry.named_bundle` takes."""


def count(text: str) -> int:
    """A number of things, 1 or more: the ``type`` of an option."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"it must be 1 or more, got {text}")
    return number


def seed(text: str) -> int:
    """What every draw begins from, 0 or more: the ``type`` of an option."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"it must be 0 or more, got {text}")
    return number


def add_bundle(parser: argparse.ArgumentParser, name: str = "bundle", *, text: str = BUNDLE) -> None:
    """Add a bundle as the next positional argument, and ``--version``, what a registry without an ``@`` means.

    Args:
        parser: Of the command.
        name: Of the argument.
        text: Its help, where the command takes more than bundles.
    """
    parser.add_argument(name, help=text)
    parser.add_argument("--version", default="champion", help="version or alias in the registry (default champion)")
