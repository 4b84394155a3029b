"""Part `novelty`: detection of cells of a type that the reference lacks, each type in turn."""

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
from sklearn.decomposition import PCA
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
DEFAULT = "SCTAB, distance of logits (the default)"
N_COMPONENTS = 30
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
    reference, genes = model.adata, align_genes(model.gene_names, query.var)
    labels = reference.obs[model.registry["setup_args"]["labels_key"]].to_numpy(str)
    known, labels = model.train_indices, labels[model.train_indices]

    features = [part.features for part in model._logits_of(model._select(query))]
    logits = np.concatenate(features)
    of_logits = distance_to_centers(logits, model.calibration.centers)
    latent = model.get_latent_representation
    of_latent = distance_to_centers(latent(query), fit_centers(latent(indices=known), labels))

    learnt = normalized_expression(reference, indices=known)
    expression = normalized_expression(query, alignment=genes)
    components = PCA(N_COMPONENTS, svd_solver="arpack", random_state=0).fit(learnt)
    along = components.transform(expression)
    of_expression = distance_to_centers(along, fit_centers(components.transform(learnt), labels))
    off = np.square(expression.toarray() - components.inverse_transform(along)).sum(axis=1)

    soft = model.predict(query, soft=True).to_numpy()
    return {
        "SCTAB, 1 - probability": -soft.max(axis=1),
        "SCTAB, entropy": normalized_entropy(torch.from_numpy(soft)).numpy(),
        "SCTAB, energy": -np.logaddexp.reduce(logits, axis=1),
        "SCTAB, distance in the latent space": of_latent,
        "principal components, distance": of_expression,
        "principal components, reconstruction error": off,
        "SCTAB, distance of logits, and of principal components": of_logits * of_expression,
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
