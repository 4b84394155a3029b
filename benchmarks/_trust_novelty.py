"""Cells of a type that the reference does not hold: each type left out in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scvi
import torch
from _tasks import Task, iter_tasks
from _trust_ensemble import FALSE_ALARM_RATE
from sklearn.metrics import roc_auc_score

from scvi_sctab import SCTAB
from scvi_sctab.data import align_genes, normalized_expression
from scvi_sctab.metrics import distance_to_centers, fit_centers, normalized_entropy

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from scvi_sctab._types import CellTypePredictor

TASKS = ("kang donors 1256+107", "bundled donors")
"""One pair of donors each; two thirds of the types are no easy ones."""
DEFAULT = "SCTAB, distance of logits and expression (the default)"
_MIN_CELLS = 5


def without_each_type(folder: Path) -> Iterator[tuple[str, Task]]:
    """Yield tasks whose reference lacks one type that the query holds."""
    for task in iter_tasks(folder, ["kang donors", "bundled donors"]):
        if task.name not in TASKS:
            continue
        names, counts = np.unique(task.truth, return_counts=True)
        for name in names[counts >= _MIN_CELLS]:
            kept = task.reference[task.train_labels != name].copy()
            kept.obs[task.label_key] = kept.obs[task.label_key].cat.remove_unused_categories()
            yield str(name), replace(task, reference=kept)


def run_sctab(task: Task, new: str, seed: int) -> list[dict[str, Any]]:
    """Scores of a model, and what it calls novel."""
    scvi.settings.seed = seed
    reference, query = task.labelled_reference(), task.unlabelled_query()
    SCTAB.setup_anndata(reference, labels_key=task.label_key, donor_key=task.donor_key)
    model = SCTAB(reference)
    model.train(enable_progress_bar=False)
    p = model.get_novelty(query)
    is_new = task.truth == new
    rows = [
        _row(task, new, seed, name, v) for name, v in {DEFAULT: -p, **others(model, query)}.items()
    ]
    found = p <= FALSE_ALARM_RATE
    rows[0] |= {"false_alarms": found[~is_new].mean(), "found": found[is_new].mean()}
    return rows


def others(model: SCTAB, query: AnnData) -> dict[str, np.ndarray]:
    """Scores that are not the default, larger for cells that are stranger."""
    known, reference = model.calibration.known, model.adata
    evidence = [e.features for e in model._evidence(query, np.arange(query.n_obs), None)]
    logits = np.concatenate(evidence)
    soft = model.predict(query, soft=True).to_numpy()
    genes = align_genes(model.gene_names, query.var)
    expression = normalized_expression(query, alignment=genes)
    along = expression @ known.axes
    mean = np.asarray(normalized_expression(reference).mean(axis=0)).ravel()
    off_mean = expression.multiply(expression).sum(axis=1).A1 - 2 * expression @ mean + mean @ mean
    labels = reference.obs[model.registry["setup_args"]["labels_key"]].to_numpy(str)
    latent = model.get_latent_representation(indices=model.train_indices)
    centers = fit_centers(latent, labels[model.train_indices])
    return {
        "SCTAB, distance of logits": distance_to_centers(logits, known.logits),
        "SCTAB, distance of expression": distance_to_centers(along, known.expression),
        "SCTAB, distance in the latent space": distance_to_centers(
            model.get_latent_representation(query), centers
        ),
        "SCTAB, 1 - probability": -soft.max(axis=1),
        "SCTAB, entropy": normalized_entropy(torch.from_numpy(soft)).numpy(),
        "SCTAB, energy": -np.logaddexp.reduce(logits, axis=1),
        "principal components, reconstruction error": off_mean
        - ((along - mean @ known.axes) ** 2).sum(axis=1),
    }


def run_peer(
    task: Task, new: str, seed: int, build: Callable[[int], CellTypePredictor]
) -> list[dict[str, Any]]:
    """One minus the largest probability of a peer."""
    peer = build(seed).fit(task.labelled_reference(), task.label_key, task.donor_key)
    soft = peer.predict_proba(task.unlabelled_query()).to_numpy()
    return [_row(task, new, seed, f"{peer.name}, 1 - probability", -soft.max(axis=1))]


def _row(task: Task, new: str, seed: int, method: str, score: np.ndarray) -> dict[str, Any]:
    auroc = roc_auc_score(task.truth == new, score)
    return {"method": method, "task": task.name, "type": new, "seed": seed, "auroc": auroc}
