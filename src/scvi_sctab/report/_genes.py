"""Genes of the model that a query has, and markers that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scvi_sctab.report._report import GeneCover, MissingMarkers

if TYPE_CHECKING:
    from numpy.typing import NDArray

_N_MARKERS = 50
_N_NAMED = 8
_MAX_ROWS = 12


def cover_genes(
    names: NDArray[np.str_],
    found: NDArray[np.bool_],
    weights: NDArray[np.float64] | None,
    labels: Sequence[str],
    predicted: Sequence[str],
) -> GeneCover:
    """Count the genes that the query has, and the markers of predicted types that it lacks.

    Parameters
    ----------
    names, found
        Genes of the model, and whether the query has them, ``(n_genes,)``.
    weights
        Weight of each gene for each of ``labels``, ``(n_labels, n_genes)``. The 50 genes with the
        largest weights are the markers of a label.
    labels
        Labels of the rows of ``weights``.
    predicted
        Labels that cells have, which are looked at.
    """
    n_found, rows = int(found.sum()), []
    if weights is not None and not found.all():
        places = {str(label): i for i, label in enumerate(labels)}
        for label in predicted:
            if label not in places:
                continue
            of_label = weights[places[label]]
            top = np.argsort(-of_label, kind="stable")[:_N_MARKERS]
            top = top[of_label[top] > 0]
            missing = top[~found[top]]
            if len(missing):
                genes = tuple(str(name) for name in names[missing[:_N_NAMED]])
                share = float(of_label[missing].sum() / of_label[top].sum())
                rows.append(MissingMarkers(label, len(missing), len(top), share, genes))
    rows.sort(key=lambda row: (-row.share, row.label))
    return GeneCover(
        n_found=n_found,
        n_genes=len(names),
        share=n_found / len(names),
        is_weighted=weights is not None,
        missing=tuple(rows[:_MAX_ROWS]),
    )
