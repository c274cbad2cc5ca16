"""What a file may ask of this machine, and the one error that refuses it."""

from preprocessing.storage import AnyPath

MAX_BYTES = 32 * 1024 * 1024
"""Largest file that is read. A 2,000 x 2,600 radiograph at 16 bit without compression has 10 MB."""
MAX_PIXELS = 50_000_000
"""Largest picture that is decoded; checked in the header, before memory is taken for it."""
MAX_RATIO = 400
"""Largest ratio of decoded to stored bytes. Noise keeps a radiograph below 20 without loss and below 100 as JPEG."""
FREE_BYTES = 16 * 1024 * 1024
"""A picture that decodes to this or less may be compressed at any ratio: a blank one is, and it harms nobody."""
MIN_SIDE = 32
"""Smallest height or width, in pixels, in which a hand could still be read."""


class RadiographError(ValueError):
    """The bytes are no radiograph that can be read.

    Attributes:
        code: Stable word: ``empty``, ``too_large``, ``unsupported_format``, ``unreadable``, ``too_many_pixels``,
            ``too_compressed``, ``too_small``, ``multi_frame``, ``colour_photograph``, ``encapsulated_document``
            or ``blank``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # crosses process borders with its code
        return type(self), (self.code, str(self))


def unreadable(kind: str, what: str) -> RadiographError:
    """The refusal of damaged bytes; `what` must quote nothing that the file says."""
    return RadiographError("unreadable", f"The {kind} is damaged or cut short ({what}). Export it again.")


def read_limited(path: AnyPath) -> bytes:
    """The file, or as much of it as shows `check_file` that it is too large: a folder may hold what memory does not."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def check_file(data: bytes) -> None:
    """Refuse no bytes and too many."""
    if not data:
        raise RadiographError("empty", "An image is needed, got no bytes. Send the file's content.")
    if len(data) > MAX_BYTES:
        raise RadiographError(
            "too_large",
            f"A file may have {MAX_BYTES:,} bytes, this one has more. Store it compressed or smaller.",
        )


def check_size(width: int, height: int) -> None:
    """Refuse a picture by the size its header gives."""
    if width * height > MAX_PIXELS:
        raise RadiographError(
            "too_many_pixels",
            f"A picture may have {MAX_PIXELS:,} pixels, the header says {width:,} x {height:,}. Reduce it first.",
        )
    if min(width, height) < MIN_SIDE:
        raise RadiographError(
            "too_small",
            f"Each side must have {MIN_SIDE} pixels or more, got {width} x {height}. Send the original.",
        )


def check_ratio(decoded_bytes: int, stored_bytes: int) -> None:
    """Refuse a picture whose header promises far more than its data can hold."""
    if decoded_bytes > FREE_BYTES and decoded_bytes > MAX_RATIO * stored_bytes:
        raise RadiographError(
            "too_compressed",
            f"Beyond {FREE_BYTES:,} bytes a picture may unpack to {MAX_RATIO} times its stored size, this one asks "
            f"for {decoded_bytes:,} bytes out of {stored_bytes:,}. Export it again.",
        )
