"""Error of a file that cannot be used, with the cause and the cure apart."""

from __future__ import annotations


class RefusedInputError(ValueError):
    """A file that cannot be used.

    Parameters
    ----------
    cause
        A sentence on what is wrong, and where.
    cure
        A sentence on what to do.
    """

    def __init__(self, cause: str, cure: str):
        super().__init__(f"{cause} {cure}")
        self.cause, self.cure = cause, cure
