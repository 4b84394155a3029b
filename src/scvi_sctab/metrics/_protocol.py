"""The experiments of the scTab paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab.metrics._benchmark import Factory, Score, benchmark
from scvi_sctab.metrics._splits import (
    Split,
    column,
    labels_of,
    learnable,
    subsample_cells,
    subsample_donors,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


def paper_protocol(
    adata: AnnData,
    predictors: Mapping[str, Factory],
    labels_key: str,
    donor_key: str,
    *,
    fractions: Sequence[float] = (0.15, 0.3, 0.5, 0.7, 1.0),
    by: Sequence[str] = ("donors", "cells"),
    test_size: float = 0.15,
    split_seed: int = 1,
    seeds: Sequence[int] = (0, 1, 2),
    scores: Mapping[str, Score] | None = None,
    path: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """How methods do on unseen donors, and how that scales, as scTab was tried.

    A share of the donors is held out; methods learn from nested parts of the others, of donors
    and of cells :cite:p:`Fischer24`. All parts are scored on the same cells: a label that a part
    lacks is one that it got wrong.

    Parameters
    ----------
    adata
        Raw counts in ``X``, ``(n_cells, n_genes)``.
    predictors, labels_key, donor_key, seeds, scores, path, progress
        As in :func:`benchmark`.
    fractions
        Shares of what is not held out to learn from, in (0, 1].
    by
        Of what the shares are: ``"donors"``, ``"cells"`` or both.
    test_size
        Share of donors to hold out.
    split_seed
        Seed of which donors are held out, and which parts are learnt from.

    Returns
    -------
    As :func:`benchmark`, with further columns ``by`` and ``fraction``. All that is not held out is
    learnt from once, and stands in the table for each of ``by``.

    Raises
    ------
    ValueError
        If a share is not in (0, 1], ``by`` is something else, or no donor is left to learn from;
        or as in :func:`benchmark`.

    Notes
    -----
    NOTE[DIFF] The original holds out another 15% of donors to choose the best epoch; here methods
    hold out of what they learn from what they need.
    """
    unknown = sorted(set(by) - {"donors", "cells"})
    if unknown:
        raise ValueError(f"{by=} names {unknown}; it can name 'donors' and 'cells'.")
    donors = column(adata, donor_key, "donor_key")
    test = np.zeros(adata.n_obs, dtype=bool)
    test[subsample_donors(donors.tolist(), test_size, split_seed)] = True
    if test.all():
        raise ValueError(f"{test_size=} leaves no donor to learn from.")
    train, query = np.flatnonzero(~test), adata[test]
    labels = learnable(labels_of(adata[train], labels_key))
    splits: dict[str, Split] = {}
    parts: list[tuple[str, str, float]] = []
    for what, fraction in product(by, sorted(set(fractions))):
        # All donors are all cells.
        name = "all" if fraction == 1 else f"{100 * fraction:g}% of the {what}"
        parts.append((name, what, fraction))
        if what == "donors":
            kept = subsample_donors(donors[train].tolist(), fraction, split_seed)
        else:
            kept = subsample_cells(len(train), fraction, split_seed)
        splits[name] = Split(name, adata[train[kept]], query, labels)
    table = benchmark(
        predictors,
        splits.values(),
        labels_key,
        donor_key,
        seeds=seeds,
        scores=scores,
        path=path,
        progress=progress,
    )
    rows = [
        table[table["split"] == name].assign(by=what, fraction=fraction)
        for name, what, fraction in parts
    ]
    return pd.concat(rows, ignore_index=True)
