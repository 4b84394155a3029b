"""Self-training of a query adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.special import softmax

from scvi_sctab.sparse import CSR, csr_matmul
from scvi_sctab.train._self_training import select_confident

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

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

    def times(self, strength: float) -> QueryFit:
        """Return the adapter with its weights multiplied by a factor."""
        return QueryFit(strength * self.weight, strength * self.bias, self.losses)


def fit_query_path(
    cells: QueryCells,
    weight: NDArray[np.floating] | None,
    config: SelfTrainingConfig,
    *,
    eligible: NDArray[np.bool_] | None = None,
    min_cells: int = 1,
) -> QueryFit:
    r"""Fit a query adapter by class-balanced self-training :cite:p:`Zou18`.

    With :math:`W` the weights of the linear path, :math:`m` the mean of the query and
    :math:`\ell` the logits of the reference, the query gets a gain :math:`S` per label and gene
    and an offset :math:`c` per label,

    .. math:: \ell'(x) = \ell(x) + (W \circ S)(x - m) + c,

    both starting at 0. In each round the cells with the highest probabilities of every predicted
    label get that label, and :math:`S` and :math:`c` are fitted to them from 0 by gradient descent
    with momentum, with few steps as regularisation. Labels that no cell got stay as they are: the
    cross-entropy is over the others.

    Parameters
    ----------
    cells
        The query.
    weight
        :math:`W`, ``(n_labels, n_input)``; only the offset is fitted if not given.
    config
        Hyperparameters, such as numbers of rounds and steps.
    eligible
        Cells that may get a label, ``(n_cells,)``; all if not given. Cells with a label of their
        own always count.
    min_cells
        Number of cells below which none gets that label in a round.

    Returns
    -------
    The adapter; zeros if there are too few cells or labels.
    """
    n_labels = cells.logits.shape[1]
    fit = QueryFit(np.zeros((n_labels, cells.x.shape[1])), np.zeros(n_labels), [])
    known = cells.labels < n_labels
    left_out = ~known & (False if eligible is None else ~eligible)
    for _ in range(config.rounds):
        shift = cells.x @ fit.weight.T + fit.bias
        labels = select_confident(softmax(cells.logits + shift, axis=1), config.share)
        labels[left_out] = n_labels
        labels[known] = cells.labels[known]
        few = np.bincount(labels, minlength=n_labels + 1) < min_cells
        labels[few[labels] & ~known] = n_labels
        chosen = np.flatnonzero(labels < n_labels)
        if len(chosen) < _MIN_CELLS or len(np.unique(labels[chosen])) < _MIN_LABELS:
            break
        counts = np.bincount(labels[chosen], minlength=n_labels)
        importance = counts[labels[chosen]] ** -config.class_weight_power
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
    n_labels, n_input = cells.linear.shape[1], cells.x.shape[1]
    linear = torch.from_numpy(np.asarray(cells.linear[chosen], dtype=np.float64))
    target, importances = torch.from_numpy(labels)[:, None], torch.from_numpy(importance)
    gain = torch.zeros(n_labels, n_input, dtype=torch.float64, requires_grad=weight is not None)
    offset = torch.zeros(n_labels, dtype=torch.float64, requires_grad=True)
    groups: list[dict[str, Any]] = [{"params": [offset], "lr": config.offset_lr}]
    if weight is None:
        # Without weights there is no gain to fit.
        scale, multiply = gain.detach(), None
    else:
        rate = config.gain_lr / max(_curvature(cells.x, np.asarray(weight)), 1e-12)
        groups.append({"params": [gain], "lr": rate})
        scale, multiply = (
            torch.from_numpy(np.asarray(weight, np.float64)),
            _product(cells.x[chosen]),
        )
    absent = torch.from_numpy(np.bincount(labels, minlength=n_labels) == 0)
    linear[:, absent] = -torch.inf
    mean = torch.from_numpy(np.asarray(cells.x.mean(axis=0), dtype=np.float64).ravel())
    optimizer = torch.optim.SGD(groups, momentum=config.momentum)
    losses = list(losses)
    with torch.enable_grad():
        for _ in range(config.n_steps):
            delta = scale * gain
            logits = linear + (offset - delta @ mean)
            if multiply is not None:
                logits = logits + multiply(delta.t())
            loss = -(importances[:, None] * logits.log_softmax(dim=1).gather(1, target)).sum()
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    delta = (scale * gain).detach()
    return QueryFit(delta.numpy(), (offset.detach() - delta @ mean).numpy(), losses)


def _product(x: Any) -> Callable[[Tensor], Tensor]:
    """Return the product of cells, dense or sparse, with a matrix, which may have a gradient."""
    if not hasattr(x, "tocsr"):
        dense = torch.from_numpy(np.asarray(x, dtype=np.float64))
        return lambda matrix: dense @ matrix
    rows = CSR.from_scipy(x.tocsr())
    rows = rows.with_values(rows.values.double())
    return lambda matrix: csr_matmul(rows, matrix)


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
