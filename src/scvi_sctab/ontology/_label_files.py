"""Readers of the tables that annotators write."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

# Of several columns the first: CellTypist's votes and labels, the finest level of Cell Ranger's
# `cell_types.csv`, the label of this package.
_COLUMNS = ("majority_voting", "predicted_labels", r"(.*_)?fine(_.*)?", "label", "cell_type")
_BARCODES = ("barcode", "barcodes", "cell_id", "cell")


def read_labels(path: str | os.PathLike[str], column: str | None = None) -> pd.Series:
    """Read the labels of an annotator from its table.

    Known layouts are ``cell_types.csv`` of Cell Ranger (``barcode``, and a column per level, of
    which the finest is read), ``predicted_labels.csv`` of CellTypist (cells in the first column;
    ``majority_voting`` if there is one, else ``predicted_labels``), and ``annotations.csv`` of
    this package (``barcode``, ``label``).

    Parameters
    ----------
    path
        Table, ``.csv`` or ``.tsv``, also compressed (``.gz``).
    column
        Column with labels; found by its name if not given.

    Returns
    -------
    Labels named by cell, ``(n_cells,)``, missing where the field is empty.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If it has no such column.
    ValueError
        If no column is known, the file is no table, or cells are duplicated.

    Examples
    --------
    >>> labels = {name: read_labels(path) for name, path in paths.items()}  # doctest: +SKIP
    >>> consensus(pd.DataFrame(labels))  # doctest: +SKIP
    """
    file = Path(path)
    separator = "\t" if ".tsv" in file.suffixes else ","
    try:
        table = pd.read_csv(file, sep=separator, dtype=str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a table of cells: {error}") from error
    names = [name for name in table if str(name).lower() in _BARCODES] or list(table.columns[:1])
    cells = pd.Index(table.pop(names[0]), name="barcode")
    if column is None:
        column = _find(list(table.columns), file)
    if column not in table:
        raise KeyError(f"{file} has no column {column!r}: it has {list(table)}.")
    if cells.has_duplicates:
        twice = cells[cells.duplicated()][0]
        raise ValueError(f"Cells of {file} are duplicated, such as {twice!r}.")
    return table[column].set_axis(cells)


def _find(columns: list[str], file: Path) -> str:
    for pattern in _COLUMNS:
        for column in columns:
            if re.fullmatch(pattern, column.lower()):
                return column
    raise ValueError(f"Name the column of {file} with labels, `column=`: one of {columns}.")
