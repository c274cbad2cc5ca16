"""Radiographs that are kept, where the service is told to: each encrypted, under its prediction's id, for some days.

Nothing is kept by default. AES-256 in Galois/Counter Mode (NIST SP 800-38D), with a key that lies in the environment of
the service alone, a new random nonce a file, and the prediction's id as associated data: a file under another name, or
with a changed byte, does not open. The folder of a day goes as a whole when its time is over.

    images/2026-11-21/<prediction id>.aes    format, 12 bytes of nonce, ciphertext with its tag
"""

import base64
import binascii
import os
import re
import secrets
import shutil
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from preprocessing.storage import AnyPath, is_local, remote, write_atomic
from serve.entries import ID_PATTERN

KEY_VARIABLE = "CARPAL_IMAGE_KEY"
MAX_DAYS = 3650
_FORMAT = b"carpal-image-1\n"
_NONCE_BYTES = 12
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class ImageError(ValueError):
    """Images cannot be kept as told, or one cannot be had."""


def new_key() -> str:
    """A key: 32 random bytes in base64, for the environment."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


class KeptImages:
    """The kept radiographs of one service.

    Args:
        folder: On a disk or at any fsspec URI that every gateway reaches.
        days: For how long at least; as a day's images go together, for up to a day longer.
        key: As `new_key` makes it; the one in ``$CARPAL_IMAGE_KEY`` where none is given.

    Raises:
        ImageError: There is no key, or it is none; or the days are out of range.
    """

    def __init__(self, folder: AnyPath, days: float, key: str = "") -> None:
        if not 0 < days <= MAX_DAYS:
            raise ImageError(f"Images are kept for more than 0 and at most {MAX_DAYS} days, got {days:g}.")
        self._folder, self.days = folder, days
        self._cipher = AESGCM(_key_bytes(key or os.environ.get(KEY_VARIABLE, "")))

    def keep(self, prediction_id: str, data: bytes) -> None:
        """Encrypt and write one image.

        Raises:
            OSError: It cannot be written.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, data, prediction_id.encode())
        write_atomic(self._place(prediction_id), _FORMAT + nonce + sealed)

    def remove(self, prediction_id: str) -> None:
        """Remove one image, if it is there.

        Raises:
            OSError: It cannot be removed.
        """
        self._place(prediction_id).unlink(missing_ok=True)

    def read(self, prediction_id: str) -> bytes:
        """The image of a prediction, as it was sent.

        Raises:
            ImageError: It was not kept, its time is over, or it does not open.
        """
        if not ID_PATTERN.fullmatch(prediction_id):
            raise ImageError(f"A prediction's id has 32 hex digits, got {prediction_id[:40]!a}.")
        try:
            found = self._place(prediction_id).read_bytes()
        except FileNotFoundError:
            raise ImageError(f"No image of prediction {prediction_id} is kept, or none any more.") from None
        if not found.startswith(_FORMAT):
            raise ImageError(f"{self._place(prediction_id)} is no kept image of this release.")
        nonce, sealed = found[len(_FORMAT) :][:_NONCE_BYTES], found[len(_FORMAT) + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, sealed, prediction_id.encode())
        except InvalidTag:
            raise ImageError(
                f"The image of {prediction_id} does not open: it was kept under another key, or has been changed."
            ) from None

    def expire(self, now_s: float | None = None) -> int:
        """Remove the images whose time is over.

        Returns:
            How many days' folders went.
        """
        now = datetime.fromtimestamp(time.time() if now_s is None else now_s, UTC)
        kept = timedelta(days=1 + self.days)  # from the day's begin: its last image is made at its end
        old = [path for path in self._days() if _begin_of(path) + kept <= now]
        for path in old:
            if is_local(path):
                shutil.rmtree(Path(str(path)))
            else:
                remote(path).fs.rm(remote(path).path, recursive=True)
        return len(old)

    def _days(self) -> list[AnyPath]:
        if not self._folder.exists():
            return []
        return [path for path in self._folder.iterdir() if _DAY.fullmatch(path.name)]

    def _place(self, prediction_id: str) -> AnyPath:
        made = day_of(int(prediction_id[:14], 16) / 1e6)  # an id begins with its time
        return self._folder / made.isoformat() / f"{prediction_id}.aes"


def day_of(seconds: float) -> date:
    """The day of a Unix time, UTC."""
    return datetime.fromtimestamp(seconds, UTC).date()


def _begin_of(day: AnyPath) -> datetime:
    return datetime.fromisoformat(day.name).replace(tzinfo=UTC)


def _key_bytes(text: str) -> bytes:
    try:
        key = base64.urlsafe_b64decode(text)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != 32:
        raise ImageError(
            f"Images are kept encrypted, and ${KEY_VARIABLE} holds {'no key' if not text else 'something else'}. "
            "Make one: python -m serve images key"
        )
    return key
