"""Exit codes, and errors as a cause and a cure, each on a line."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(])")


class ExitCode(IntEnum):
    """Exit codes of all commands."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    REFUSED = 3
    NO_MODEL = 4
    SHIFTED = 5


class CommandError(Exception):
    """An error that a command states itself.

    Parameters
    ----------
    code
        Exit code.
    cause, cure
        Sentences on what is wrong, and on what to do.
    """

    def __init__(self, code: ExitCode, cause: str, cure: str):
        super().__init__(cause)
        self.code, self.cause, self.cure = code, cause, cure


class Explanation(NamedTuple):
    """Exit code, cause and cure of an error."""

    code: ExitCode
    cause: str
    cure: str


def explain(error: Exception) -> Explanation:
    """Explain an error to somebody who reads no tracebacks.

    Parameters
    ----------
    error
        Any error.
    """
    if isinstance(error, CommandError):
        return Explanation(error.code, _line(error.cause), _line(error.cure))
    if hasattr(error, "cause") and hasattr(error, "cure"):  # RefusedInputError, not imported here
        return Explanation(ExitCode.REFUSED, _line(error.cause), _line(error.cure))
    text = _line(str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error))
    if isinstance(error, ImportError):
        cause, _, command = text.partition(": ")
        return Explanation(ExitCode.USAGE, f"{cause}.", f"Install it: {command}")
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        cause = f"{error.strerror or text}{where}."
        return Explanation(ExitCode.FAULT, cause, "Check space and permissions there.")
    if isinstance(error, ValueError | KeyError):
        cause, cure = split(text)
        return Explanation(ExitCode.REFUSED, cause, cure)
    return Explanation(
        ExitCode.FAULT,
        f"{type(error).__name__}: {text}",
        "This is a fault of the program: report it with the output of --debug.",
    )


def split(text: str) -> tuple[str, str]:
    """Split a message into its first sentence and the rest, which says what to do.

    Parameters
    ----------
    text
        A message.

    Examples
    --------
    >>> split("`X` holds NaN. Drop the cells, or set them to 0.")
    ('`X` holds NaN.', 'Drop the cells, or set them to 0.')
    """
    parts = _SENTENCE.split(text, maxsplit=1)
    if len(parts) == 1:
        parts = [part.strip() for part in text.rsplit(": ", maxsplit=1)]
    return parts[0], parts[1] if len(parts) == 2 else "See --help for what is expected."


def _line(text: str) -> str:
    return " ".join(str(text).split())
