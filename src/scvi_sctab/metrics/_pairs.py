"""Alignment of two tables of the same cells."""

from __future__ import annotations

from typing import TypeVar

import pandas as pd

First = TypeVar("First")
Second = TypeVar("Second")


def same_cells(first: First, second: Second) -> tuple[First, Second]:
    """Bring the second of two tables into the order of the first, by the names of cells.

    Parameters
    ----------
    first, second
        Series or frames with a row per cell; other types, and tables with numbered rows, are taken
        to be in the same order.

    Raises
    ------
    ValueError
        If both have names of cells, and these differ.

    Examples
    --------
    >>> truth, predicted = pd.Series({"c1": "B", "c2": "T"}), pd.Series({"c2": "T", "c1": "B"})
    >>> same_cells(truth, predicted)[1].tolist()
    ['B', 'T']
    """
    tables = pd.Series | pd.DataFrame
    if not (isinstance(first, tables) and isinstance(second, tables)):
        return first, second
    one, other = first.index, second.index
    if one.equals(other) or isinstance(one, pd.RangeIndex) or isinstance(other, pd.RangeIndex):
        return first, second
    if len(one) == len(other) and one.is_unique and one.isin(other).all():
        return first, second.loc[one]
    raise ValueError(
        f"The two tables are of different cells: {len(one):,} rows, the first of {one[0]!r}, and "
        f"{len(other):,} rows, the first of {other[0]!r}. Take those that both have, or pass "
        "`.to_numpy()` of both if they are in one order."
    )
