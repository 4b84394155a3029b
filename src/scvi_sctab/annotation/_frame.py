"""Conversion of the columns of an annotation from codes to names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

STATISTIC = "statistic: "
"""Prefix of the columns with statistics for the test of shift."""
EMPTY_SET = "no label"
"""Name of a prediction set without a label."""
SET_SEPARATOR = " | "
"""Text between the labels of a prediction set."""


def pop_statistics(columns: dict[str, NDArray[Any]]) -> pd.DataFrame:
    """Remove the statistics for the test of shift from the columns, and return them."""
    names = [name for name in columns if name.startswith(STATISTIC)]
    return pd.DataFrame({name.removeprefix(STATISTIC): columns.pop(name) for name in names})


def name_sets(
    packed: NDArray[np.uint8], first: NDArray[np.int64], labels: NDArray[np.str_]
) -> pd.Categorical:
    """Name sets of labels, with the most probable label first; each distinct set is named once."""
    keys = np.column_stack([first, packed])
    distinct, codes = np.unique(keys, axis=0, return_inverse=True)
    names = []
    for top, *bits in distinct:
        members = np.unpackbits(np.array(bits, np.uint8), count=len(labels)).astype(bool)
        others = [labels[i] for i in np.flatnonzero(members) if i != top]
        names.append(SET_SEPARATOR.join([labels[top]] * bool(members[top]) + others) or EMPTY_SET)
    # The empty set is one category, though keys differ by the most probable label.
    named = pd.Categorical(np.array(names, dtype=object))
    return pd.Categorical.from_codes(named.codes[codes.ravel()], dtype=named.dtype)


def unassign(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Replace the label of cells that are novel or have an empty prediction set."""
    unknown = frame["novel"] | (frame["prediction_set"] == EMPTY_SET)
    closest = frame["label"]
    label = closest.cat.add_categories([name]).mask(unknown, name)
    frame = frame.assign(label=label)
    frame.insert(1, "closest_label", closest)
    return frame
