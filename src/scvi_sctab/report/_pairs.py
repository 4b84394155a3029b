"""Labels that the model cannot tell apart: those that share prediction sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from scvi_sctab.annotation import EMPTY_SET, SET_SEPARATOR
from scvi_sctab.report._report import LabelPair

if TYPE_CHECKING:
    import pandas as pd

_MAX_PAIRS = 12


def confusable_pairs(frame: pd.DataFrame, labels: Sequence[str]) -> tuple[LabelPair, ...]:
    """Count the pairs of labels that are in one prediction set, the most frequent ones first.

    Parameters
    ----------
    frame
        A row per cell; ``prediction_set`` if the model is calibrated.
    labels
        Labels of the model.

    Returns
    -------
    At most 12 pairs.
    """
    if "prediction_set" not in frame:
        return ()
    pairs: Counter[tuple[str, str]] = Counter()
    single: Counter[str] = Counter()
    known = {*map(str, labels)}
    for name, n_cells in frame["prediction_set"].value_counts().items():
        members = split_set(str(name), known)
        for label in members:
            single[label] += int(n_cells)
        for one, other in combinations(sorted(members), 2):
            pairs[one, other] += int(n_cells)
    rows = [
        LabelPair((one, other), n, n / (single[one] + single[other] - n))
        for (one, other), n in pairs.items()
        if n
    ]
    rows.sort(key=lambda row: (-row.n_cells, row.labels))
    return tuple(rows[:_MAX_PAIRS])


def split_set(name: str, labels: set[str]) -> list[str]:
    """Return the labels of a prediction set by its name; labels may hold the separator.

    Parameters
    ----------
    name
        Name of the set, ``"B | NK"``.
    labels
        Labels of the model.

    Examples
    --------
    >>> split_set("B | a | b", {"B", "a | b", "b"})
    ['B', 'a | b']
    """
    if name == EMPTY_SET:
        return []
    parts = name.split(SET_SEPARATOR)
    found, start = [], 0
    while start < len(parts):
        for stop in range(len(parts), start, -1):
            label = SET_SEPARATOR.join(parts[start:stop])
            if label in labels or stop == start + 1:
                found.append(label)
                start = stop
                break
    return found
