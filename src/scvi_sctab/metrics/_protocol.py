"""Experiments of the scTab paper: unseen donors, and shares of the training data."""

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
    """Score methods on unseen donors, by the share of the data that they are trained on.

    As for scTab :cite:p:`Fischer24`, a share of the donors is held out, and methods are trained on
    nested parts of the other donors and of their cells. All parts are scored on the same cells, so
    that cells of a label that a part lacks count as wrong.

    Parameters
    ----------
    adata
        Raw counts in ``X``, ``(n_cells, n_genes)``.
    predictors, labels_key, donor_key, seeds, scores, path, progress
        As in :func:`benchmark`.
    fractions
        Shares of the training data, in (0, 1].
    by
        Unit of the shares: ``"donors"``, ``"cells"`` or both.
    test_size
        Share of donors to hold out.
    split_seed
        Seed of the held-out donors and of the training parts.

    Returns
    -------
    As :func:`benchmark`, with further columns ``by`` and ``fraction``. The run on all training
    data is done once and has rows for each of ``by``.

    Raises
    ------
    ValueError
        If a share is not in (0, 1], ``by`` is something else, or no donor is left to train on;
        or as in :func:`benchmark`.

    Notes
    -----
    NOTE[DIFF] The original holds out another 15% of donors to choose the best epoch; here each
    method holds out a part of its training data if it needs one.
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
