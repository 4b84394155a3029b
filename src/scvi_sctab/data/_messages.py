"""Names in messages."""

from __future__ import annotations

from collections.abc import Iterable

from scvi_sctab._constants import N_NAMES_SHOWN


def list_names(names: Iterable[object]) -> str:
    """Quote the first few names and count the others."""
    listed = [repr(str(name)) for name in names]
    more = len(listed) - N_NAMES_SHOWN
    return ", ".join(listed[:N_NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
