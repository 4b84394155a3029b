"""Tree of the terms of the Cell Ontology that cells have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scvi_sctab.report._report import TermNode

if TYPE_CHECKING:
    import pandas as pd

    from scvi_sctab.ontology import LabelHierarchy


def build_tree(hierarchy: LabelHierarchy | None, frame: pd.DataFrame) -> TermNode | None:
    """Nest the terms of predicted labels, and those that were stated, by the labels they hold.

    Parameters
    ----------
    hierarchy
        Labels in the Cell Ontology, if they were matched.
    frame
        A row per cell: ``label`` and ``term_id``.

    Returns
    -------
    *cell*, with the others below it: the parent of a term is the most specific of the others that
    holds all of its labels.
    """
    if hierarchy is None or "term_id" not in frame:
        return None
    counts = frame["label"].value_counts()
    of_label = np.array([int(counts.get(str(label), 0)) for label in hierarchy.labels])
    stated = frame["term_id"].astype(str).value_counts()
    n_cells = hierarchy.members.astype(np.int64) @ of_label
    own = {int(row) for row, n in zip(hierarchy.own, of_label, strict=True) if n and row >= 0}
    said = {i for i, term in enumerate(hierarchy.terms) if stated.get(str(term), 0)}
    kept = sorted({0} | own | said)  # a term comes after all its ancestors
    parents: dict[int, int] = {}
    for place, row in enumerate(kept[1:], start=1):
        above = [i for i in kept[:place] if _holds(hierarchy, i, row)]
        parents[row] = above[-1]

    def node(row: int) -> TermNode:
        below = [i for i in kept[1:] if parents[i] == row]
        below.sort(key=lambda i: -int(n_cells[i]))
        term = str(hierarchy.terms[row])
        return TermNode(
            term_id=term,
            term=str(hierarchy.names[row]),
            n_cells=int(n_cells[row]),
            n_stated=int(stated.get(term, 0)),
            children=tuple(node(i) for i in below),
        )

    return node(0)


def _holds(hierarchy: LabelHierarchy, above: int, below: int) -> bool:
    """Return whether a term holds all labels of another one, and is not more specific."""
    one, other = hierarchy.members[above], hierarchy.members[below]
    return bool((one | ~other).all()) and (
        bool((one != other).any()) or hierarchy.n_ancestors[above] < hierarchy.n_ancestors[below]
    )
