"""Part `accuracy`: ensembles of SCTAB and other methods on unseen donors and other studies."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import scvi
from sklearn.metrics import f1_score, roc_auc_score

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.metrics import expected_calibration_error

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from _tasks import Task
    from anndata import AnnData

    from scvi_sctab._types import CellTypePredictor

FALSE_ALARM_RATE = 0.05
ERROR_RATE = 0.1
N_MEMBERS = 5
NAME = "SCTABEnsemble"
ENSEMBLE = f"{NAME} ({N_MEMBERS})"
# The network of the paper, without the linear path beside it.
TABNET = "TabNet alone"
# Of encoders beside linear paths; tried without training anew, as each path has its own loss. The
# best epoch is the one at the default weight.
WEIGHTS = (0.25, 0.5, 2.0, 4.0)


def train_ensemble(
    task: Task, seed: int, n_members: int = N_MEMBERS, **overrides: Any
) -> SCTABEnsemble:
    """Train on the reference of a task."""
    scvi.settings.seed = seed
    reference = task.labelled_reference()
    SCTABEnsemble.setup_anndata(reference, labels_key=task.label_key, donor_key=task.donor_key)
    ensemble = SCTABEnsemble(reference, n_members=n_members, **overrides)
    ensemble.train(enable_progress_bar=False)
    return ensemble


def score(task: Task, probabilities: pd.DataFrame) -> dict[str, float]:
    """Macro F1, accuracy, expected calibration error, AUROC of right against wrong."""
    rows = probabilities.to_numpy()[task.scored]
    truth = task.truth[task.scored]
    labels = probabilities.columns.to_numpy(dtype=str)[rows.argmax(axis=1)]
    stated, correct = rows.max(axis=1), labels == truth
    classes = sorted(set(truth))
    return {
        "macro_f1": f1_score(truth, labels, labels=classes, average="macro", zero_division=0),
        "accuracy": correct.mean(),
        "ece": expected_calibration_error(np.clip(stated, 0, 1), correct),
        "auroc_of_errors": roc_auc_score(correct, stated),
    }


def run_ensemble(
    task: Task, seed: int, name: str = NAME, **overrides: Any
) -> list[dict[str, Any]]:
    """Rows of one, two, ... members, and what is stated about novelty, sets and shift."""
    start = time.perf_counter()
    ensemble = train_ensemble(task, seed, **overrides)
    seconds = time.perf_counter() - start
    query = task.unlabelled_query()
    keys = {"task": task.name, "family": task.family, "seed": seed}
    rows = []
    for n_members in range(1, N_MEMBERS + 1):
        part = SCTABEnsemble.from_members(ensemble.members[:n_members])
        row = _score_part(task, part, query) | _statements(task, part, query)
        share = seconds * n_members / N_MEMBERS
        method = f"{name} ({n_members})"
        rows.append({"method": method, "n_members": n_members, **keys, **row, "seconds": share})
    if name != NAME:
        return rows
    rows.append({**run_single(task, seed), **keys})
    for weight in WEIGHTS:
        for member in ensemble.members:
            member.module.encoder_weight = weight
            member.calibrate()
        for n_members in (1, N_MEMBERS):
            part = SCTABEnsemble.from_members(ensemble.members[:n_members])
            method = f"{name} ({n_members}), encoder weight {weight:g}"
            rows.append({"method": method, **keys, **_score_part(task, part, query)})
    return rows


def _score_part(task: Task, part: SCTABEnsemble, query: AnnData) -> dict[str, float]:
    """Scores on the query, and the likelihood of what the members held out."""
    part.calibrate()
    held_out = part.predict(indices=part.validation_indices, soft=True)
    truth = part.adata.obs[task.label_key].iloc[part.validation_indices].astype(str)
    known = truth.isin(held_out.columns).to_numpy()
    stated = held_out.to_numpy()[known, held_out.columns.get_indexer(truth[known])]
    return {
        **score(task, part.predict(query, soft=True)),
        "held_out_nll": -np.log(np.maximum(stated, 1e-12)).mean(),
    }


def run_single(task: Task, seed: int) -> dict[str, Any]:
    """Row of one network."""
    scvi.settings.seed = seed
    reference, query = task.labelled_reference(), task.unlabelled_query()
    SCTAB.setup_anndata(reference, labels_key=task.label_key, donor_key=task.donor_key)
    model = SCTAB(reference)
    start = time.perf_counter()
    model.train(enable_progress_bar=False)
    seconds = time.perf_counter() - start
    row = score(task, model.predict(query, soft=True)) | _statements(task, model, query)
    return {"method": "SCTAB", "n_members": 1, **row, "seconds": seconds}


def _statements(task: Task, model: Any, query: Any) -> dict[str, float]:
    """Measured rates beside those that are stated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sets = model.get_prediction_sets(query, error_rate=ERROR_RATE)
        novel = model.get_novelty(query) <= FALSE_ALARM_RATE
    known = task.scored
    position = sets.columns.get_indexer(task.truth[known])
    hit = sets.to_numpy()[known][np.arange(known.sum()), position]
    shift = model.get_shift(query)
    return {
        "coverage": hit.mean(),
        "set_size": sets.to_numpy().sum(axis=1).mean(),
        "false_alarms": novel[known].mean(),
        "shifted": float(shift["shifted"].any()),
        "largest_shift": shift["distance"].max(),
    }


def run_peer(
    task: Task, seed: int, build: Callable[[int], CellTypePredictor]
) -> list[dict[str, Any]]:
    """Row of one peer."""
    start = time.perf_counter()
    peer = build(seed).fit(task.labelled_reference(), task.label_key, task.donor_key)
    probabilities = peer.predict_proba(task.unlabelled_query())
    seconds = time.perf_counter() - start
    keys = {"task": task.name, "family": task.family, "seed": seed}
    return [{"method": peer.name, **keys, **score(task, probabilities), "seconds": seconds}]
