"""SCTAB in the benchmarks: training on a task, and what a model states beside labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scvi

from scvi_sctab import SCTAB

if TYPE_CHECKING:
    from anndata import AnnData

    from scvi_sctab.benchmark import Task

ERROR_RATE = 0.1
FALSE_ALARM_RATE = 0.05


def train(
    task: Task, reference: AnnData, seed: int, *, batches: bool = False, **training: Any
) -> SCTAB:
    """Train SCTAB with its defaults on a reference; with `batches`, conditioned on the task's."""
    keys = [task.labels_key, task.donor_key, *[task.batch_key] * (task.batch_key is not None)]
    reference = reference.copy()
    reference.obs = reference.obs[[*dict.fromkeys(keys)]]
    several = reference.obs[task.donor_key].nunique() > 1
    scvi.settings.seed = seed
    SCTAB.setup_anndata(
        reference,
        labels_key=task.labels_key,
        batch_key=task.batch_key if batches else None,
        donor_key=task.donor_key if several or batches else None,
    )
    model = SCTAB(reference)
    model.train(enable_progress_bar=False, **training)
    return model


def set_scores(
    model: Any, query: AnnData | None, truth: np.ndarray, known: np.ndarray, **options: Any
) -> dict[str, float]:
    """Coverage of the known cells by prediction sets, and labels per set; nothing if uncalibrated."""
    if isinstance(model, SCTAB) and model.calibration is None:
        return {}  # small references hold out too few cells
    sets = model.get_prediction_sets(query, error_rate=ERROR_RATE, **options)
    places = np.arange(len(truth)), sets.columns.get_indexer(truth)
    return {
        "coverage": float(sets.to_numpy()[places][known].mean()),
        "set_size": float(sets.to_numpy().sum(axis=1).mean()),
    }


def with_molecules(cells: AnnData) -> AnnData:
    """The cells that have a molecule."""
    return cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0].copy()
