"""Choice of the genes of a panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from scvi_sctab._config import SELECTION
from scvi_sctab._constants import MIN_GENES
from scvi_sctab._messages import list_names, list_near_names
from scvi_sctab.base import draw_cells
from scvi_sctab.data import normalize_block, read_counts, strip_versions
from scvi_sctab.explanation import choose_genes, label_moments
from scvi_sctab.model._panels import check_can_be_refitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.model._sctab import SCTAB

OTHER_LABELS = "other labels"
"""Name of all labels but those to tell apart."""


def choose_panel(
    model: SCTAB,
    n_genes: int,
    labels: Sequence[str] | None,
    candidates: Sequence[str] | None,
    exclude: Sequence[str] | None,
) -> pd.DataFrame:
    """Choose genes by which a model tells labels apart.

    Parameters
    ----------
    model, n_genes, labels, candidates, exclude
        As of :meth:`scvi_sctab.SCTAB.select_panel`.
    """
    check_can_be_refitted(model)
    among = _candidates(model.gene_names, candidates, exclude)
    if not MIN_GENES <= n_genes <= len(among):
        raise ValueError(
            f"{n_genes=} is not between {MIN_GENES} and the number of candidates, {len(among):,}."
        )
    names, groups = _groups(model, labels)
    cells = model._trained_cells()
    codes = model._codes_of(cells)
    cells, codes = cells.take(codes >= 0), groups[codes[codes >= 0]]
    drawn = [
        draw_cells(np.flatnonzero(codes == code), SELECTION.max_cells_per_label)
        for code in np.unique(codes)
    ]
    chosen = np.sort(np.concatenate(drawn))
    alignment = model._read(cells).alignment
    blocks = read_counts(cells.adata, cells.layer, cells.positions[chosen], alignment)
    x = sparse.vstack(list(map(normalize_block, blocks)), format="csr")[:, among]
    present, codes = np.unique(codes[chosen], return_inverse=True)
    names = names[present]
    moments = label_moments(x, codes, len(names))
    found = choose_genes(*moments, n_genes, SELECTION.discount)
    return pd.DataFrame(
        {
            "gene": model.gene_names[among[found.genes]],
            "rank": np.arange(1, n_genes + 1),
            "label": names[found.pairs[:, 0]],
            "against": names[found.pairs[:, 1]],
        }
    )


def _candidates(
    gene_names: NDArray[np.str_],
    candidates: Sequence[str] | None,
    exclude: Sequence[str] | None,
) -> NDArray[np.intp]:
    """Find the genes to choose among, as positions among those of the model."""
    allowed = np.ones(len(gene_names), dtype=bool)
    for argument, names in (("candidates", candidates), ("exclude", exclude)):
        if names is None:
            continue
        if isinstance(names, str):
            raise TypeError(f"{argument}= takes a list of names of genes: `[{names!r}]`.")
        given = strip_versions(list(names))
        is_among = np.isin(gene_names, given.to_numpy(dtype=str))
        if not is_among.any() and len(given):
            raise ValueError(f"{argument}: the model knows none of {list_names(given)}.")
        allowed &= is_among if argument == "candidates" else ~is_among
    return np.flatnonzero(allowed)


def _groups(
    model: SCTAB, labels: Sequence[str] | None
) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return the names of the labels to tell apart, and the one of each label of the model."""
    if labels is None:
        return model.labels, np.arange(len(model.labels))
    wanted = [labels] if isinstance(labels, str) else list(dict.fromkeys(map(str, labels)))
    unknown = [label for label in wanted if label not in set(model.labels)]
    if unknown:
        raise ValueError(
            f"The model does not know the labels {list_near_names(unknown, model.labels)}."
        )
    if not wanted:
        raise ValueError(
            "labels=[] tells nothing apart: name labels of the model, or leave it out."
        )
    names = np.array([*wanted, *[OTHER_LABELS] * (len(wanted) < len(model.labels))])
    codes = pd.Index(wanted).get_indexer(model.labels)
    return names, np.where(codes < 0, len(wanted), codes)
