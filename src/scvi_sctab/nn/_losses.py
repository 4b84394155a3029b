"""Training losses of a classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

UNLABELED_CODE = -100
"""Code of cells without a label."""

Reduction = Literal["weighted_mean", "mean"]
MeanTotal = Callable[[Tensor], Tensor]


def weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    reduction: Reduction = "weighted_mean",
    mean_total: MeanTotal | None = None,
) -> Tensor:
    r"""Compute the cross-entropy over labelled cells, weighted by class.

    .. math:: L = \frac{1}{Z} \sum_i w_{y_i} (-\log p_{i y_i})

    Parameters
    ----------
    logits
        ``(n_cells, n_labels)``.
    labels
        Codes, ``(n_cells,)``; ``UNLABELED_CODE`` marks unlabelled cells, which do not count.
    class_weights
        :math:`w`, ``(n_labels,)``; all 1 if not given.
    reduction
        ``"weighted_mean"``: :math:`Z` is the sum of the weights of the minibatch, as in scTab.
        ``"mean"``: the number of labelled cells, so that the weight of a cell does not depend on
        the labels in its minibatch.
    mean_total
        Function that averages :math:`Z` over processes, each with a part of the minibatch. The
        mean of their losses is then that of the whole minibatch.

    Returns
    -------
    The loss, ``()``; 0 without any labelled cell.

    Examples
    --------
    >>> import torch
    >>> weighted_cross_entropy(torch.zeros(2, 2), torch.tensor([0, -100]))
    tensor(0.6931)
    """
    # Without boolean indexing, for whose size a GPU would have to synchronise.
    loss = cross_entropy(
        logits, labels, class_weights, ignore_index=UNLABELED_CODE, reduction="sum"
    )
    return loss / _total_weight(labels, class_weights, reduction, mean_total)


def marginal_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    accepted: Tensor,
    class_weights: Tensor | None = None,
    reduction: Reduction = "weighted_mean",
    mean_total: MeanTotal | None = None,
) -> Tensor:
    r"""Compute the cross-entropy if coarse labels stand for any of several labels.

    .. math:: L = \frac{1}{Z} \sum_i w_{y_i} \Big(-\log \sum_{k \in A(y_i)} p_{ik}\Big)

    Parameters
    ----------
    logits, labels, class_weights, reduction, mean_total
        As in :func:`weighted_cross_entropy`.
    accepted
        Whether a cell with the label of the row may have the label of the column,
        ``(n_labels, n_labels)``; the identity gives :func:`weighted_cross_entropy`.

    Returns
    -------
    The loss, ``()``; 0 without any labelled cell.

    Examples
    --------
    >>> import torch
    >>> either = torch.tensor([[True, False, False], [False, True, False], [True, True, False]])
    >>> marginal_cross_entropy(torch.zeros(1, 3), torch.tensor([2]), either)
    tensor(0.4055)
    """
    codes = labels.clamp(min=0)
    log_p = log_softmax(logits, dim=1).masked_fill(~accepted[codes], float("-inf"))
    weights = labels != UNLABELED_CODE
    loss = -log_p.logsumexp(dim=1).where(weights, 0.0)
    if class_weights is not None:
        loss = loss * class_weights[codes]
    return loss.sum() / _total_weight(labels, class_weights, reduction, mean_total)


def _total_weight(
    labels: Tensor,
    class_weights: Tensor | None,
    reduction: Reduction,
    mean_total: MeanTotal | None,
) -> Tensor:
    """Return the denominator of the mean over cells."""
    labelled = labels != UNLABELED_CODE
    if class_weights is None or reduction == "mean":
        total = labelled.sum()
        return total.clamp(min=1) if mean_total is None else _not_zero(mean_total(total))
    total = (class_weights[labels.clamp(min=0)] * labelled).sum()
    return _not_zero(total if mean_total is None else mean_total(total))


def _not_zero(total: Tensor) -> Tensor:
    return total.masked_fill(total == 0, 1)
