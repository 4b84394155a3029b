"""The training loss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import cross_entropy

UNLABELED_CODE = -100
"""Code of cells without a label."""

Reduction = Literal["weighted_mean", "mean"]


def weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    reduction: Reduction = "weighted_mean",
) -> Tensor:
    r"""Cross-entropy over labelled cells, weighted by class.

    .. math:: L = \frac{1}{Z} \sum_i w_{y_i} (-\log p_{i y_i})

    Parameters
    ----------
    logits
        ``(n_cells, n_labels)``.
    labels
        Codes, ``(n_cells,)``; ``UNLABELED_CODE`` marks cells without a label, which do not count.
    class_weights
        :math:`w`, ``(n_labels,)``; all 1 if not given.
    reduction
        ``"weighted_mean"``: :math:`Z` is the sum of the weights of the batch, as in scTab.
        ``"mean"``: the number of labelled cells, so that a batch that lacks a rare label does not
        count the others more.

    Returns
    -------
    The loss, ``()``; 0 without any labelled cell.

    Examples
    --------
    >>> import torch
    >>> weighted_cross_entropy(torch.zeros(2, 2), torch.tensor([0, -100]))
    tensor(0.6931)
    """
    # No cell is picked out, so that a graphics processor need not wait to be told how many.
    loss = cross_entropy(
        logits, labels, class_weights, ignore_index=UNLABELED_CODE, reduction="sum"
    )
    labelled = labels != UNLABELED_CODE
    if class_weights is None or reduction == "mean":
        return loss / labelled.sum().clamp(min=1)
    total = (class_weights[labels.clamp(min=0)] * labelled).sum()
    return loss / total.masked_fill(total == 0, 1)
