"""Rows of a benchmark on disk, written after each run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

KEYS = ("method", "task", "seed")
_TEXT = {"method", "task", "family", "error", "versions", "machine"}
# More than any table shows; rows that are there are never rewritten.
_DIGITS = ".8g"


class Runs:
    """A CSV with a row per run, so that an interrupted benchmark loses nothing.

    Parameters
    ----------
    path
        File with the rows of earlier runs, if it exists; rows are kept in memory if not given.

    Raises
    ------
    ValueError
        If the file is no table of a benchmark.
    FileNotFoundError
        If its folder does not exist.

    Examples
    --------
    >>> runs = Runs()
    >>> runs.add({"task": "donors", "method": "MLP", "seed": 0}, {"macro_f1": 0.8})
    >>> runs.find({"task": "donors", "method": "MLP", "seed": 1})
    >>> runs.table["macro_f1"].tolist()
    [0.8]
    """

    def __init__(self, path: str | Path | None = None):
        self.path = None if path is None else Path(path)
        if self.path is not None and not self.path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {self.path.parent}; make it first.")
        self._text = pd.DataFrame(columns=[*KEYS], dtype=str)
        self._read()

    @property
    def table(self) -> pd.DataFrame:
        """All rows; missing numbers are NaN, ``error`` is empty where a run succeeded."""
        self._read()
        typed = self._text.apply(_typed)
        return typed if "error" in typed else typed.assign(error="")

    def find(self, keys: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the row of a run that has succeeded; ``None`` if there was no such run."""
        found = self.table[self._is(keys)]
        if found.empty or found["error"].iloc[-1] != "":
            return None
        return {str(name): value for name, value in found.iloc[-1].items()}

    def add(self, keys: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Add the row of a run. It replaces one with the same keys, as of a run that failed."""
        self._read()
        row = {name: _written(value) for name, value in {**keys, **values}.items()}
        kept = self._text[~self._is(keys)]
        new = pd.DataFrame([row], dtype=str)
        self._text = pd.concat([kept, new], ignore_index=True).fillna("")
        if self.path is None:
            return
        # Written beside, then renamed: if the disk is full, the earlier table is not lost.
        beside = self.path.with_name(f"{self.path.name}.part")
        self._text.to_csv(beside, index=False)
        beside.replace(self.path)

    def _is(self, keys: Mapping[str, Any]) -> pd.Series:
        """Mark rows with these keys; a file may write 0.05 as 0.050000."""
        same = pd.Series(True, self._text.index)
        for name, value in keys.items():
            if name not in self._text:
                # A key that no row has is empty in all of them.
                same &= _written(value) == ""
                continue
            text = self._text[name]
            equal = text == _written(value)
            if isinstance(value, float):
                numbers = pd.to_numeric(text, errors="coerce")
                equal |= np.isclose(numbers, value, rtol=0, atol=1e-9)
            same &= equal
        return same

    def _read(self) -> None:
        """Read the rows on disk again: another process may have written some."""
        if self.path is not None and self.path.exists():
            self._text = _read(self.path)


def _read(path: Path) -> pd.DataFrame:
    try:
        # As text, so that a method may be called "None" and numbers are not changed.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table of a benchmark: {error}") from error
    if missing := [name for name in KEYS if name not in table]:
        raise ValueError(
            f"{path} has the columns {list(table.columns)}, and none named "
            f"{', '.join(missing)}: it is no table of a benchmark. Give another `path`."
        )
    return table


def _typed(text: pd.Series) -> pd.Series:
    """Return numbers or truth values of a column of text that holds nothing else."""
    if text.name in _TEXT:
        return text
    if text.isin(["True", "False", ""]).all() and text.isin(["True", "False"]).any():
        return text.map({"True": True, "False": False})
    try:
        return pd.to_numeric(text.replace("", np.nan))
    except ValueError:
        return text


def _written(value: Any) -> str:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    return format(value, _DIGITS) if isinstance(value, float | np.floating) else str(value)
