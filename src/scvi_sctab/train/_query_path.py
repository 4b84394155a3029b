"""Self-training of a query adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from scvi_sctab.train._self_training import select_confident

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab._config import SelfTrainingConfig

# Smallest numbers of cells and of labels to learn from.
_MIN_CELLS, _MIN_LABELS = 10, 2


class QueryCells(NamedTuple):
    """Cells of a query, with the logits of the reference.

    Attributes
    ----------
    x
        Input of the linear path, ``(n_cells, n_input)``; an array or a sparse matrix.
    linear
        Logits of the linear path, or of the whole model if there is none, ``(n_cells, n_labels)``.
    logits
        Logits of the whole model, ``(n_cells, n_labels)``.
    labels
        Codes, ``(n_cells,)``; ``n_labels`` for unlabelled cells.
    """

    x: Any
    linear: NDArray[np.floating]
    logits: NDArray[np.floating]
    labels: NDArray[np.int64]


class QueryFit(NamedTuple):
    """Weights of a query adapter.

    Attributes
    ----------
    weight
        ``(n_labels, n_input)``.
    bias
        ``(n_labels,)``.
    losses
        Mean cross-entropy at each step of every round, in nats.
    """

    weight: NDArray[np.floating]
    bias: NDArray[np.floating]
    losses: list[float]


def fit_query_path(
    cells: QueryCells,
    weight: NDArray[np.floating] | None,
    config: SelfTrainingConfig,
    *,
    energy_floor: float = -np.inf,
    class_weight_power: float,
) -> QueryFit:
    r"""Fit a query adapter by class-balanced self-training :cite:p:`Zou18`.

    With :math:`W` the weights of the linear path, :math:`m` the mean of the query and
    :math:`\ell` the logits of the reference, the query gets a gain :math:`S` per label and gene
    and an offset :math:`c` per label,

    .. math:: \ell'(x) = \ell(x) + (W \circ S)(x - m) + c,

    both starting at 0. In each round the cells with the highest probabilities of every predicted
    label get that label, and :math:`S` and :math:`c` are fitted to them from 0 by gradient descent
    with momentum, with few steps as regularisation.

    Parameters
    ----------
    cells
        The query.
    weight
        :math:`W`, ``(n_labels, n_input)``; only the offset is fitted if not given.
    config
        Hyperparameters, such as numbers of rounds and steps.
    energy_floor
        Lowest energy of the linear logits; cells below get no label, since they resemble nothing
        in the reference.
    class_weight_power
        A label with :math:`n_k` cells weighs ``n_k ** (1 - class_weight_power)``.

    Returns
    -------
    The adapter; zeros if there are too few cells or labels.
    """
    n_labels = cells.logits.shape[1]
    fit = QueryFit(np.zeros((n_labels, cells.x.shape[1])), np.zeros(n_labels), [])
    known = cells.labels < n_labels
    eligible = logsumexp(cells.linear, axis=1) >= energy_floor
    for _ in range(config.rounds):
        shift = cells.x @ fit.weight.T + fit.bias
        labels = select_confident(softmax(cells.logits + shift, axis=1), config.share)
        labels[~eligible] = n_labels
        labels[known] = cells.labels[known]
        chosen = np.flatnonzero(labels < n_labels)
        if len(chosen) < _MIN_CELLS or len(np.unique(labels[chosen])) < _MIN_LABELS:
            break
        counts = np.bincount(labels[chosen], minlength=n_labels)
        importance = counts[labels[chosen]] ** -class_weight_power
        fit = _descend(
            cells,
            weight,
            chosen,
            labels[chosen],
            importance / importance.sum(),
            config,
            fit.losses,
        )
    return fit


def _descend(
    cells: QueryCells,
    weight: NDArray[np.floating] | None,
    chosen: NDArray[np.intp],
    labels: NDArray[np.int64],
    importance: NDArray[np.floating],
    config: SelfTrainingConfig,
    losses: list[float],
) -> QueryFit:
    """Fit gain and offset to some cells with labels."""
    x, linear = cells.x[chosen], cells.linear[chosen]
    mean = np.asarray(cells.x.mean(axis=0)).ravel()
    if weight is None:
        # Without weights there is no gain to fit; one column of zeros stands for the input.
        x, mean, scale = np.zeros((len(chosen), 1)), np.zeros(1), np.zeros((linear.shape[1], 1))
        rate = 0.0
    else:
        scale = np.asarray(weight)
        rate = config.gain_lr / max(_curvature(cells.x, scale), 1e-12)
    gain, offset = np.zeros_like(scale, dtype=float), np.zeros(linear.shape[1])
    gain_speed, offset_speed = np.zeros_like(gain), np.zeros_like(offset)
    target = np.zeros_like(linear)
    target[np.arange(len(labels)), labels] = 1
    losses = list(losses)
    for _ in range(config.n_steps):
        delta = scale * gain
        logits = linear + x @ delta.T + (offset - delta @ mean)
        losses.append(float(-importance @ (log_softmax(logits, axis=1) * target).sum(axis=1)))
        residual = (softmax(logits, axis=1) - target) * importance[:, None]
        total = residual.sum(axis=0)
        gradient = (np.asarray(x.T @ residual).T - np.outer(total, mean)) * scale
        gain_speed = config.momentum * gain_speed - rate * gradient
        offset_speed = config.momentum * offset_speed - config.offset_lr * total
        gain, offset = gain + gain_speed, offset + offset_speed
    delta = scale * gain
    bias = offset - delta @ mean
    full = np.zeros((len(bias), cells.x.shape[1])) if weight is None else delta
    return QueryFit(full, bias, losses)


def _curvature(x: Any, weight: NDArray[np.floating]) -> float:
    """Compute the mean squared change of the logits by a gain common to all genes."""
    squares = x.multiply(x) if hasattr(x, "multiply") else x * x
    return float(np.asarray(squares.mean(axis=0)).ravel() @ weight.var(axis=0))


def diversity(codes: NDArray[np.integer], n_labels: int) -> float:
    """Compute the effective number of labels: the exponential of the entropy of their shares.

    Parameters
    ----------
    codes
        ``(n_cells,)``; codes from ``n_labels`` on do not count.
    n_labels
        Number of labels.

    Examples
    --------
    >>> round(diversity(np.array([0, 0, 1, 1, 7]), 3), 6)
    2.0
    """
    counts = np.bincount(codes[codes < n_labels], minlength=n_labels)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(shares * np.log(shares)).sum()))
