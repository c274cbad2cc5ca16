"""``python -m serve images``: a key for kept radiographs, one of them as it was sent, the end of those out of time."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preprocessing.storage import AnyPath
from serve.database import Database, note
from serve.images import ImageError, KeptImages, new_key


def images_folder(registry: AnyPath) -> AnyPath:
    """Where a service on this registry keeps images."""
    return registry / "ledger" / "images"


def export_image(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    """Write the image of one prediction to a file of its owner alone; the audit trail says who took it.

    Raises:
        ImageError: There is none, it does not open, or the file exists.
    """
    data = KeptImages(images_folder(registry), days=1).read(options.id)
    with database.write() as connection:
        note(connection, actor, "image.export", {"prediction": options.id})
    try:
        descriptor = os.open(options.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ImageError(f"{options.out} exists. Name a new file.") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    print(f"{len(data):,} bytes in {Path(options.out)}")


def expire_images(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    """Remove the images that are older than so many days, as a running service does by itself."""
    num_days = KeptImages(images_folder(registry), options.days).expire()
    with database.write() as connection:
        note(connection, actor, "image.expire", {"days": options.days, "folders": num_days})
    print(f"The images of {num_days} days are gone.")


def print_key(database: Database, registry: AnyPath, actor: str, options: argparse.Namespace) -> None:
    """Print a new key; it is kept nowhere."""
    print(new_key())


def add_image_commands(areas: Any, command: Callable[..., Any]) -> None:
    """Add the commands to the parser of `serve.admin`."""
    images = areas.add_parser("images", help="radiographs that are kept, where the service was told to")
    commands = images.add_subparsers(required=True, metavar="COMMAND")
    command(commands, "key", print_key, "print a new key, for $CARPAL_IMAGE_KEY of the service")
    export = command(commands, "export", export_image, "one prediction's image, as it was sent; recorded")
    export.add_argument("id", help="of the prediction")
    export.add_argument("out", help="new file")
    expire = command(commands, "expire", expire_images, "remove old images of a service that runs no longer")
    expire.add_argument("--days", type=float, required=True, help="that are still kept")
