"""Parts of a file whose shape nobody has checked: the schema says what is wrong, the rules go on with the rest."""

from typing import Any


def mapping(value: object) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: object) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []
