"""A table as the result of a command, on standard output or in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from scvi_sctab.cli._outputs import check_free, results

if TYPE_CHECKING:
    import pandas as pd

    from scvi_sctab.cli._console import Console


def check_table(path: Path | None, overwrite: bool) -> None:
    """Refuse to overwrite before any work is done.

    Parameters
    ----------
    path
        File of the table, if it is not written to standard output.
    overwrite
        Whether it may exist.
    """
    if path is not None:
        check_free(path.parent, [path.name], overwrite)


def write_table(
    console: Console, table: pd.DataFrame, path: Path | None, overwrite: bool, index: bool
) -> None:
    """Write a CSV table.

    Parameters
    ----------
    console
        Console of the command.
    table
        The table.
    path, overwrite
        As of :func:`check_table`.
    index
        Whether the names of rows are the first column.
    """
    if path is not None:
        with results(path.parent, overwrite) as aside:
            table.to_csv(aside / path.name, index=index)
        console.note(f"{path}: {len(table):,} rows.")
        console.event("done", files=[str(path)])
    elif console.as_json:
        rows = table.reset_index() if index else table
        console.event("done", files=[], rows=json.loads(rows.to_json(orient="records")))
    else:
        console.result(table.to_csv(index=index).rstrip("\n"))
