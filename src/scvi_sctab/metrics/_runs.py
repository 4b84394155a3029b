"""Table of a benchmark, written to disk after each run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

COLUMNS = ["method", "split", "seed", "metric", "value", "error"]


class Runs:
    """Rows by run, written after each run, so that an interrupted benchmark loses nothing.

    Parameters
    ----------
    path
        CSV with the rows of earlier runs, if it exists; nothing is written if not given.

    Raises
    ------
    ValueError
        If the file is no table of a benchmark.
    FileNotFoundError
        If its folder does not exist.
    """

    def __init__(self, path: str | Path | None):
        self.path = None if path is None else Path(path)
        if self.path is not None and not self.path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {self.path.parent}; make it first.")
        self.table = self._saved()

    def rows(self, method: str, split: str, seed: int) -> list[dict[str, Any]]:
        """Return the rows of a run that has succeeded; none if there was no such run."""
        columns = self.table[["method", "split", "seed"]]
        rows = self.table[(columns == [method, split, seed]).all(axis=1)]
        return [] if (rows["error"] != "").any() else rows.to_dict("records")

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add the rows of a run; they replace those of an earlier one that failed."""
        if self.path is None:
            return
        new, saved = pd.DataFrame(rows, columns=COLUMNS), self._saved()
        table = pd.concat([saved, new]) if len(saved) else new
        self.table = table.drop_duplicates(["method", "split", "seed", "metric"], keep="last")
        # Written beside, then renamed: if the disk is full, the earlier table is not lost.
        beside = self.path.with_name(f"{self.path.name}.part")
        self.table.to_csv(beside, index=False)
        beside.replace(self.path)

    def _saved(self) -> pd.DataFrame:
        """Read the rows on disk again: another process may have written some."""
        if self.path is None or not self.path.exists():
            return pd.DataFrame(columns=COLUMNS)
        return _read(self.path)


def _read(path: Path) -> pd.DataFrame:
    try:
        # As text, so that a method may be called "None" and numbers are not changed.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table of a benchmark: {error}") from error
    if list(table.columns) != COLUMNS:
        raise ValueError(
            f"{path} has the columns {list(table.columns)}, not {COLUMNS}: it is no table of a "
            "benchmark. Give another `path`."
        )
    return table.assign(
        seed=table["seed"].astype(int), value=table["value"].replace("", "nan").astype(float)
    )
