"""Checks of frames before drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def require(table: pd.DataFrame, columns: tuple[str, ...], source: str) -> None:
    """Refuse a table that lacks columns or rows; the error names the function that makes one.

    Raises
    ------
    ValueError
        If a column is missing, or the table is empty.
    """
    if lacking := [column for column in columns if column not in table]:
        raise ValueError(
            f"The table has no column {', '.join(map(repr, lacking))}; it has "
            f"{list(map(str, table.columns))}. Draw a table of {source}."
        )
    if table.empty:
        raise ValueError(
            f"There is nothing to draw: the frame is empty. Draw a table of {source}."
        )
