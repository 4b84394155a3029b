"""Part `objectives`: unsupervised objectives fitted to a query, all on one trained reference.

Every objective is a function of `OnReference` that returns logits ``(n_query, n_labels)``. All but
`batch_norm` and `prior_correction` fit a linear path beside the reference's logits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _mapping_sctab import map_query
from _peers import Method, Prediction
from scipy.special import log_softmax, softmax

if TYPE_CHECKING:
    from _mapping_tasks import MappingTask

    from scvi_sctab.train import QueryCells

NOTHING = "mean row (nothing)"
SHIPPED = "self-training of the gain, guarded (shipped)"
UNGUARDED = "self-training of the gain, no guard"
NORM_CELLS = 1500
"""Cells whose statistics batch norm takes at a time."""
ROUNDING = 0.01
"""Share of labels that may differ from those of the model itself, which is in single precision."""
SHOT_RATE = 0.3
"""Learning rates of `entropy_and_balance` over the shipped ones; not tuned here."""


@dataclass(frozen=True)
class OnReference:
    """A query as its reference sees it.

    Parameters
    ----------
    model
        SCTAB of the query.
    cells
        Its cells: genes, logits of the linear path and of the whole model.
    batches
        Batch of each cell, ``(n_query,)``.
    weight
        Weights of the linear path, ``(n_labels, n_genes)``.
    resembling
        Cells that resemble a type of the reference, ``(n_query,)``.
    is_refused
        Whether the shipped rule does not adapt to this query.
    """

    model: Any
    cells: QueryCells
    batches: np.ndarray
    weight: np.ndarray
    resembling: np.ndarray
    is_refused: bool


def see_query(task: MappingTask, model: Any, reference: Any) -> OnReference:
    """Read the query through its model.

    Parameters
    ----------
    task
        The task.
    model
        SCTAB of the query, not trained on it: its linear path is that of the reference.
    reference
        SCTAB of the reference.
    """
    from scvi_sctab.model._query_guard import refuse_query, resembling_cells
    from scvi_sctab.model._query_training import read_query_cells

    positions = np.arange(model.adata.n_obs)
    cells = read_query_cells(model, positions)
    resembling = resembling_cells(model, positions, cells, is_calibrated=True)
    probabilities = model.annotation.probabilities(cells.logits)
    refusal = refuse_query(cells, resembling, probabilities, reference.reference_statistics)
    return OnReference(
        model,
        cells,
        task.query.obs[task.batch_key].to_numpy().astype(str),
        model.module.linear_skip.weight.detach().cpu().numpy(),
        resembling,
        refusal is not None,
    )


def nothing(query: OnReference) -> np.ndarray:
    """The logits of the reference."""
    return query.cells.logits


def batch_norm(query: OnReference) -> np.ndarray:
    """All batch-norm statistics of TabNet are those of the query."""
    module = deepcopy(query.model.module)
    for part in module.encoder.modules():
        if hasattr(part, "virtual_batch_size"):
            part.virtual_batch_size = query.cells.x.shape[0] + 1
    module.encoder.train()
    n_cells = query.cells.x.shape[0]
    order = np.random.default_rng(0).permutation(n_cells)
    deep = np.zeros_like(query.cells.logits)
    with torch.no_grad():
        for part in np.array_split(order, max(1, n_cells // NORM_CELLS)):
            x = torch.from_numpy(query.cells.x[part].toarray().astype(np.float32))
            deep[part] = module.final_mapping(module.encoder(x)[0]).numpy()
    return query.cells.linear + module.encoder_weight * deep


def entropy_and_balance(query: OnReference) -> np.ndarray:
    """Sure of each cell, diverse over all: SHOT's objective, with the shipped gain and offset."""
    from scvi_sctab._config import SELF_TRAINING as config

    x, linear, logits, _ = query.cells
    mean = np.asarray(x.mean(axis=0)).ravel()
    curvature = np.asarray(x.multiply(x).mean(axis=0)).ravel() @ query.weight.var(axis=0)
    rates = SHOT_RATE * config.gain_lr / max(curvature, 1e-12), SHOT_RATE * config.offset_lr
    gain, offset = np.zeros_like(query.weight, dtype=float), np.zeros(linear.shape[1])
    speeds = np.zeros_like(gain), np.zeros_like(offset)
    for _ in range(config.n_steps):
        delta = query.weight * gain
        residual = _slope(linear + x @ delta.T + (offset - delta @ mean))
        total = residual.sum(axis=0)
        slopes = (np.asarray(x.T @ residual).T - np.outer(total, mean)) * query.weight, total
        speeds = tuple(
            config.momentum * speed - rate * slope
            for speed, rate, slope in zip(speeds, rates, slopes, strict=True)
        )
        gain, offset = gain + speeds[0], offset + speeds[1]
    delta = query.weight * gain
    return logits + x @ delta.T + (offset - delta @ mean)


def _slope(logits: np.ndarray) -> np.ndarray:
    """Gradient of mean entropy less the entropy of the mean, ``(n_cells, n_labels)``."""
    p, log_p = softmax(logits, axis=1), log_softmax(logits, axis=1)
    entropy = -(p * log_p).sum(axis=1, keepdims=True)
    log_mean = np.log(p.mean(axis=0) + 1e-8)
    balance = log_mean - (p * log_mean).sum(axis=1, keepdims=True)
    return p * (balance - log_p - entropy) / len(p)


def prior_correction(query: OnReference, *, prior: np.ndarray, n_steps: int = 50) -> np.ndarray:
    """Shares of the labels by EM (Saerens et al. 2002), in each batch of the query."""
    before, logits = softmax(query.cells.logits, axis=1), query.cells.logits.copy()
    for batch in np.unique(query.batches):
        cells = query.batches == batch
        shares = prior
        for _ in range(n_steps):
            joint = before[cells] * (shares / prior)
            shares = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0) + 1e-6
        logits[cells] += np.log(shares / prior)
    return logits


def self_training(
    query: OnReference, *, of: str = "gain", guard: bool = False, **changes: Any
) -> np.ndarray:
    """`scvi_sctab.train.fit_query_path`, of the gain, of a full delta or of an offset alone.

    A full delta is a gain on weights of 1; that their signs alternate from label to label does
    not matter to it, and makes its step one over the variance of the cells.
    """
    from scvi_sctab._config import GUARD, SELF_TRAINING
    from scvi_sctab.train import fit_query_path

    if guard and query.is_refused:
        return query.cells.logits
    weight = {"gain": query.weight, "offset": None}.get(of)
    if of == "full":
        x = query.cells.x
        squares, mean = x.multiply(x).mean(axis=0).sum(), np.asarray(x.mean(axis=0)).ravel()
        signs = 1.0 - 2.0 * (np.arange(len(query.weight)) % 2)
        weight = np.repeat(signs[:, None], query.weight.shape[1], 1)
        changes = {"gain_lr": float(squares / (squares - mean @ mean))}
    fit = fit_query_path(
        query.cells,
        weight,
        replace(SELF_TRAINING, **changes),
        eligible=query.resembling if guard else None,
        min_cells=GUARD.min_cells if guard else 1,
    ).times(GUARD.strength if guard else 1.0)
    return query.cells.logits + query.cells.x @ fit.weight.T + fit.bias


def label_prior(task: MappingTask, labels: np.ndarray, power: float) -> np.ndarray:
    """Shares of the labels as the training of the reference weighs them."""
    counts = np.array([(task.train_labels == label).sum() for label in labels], dtype=float)
    weighted = counts ** (1 - power)
    return weighted / weighted.sum()


def objectives(task: MappingTask, seed: int, *, cache: Path) -> list[Prediction]:
    """Labels of the query by every objective.

    Parameters
    ----------
    task, seed
        The task and the seed.
    cache
        Folder of trained references.
    """
    from scvi_sctab import SCTAB
    from scvi_sctab._config import PRESETS

    run = map_query(task, seed, "genes", cache=cache)
    untrained = SCTAB.load_query_data(task.unlabelled_query(), run.reference.model)
    query, power = (
        see_query(task, untrained, run.reference.model),
        PRESETS["small"].train.class_weight_power,
    )
    prior = label_prior(task, run.model.labels, power)
    fits: dict[str, Callable[[OnReference], np.ndarray]] = {
        NOTHING: nothing,
        "batch norm re-estimated": batch_norm,
        "entropy + balance (SHOT)": entropy_and_balance,
        "EM prior correction": partial(prior_correction, prior=prior),
        "self-training of an offset": partial(self_training, of="offset"),
        "self-training of a full delta": partial(self_training, of="full"),
        SHIPPED: partial(self_training, guard=True),
        UNGUARDED: self_training,
        "no guard, 4 rounds": partial(self_training, rounds=4),
    }
    rows = []
    for name, fit in fits.items():
        start = time.perf_counter()
        labels = run.model.labels[fit(query).argmax(axis=1)].astype(str)
        rows.append(Prediction(name, labels, time.perf_counter() - start))
        if name == SHIPPED and (labels != run.labels).mean() > ROUNDING:
            raise RuntimeError(f"{task.name}: {SHIPPED} is not what `SCTAB.train` gives.")
    return rows


def build_objectives(cache: Path) -> list[Method]:
    """The one method that gives the labels of every objective.

    Parameters
    ----------
    cache
        Folder of trained references.
    """
    return [Method("objectives", partial(objectives, cache=cache), True)]
