"""Experiments of the scTab paper: unseen donors, and shares of the training data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvi_sctab.benchmark._classify import classify
from scvi_sctab.benchmark._run import Measure, run
from scvi_sctab.benchmark._splits import (
    Positions,
    column,
    labels_of,
    learnable,
    subsample_cells,
    subsample_donors,
)
from scvi_sctab.benchmark._tasks import Method, Split, Task

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


def paper_protocol(
    adata: AnnData,
    methods: Iterable[Method],
    labels_key: str,
    donor_key: str,
    *,
    fractions: Sequence[float] = (0.15, 0.3, 0.5, 0.7, 1.0),
    by: Sequence[str] = ("donors", "cells"),
    test_size: float = 0.15,
    split_seed: int = 1,
    seeds: Sequence[int] = (0, 1, 2),
    path: str | Path | None = None,
    measure: Measure = classify,
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
    methods, seeds, path, measure, progress
        As in :func:`run`.
    labels_key, donor_key
        Columns with labels and with donors.
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
    As :func:`run`, with further columns ``by`` and ``fraction``. The run on all training data is
    done once and has rows for each of ``by``.

    Raises
    ------
    ValueError
        If a share is not in (0, 1], ``by`` is something else, or no donor is left to train on;
        or as in :func:`run`.

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
    train = np.flatnonzero(~test)
    truth = labels_of(adata, labels_key)
    labels = learnable(truth[train])
    tasks: dict[str, Task] = {}
    parts: list[tuple[str, str, float]] = []
    for what, fraction in product(by, sorted(set(fractions))):
        # All donors are all cells.
        name = "all" if fraction == 1 else f"{100 * fraction:g}% of the {what}"
        parts.append((name, what, fraction))
        if what == "donors":
            kept = subsample_donors(donors[train].tolist(), fraction, split_seed)
        else:
            kept = subsample_cells(len(train), fraction, split_seed)
        load = partial(_split, adata, truth, train[kept], test)
        keys: dict[str, Any] = {"labels_key": labels_key, "donor_key": donor_key}
        tasks[name] = Task(name, load, "protocol", labels=labels, **keys)
    table = run(tasks.values(), methods, seeds, path, measure=measure, progress=progress)
    rows = [
        table[table["task"] == name].assign(by=what, fraction=fraction)
        for name, what, fraction in parts
    ]
    return pd.concat(rows, ignore_index=True)


def _split(
    adata: AnnData,
    truth: NDArray[np.str_],
    reference: Positions,
    query: NDArray[np.bool_],
    seed: int,
) -> Split:
    return Split(adata[reference], adata[query], truth[query])
