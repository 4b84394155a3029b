"""Rows of a benchmark on disk, written after each run, so that nothing is lost by interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd


class Table:
    """A CSV to which runs add rows.

    Parameters
    ----------
    path
        File to write.
    keys
        Columns that tell rows apart; the last of equal rows counts.
    merge
        Whether the rows of earlier runs are kept. They are read anew each time, since another
        run may write to the same file.
    """

    def __init__(self, path: Path, keys: list[str], merge: bool = False):
        self.path, self.keys, self.merge = path, keys, merge

    @property
    def rows(self) -> pd.DataFrame:
        """Rows so far."""
        if self.merge and self.path.exists():
            return pd.read_csv(self.path)
        return pd.DataFrame(columns=self.keys)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add rows. Written beside, then renamed."""
        parts = [part for part in (self.rows, pd.DataFrame(rows)) if len(part)]
        if not parts:
            return
        table = pd.concat(parts, ignore_index=True).drop_duplicates(self.keys, keep="last")
        beside = self.path.with_suffix(".csv.part")
        table.to_csv(beside, index=False, float_format="%.6f")
        beside.replace(self.path)
        self.merge = True
