"""Self-training of what a query adds to the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from scvi_sctab.train._self_training import select_confident

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab._config import SelfTrainingConfig

# Fewer cells, or labels, and there is nothing to learn from.
_MIN_CELLS, _MIN_LABELS = 10, 2


class QueryCells(NamedTuple):
    """Cells of a query, as the reference sees them.

    Attributes
    ----------
    x
        What the linear path reads, ``(n_cells, n_input)``; an array or a sparse matrix.
    linear
        Logits of the linear path, or of the whole model where it has none, ``(n_cells,
        n_labels)``.
    logits
        Logits of the whole model, ``(n_cells, n_labels)``.
    labels
        Codes, ``(n_cells,)``; ``n_labels`` where the label is not known.
    """

    x: Any
    linear: NDArray[np.floating]
    logits: NDArray[np.floating]
    labels: NDArray[np.int64]


class QueryFit(NamedTuple):
    """A linear path of a query.

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
    r"""Adapt the linear path to a query by class-balanced self-training :cite:p:`Zou18`.

    With :math:`W` the weights of the linear path, :math:`m` the mean of the query and
    :math:`\ell` the logits of the reference, the query gets a gain :math:`S` per label and gene
    and an offset :math:`c` per label,

    .. math:: \ell'(x) = \ell(x) + (W \circ S)(x - m) + c,

    both from 0. In each round the surest cells of every predicted label get that label, and
    :math:`S` and :math:`c` are fitted to them anew by a few steps of gradient descent with
    momentum, which stops them early.

    Parameters
    ----------
    cells
        The query.
    weight
        :math:`W`, ``(n_labels, n_input)``; an offset alone is fitted if not given.
    config
        Rounds, steps, shares.
    energy_floor
        Cells whose linear logits have a lower log-sum-exp get no label: they look like nothing in
        the reference.
    class_weight_power
        A label with :math:`n_k` cells weighs ``n_k ** (1 - class_weight_power)``.

    Returns
    -------
    The path; zeros where there is too little to learn from.
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
    scale: NDArray[np.floating]
    if weight is None:
        # Nothing to gain on: products with one column of zeros cost nothing.
        x, mean, scale = np.zeros((len(chosen), 1)), np.zeros(1), np.zeros((linear.shape[1], 1))
        rate = 0.0
    else:
        scale = weight
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
    """How strongly a gain common to all genes moves the logits apart, squared."""
    squares = x.multiply(x) if hasattr(x, "multiply") else x * x
    return float(np.asarray(squares.mean(axis=0)).ravel() @ weight.var(axis=0))


def diversity(codes: NDArray[np.integer], n_labels: int) -> float:
    """Effective number of labels: exponential of the entropy of their shares.

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
