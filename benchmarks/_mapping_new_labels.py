"""Part `new-labels`: a query with a type that the reference lacks, half of its cells labelled.

The bundled set of Kang et al.: two donors are the query, the other six, without one type, the
reference. A batch is a donor in a condition. Half of the query's cells of every type, drawn by
the seed, keep their label.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from _mapping_tasks import BATCH_KEY, _with_batch
from _tasks import BUNDLED, DONOR_KEY, LABEL_KEY, read

QUERY_DONORS = ("1015", "1256")
LEFT_OUT = ("NK", "CD16 Mono", "B", "DC")
UNKNOWN = "unknown"
COLUMNS = {
    "recall_new": "recall of the new type",
    "precision_new": "precision of the new type",
    "old_before": "accuracy of old types, before",
    "old_after": "accuracy of old types, after",
    "reference_kept": "reference cells whose label is kept",
    "reference_before": "accuracy on the reference, before",
    "reference_after": "accuracy on the reference, after",
}
"""Columns of the table, and what they are."""


def load_cells(folder: Path) -> anndata.AnnData:
    """The bundled cells with label, donor and batch."""
    adata = _with_batch(read(folder, BUNDLED, "cell_type"), DONOR_KEY, "condition")
    obs = adata.obs[[LABEL_KEY, DONOR_KEY, BATCH_KEY]].astype(str)
    return anndata.AnnData(adata.X.copy(), obs=obs, var=pd.DataFrame(index=adata.var_names))


def label_half(truth: np.ndarray, seed: int) -> np.ndarray:
    """Mask of half of the cells of every type, ``(n_cells,)``; of odd numbers the larger half."""
    rng = np.random.default_rng(seed)
    labelled = np.zeros(len(truth), dtype=bool)
    for label in np.unique(truth):
        cells = rng.permutation(np.flatnonzero(truth == label))
        labelled[cells[: (len(cells) + 1) // 2]] = True
    return labelled


def logits(model: Any, adata: anndata.AnnData) -> torch.Tensor:
    """Logits ``(n_cells, n_labels)``."""
    parts = model._logits_of(model._select(adata))
    return torch.cat([torch.from_numpy(part.logits) for part in parts])


def same_logits(reference: Any, model: Any, query: anndata.AnnData) -> bool:
    """Whether old logits are bit by bit those of the reference, on both sides."""
    n_old = len(reference.labels)
    return all(
        torch.equal(logits(model, cells)[:, :n_old], logits(reference, cells))
        for cells in (reference.adata, query)
    )


def run_type(adata: anndata.AnnData, left_out: str, seed: int) -> dict[str, object]:
    """One row: a left-out type and a seed."""
    import scvi

    from scvi_sctab import SCTAB

    scvi.settings.seed = seed
    is_query = adata.obs[DONOR_KEY].isin(QUERY_DONORS).to_numpy()
    is_new = adata.obs[LABEL_KEY].eq(left_out).to_numpy()
    reference, query = adata[~is_query & ~is_new].copy(), adata[is_query].copy()
    SCTAB.setup_anndata(reference, labels_key=LABEL_KEY, batch_key=BATCH_KEY, donor_key=DONOR_KEY)
    source = SCTAB(reference)
    source.train(enable_progress_bar=False)
    truth = query.obs[LABEL_KEY].to_numpy().astype(str)
    labelled = label_half(truth, seed)
    query.obs[LABEL_KEY] = np.where(labelled, truth, UNKNOWN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SCTAB.load_query_data(query, source, learn_labels=True)
    equal = same_logits(source, model, query)
    before, own = model.predict().astype(str), source.predict().astype(str)
    start = time.perf_counter()
    model.train(enable_progress_bar=False)
    seconds = time.perf_counter() - start
    after, kept = model.predict().astype(str), model.predict(reference).astype(str)
    new, old = ~labelled & (truth == left_out), ~labelled & (truth != left_out)
    called = ~labelled & (after == left_out)
    reference_truth = reference.obs[LABEL_KEY].to_numpy().astype(str)
    return {
        "method": "SCTAB surgery",
        "task": left_out,
        "family": left_out,
        "seed": seed,
        "logits_equal": equal,
        "n_labelled_new": int((labelled & (truth == left_out)).sum()),
        "n_new": int(new.sum()),
        "recall_new": float((after[new] == left_out).mean()),
        "precision_new": float((truth[called] == left_out).mean()) if called.any() else np.nan,
        "old_before": float((before[old] == truth[old]).mean()),
        "old_after": float((after[old] == truth[old]).mean()),
        "reference_kept": float((kept == own).mean()),
        "reference_before": float((own == reference_truth).mean()),
        "reference_after": float((kept == reference_truth).mean()),
        "seconds": seconds,
    }


def run_new_labels(folder: Path, seeds: list[int]) -> Iterator[list[dict[str, object]]]:
    """Rows of one left-out type after the other.

    Parameters
    ----------
    folder
        Folder with the ``.h5ad`` files.
    seeds
        Of training, and of which half of the query has labels.
    """
    adata = load_cells(folder)
    for left_out in LEFT_OUT:
        rows = []
        for seed in seeds:
            row = run_type(adata, left_out, seed)
            rows.append(row)
            text = "  ".join(f"{key} {row[key]:.3f}" for key in COLUMNS)
            print(f"  {left_out:<10} seed {seed}  equal {row['logits_equal']}  {text}", flush=True)
        yield rows
