"""Part `coarse`: training with coarse labels, half or nearly all of the T cells as "T cell"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scvi
from _tasks import LABEL_KEY, Task, iter_tasks
from sklearn.metrics import f1_score

from scvi_sctab import SCTAB

COARSE = "T cell"
T_CELLS = {
    "kang donors": {"CD4 T cells": "CL:0000624", "CD8 T cells": "CL:0000625"},
    "bundled donors": {
        "CD4 Memory T": "CL:0000897",
        "CD4 Naive T": "CL:0000895",
        "CD8 T": "CL:0000625",
    },
}
FEW = 0.05
"""Share of the T cells that keep their label in the second comparison."""


def compare(folder: Path, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """Train with all labels, with coarse ones, and without the cells that have these."""
    for task in iter_tasks(folder, list(T_CELLS)):
        terms = T_CELLS[task.family]
        for seed in seeds:
            for share in (0.5, 1 - FEW):
                draws = np.random.default_rng(seed).random(task.reference.n_obs)
                coarse = np.isin(task.train_labels, list(terms)) & (draws < share)
                for arm in ("all labels", "coarse labels", "without these cells"):
                    scores = _scores(task, terms, coarse, arm, seed)
                    keys = {"arm": arm, "coarse_share": share, "task": task.name, "seed": seed}
                    print(keys, scores, flush=True)
                    yield keys | {"family": task.family} | scores


def _scores(
    task: Task, terms: dict[str, str], coarse: np.ndarray, arm: str, seed: int
) -> dict[str, float]:
    reference = task.labelled_reference()
    if arm == "coarse labels":
        labels = reference.obs[LABEL_KEY].astype(str).mask(coarse, COARSE)
        reference.obs[LABEL_KEY] = labels.astype("category")
    elif arm == "without these cells":
        reference = reference[~coarse].copy()
    scvi.settings.seed = seed
    SCTAB.setup_anndata(reference, labels_key=LABEL_KEY, donor_key=task.donor_key)
    model = SCTAB(reference)
    if arm == "coarse labels":
        model.set_ontology(terms, coarse_labels=[COARSE])
    model.train(enable_progress_bar=False)
    truth, predicted = task.truth[task.scored], model.predict(task.unlabelled_query())
    options = {"average": "macro", "zero_division": 0}
    return {
        "f1_t_cells": f1_score(truth, predicted[task.scored], labels=list(terms), **options),
        "macro_f1": f1_score(truth, predicted[task.scored], labels=np.unique(truth), **options),
    }
