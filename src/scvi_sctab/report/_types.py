"""Table of the predicted types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scvi_sctab.annotation import STATUS
from scvi_sctab.plotting import label_colors
from scvi_sctab.report._report import TypeRow

if TYPE_CHECKING:
    import pandas as pd

    from scvi_sctab.ontology import LabelHierarchy

N_GENES = 5
"""Number of genes of a type in the table."""


def summarize_types(
    frame: pd.DataFrame,
    labels: Sequence[str],
    hierarchy: LabelHierarchy | None,
    markers: pd.DataFrame | None,
) -> tuple[TypeRow, ...]:
    """Summarise the cells of each label, the most frequent one first.

    Parameters
    ----------
    frame
        A row per cell: ``label``, ``probability``, and ``status`` if the model is calibrated.
    labels
        Labels of the model; their colours are the same whichever of them have cells.
    hierarchy
        Labels in the Cell Ontology.
    markers
        A row per ``group`` and ``gene``, best first.
    """
    colors = color_labels(labels, frame["label"])
    terms = own_terms(hierarchy)
    grouped = frame.groupby("label", observed=True)
    means, sizes = grouped["probability"].mean(), grouped.size()
    statuses = None
    if "status" in frame:
        statuses = frame.groupby(["label", "status"], observed=False).size().unstack()
    rows = []
    for label, n_cells in sizes.sort_values(ascending=False, kind="stable").items():
        counts = {
            f"n_{status}": None if statuses is None else int(statuses.loc[label, status])
            for status in STATUS
        }
        term_id, term = terms.get(str(label), ("", ""))
        rows.append(
            TypeRow(
                label=str(label),
                color=colors[str(label)],
                term_id=term_id,
                term=term,
                n_cells=int(n_cells),
                share=float(n_cells / len(frame)),
                mean_probability=float(means[label]),
                genes=best_genes(markers, str(label), N_GENES),
                **counts,
            )
        )
    return tuple(rows)


def color_labels(labels: Sequence[str], found: pd.Series) -> dict[str, str]:
    """Assign colours, the most distinct ones to the most frequent labels.

    Parameters
    ----------
    labels
        Labels of the model.
    found
        Label of each cell.
    """
    counts = found.value_counts()
    order = sorted({*map(str, labels)}, key=lambda name: (-int(counts.get(name, 0)), name))
    palette = list(label_colors(range(len(order))).values())
    return dict(zip(order, palette, strict=True))


def own_terms(hierarchy: LabelHierarchy | None) -> dict[str, tuple[str, str]]:
    """Return id and name of the term of each label that has one.

    Parameters
    ----------
    hierarchy
        Labels in the Cell Ontology.
    """
    if hierarchy is None:
        return {}
    return {
        str(label): (str(hierarchy.terms[row]), str(hierarchy.names[row]))
        for label, row in zip(hierarchy.labels, hierarchy.own, strict=True)
        if row >= 0
    }


def best_genes(markers: pd.DataFrame | None, group: str, n_genes: int) -> tuple[str, ...]:
    """Return the first genes of a group; of those with a positive score, if any have one.

    Parameters
    ----------
    markers
        A row per ``group`` and ``gene``, best first.
    group
        Name of the group.
    n_genes
        Number of genes.
    """
    if markers is None:
        return ()
    own = markers[markers["group"].astype(str) == group]
    positive = own[own["score"] > 0]
    chosen = positive if len(positive) else own
    return tuple(str(gene) for gene in chosen["gene"].iloc[:n_genes])
