"""Labels beside clusters, or beside the labels of other annotators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from scvi_sctab.report._report import Comparison, GroupRow

_MAX_COLUMNS = 24
_MAX_GROUPS = 60
_REST = "other labels"
# Share of cells whose group is a label, from which names are compared.
_MIN_KNOWN = 0.9


def compare(
    column: str, values: pd.Series, labels: pd.Series, vocabulary: Sequence[str]
) -> Comparison:
    """Compare groups of cells with their labels.

    Parameters
    ----------
    column
        Name of the column.
    values
        Group of each cell, ``(n_cells,)``; missing ones are left out.
    labels
        Label of each cell, in the same order.
    vocabulary
        All labels of the model.

    Returns
    -------
    The 60 largest groups; labels beyond the 24 most frequent ones are counted together.
    """
    known = values.notna().to_numpy()
    groups = values.astype(str).to_numpy()[known]
    names = labels.astype(str).to_numpy()[known]
    table = pd.crosstab(pd.Series(groups, name="group"), pd.Series(names, name="label"))
    by_label = table.sum(axis=0).sort_values(ascending=False, kind="stable")
    by_group = table.sum(axis=1).sort_values(ascending=False, kind="stable")
    shown = [str(name) for name in by_label.index[:_MAX_COLUMNS]]
    counts = table[shown]
    if len(by_label) > len(shown):
        rest = table.drop(columns=shown).sum(axis=1)
        counts = counts.assign(**{_REST: rest})
    rows = []
    for group in by_group.index[:_MAX_GROUPS]:
        label = table.loc[group].idxmax()
        shared, size = int(table.loc[group, label]), int(by_group[group])
        rows.append(
            GroupRow(
                group=str(group),
                n_cells=size,
                label=str(label),
                n_shared=shared,
                share=shared / size,
                jaccard=shared / (size + int(by_label[label]) - shared),
                counts=tuple(int(n) for n in counts.loc[group]),
            )
        )
    same = None
    # Of two vocabularies, a few common names say nothing.
    if known.any() and np.isin(groups, list({*map(str, vocabulary)})).mean() >= _MIN_KNOWN:
        same = float((groups == names).mean())
    return Comparison(
        column=column,
        n_cells=int(known.sum()),
        n_groups=len(by_group),
        rand_index=float(adjusted_rand_score(groups, names)) if known.any() else 0.0,
        share_same_name=same,
        columns=tuple(str(name) for name in counts.columns),
        groups=tuple(rows),
    )
