"""What a user names as ``module:function`` on the command line."""

import importlib
from typing import Any


def imported(option: str, name: str) -> Any:
    """The function, its module imported.

    Args:
        option: That it was given with.
        name: ``module:function``.

    Raises:
        ValueError: There is no such module, or no such function in it.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{option} {name!r} cannot be imported: {error}. Run from the folder that holds it.") from None
