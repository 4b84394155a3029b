"""Messages: names in them, and warnings that point at the line of the user."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches

from scvi_sctab._constants import N_NAMES_SHOWN
from scvi_sctab._logging import is_first_process

_INSIDE = {"contextlib", "functools", "lightning", "scvi", "scvi_sctab", "torch"}


def list_names(names: Iterable[object]) -> str:
    """Quote the first few names and count the others."""
    listed = [repr(str(name)) for name in names]
    return _list(listed)


def list_near_names(names: Iterable[object], known: Iterable[object]) -> str:
    """Quote the first few names, each with the known name that is nearest, if one is near."""
    by_folded = {_folded(name): str(name) for name in known}
    listed = []
    for name in names:
        near = get_close_matches(_folded(name), by_folded, n=1)
        listed.append(repr(str(name)) + (f" (near {by_folded[near[0]]!r})" if near else ""))
    return _list(listed)


def _folded(name: object) -> str:
    return " ".join(str(name).casefold().replace("_", " ").replace("-", " ").split())


def _list(quoted: list[str]) -> str:
    more = len(quoted) - N_NAMES_SHOWN
    return ", ".join(quoted[:N_NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def warn(message: str) -> None:
    """Warn at the line that called the package, however many of its functions are in between.

    Parameters
    ----------
    message
        Text of the warning.
    """
    if not is_first_process():
        return  # the first one says it
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_inside(module: str) -> bool:
    """Whether a module is one of the package, or of the libraries by which it calls itself."""
    return module.split(".")[0] in _INSIDE
