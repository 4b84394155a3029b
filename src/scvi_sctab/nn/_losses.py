"""The training loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

UNLABELED_CODE = -100


def weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    mask_loss: Tensor | None = None,
    lambda_sparse: float = 0.0,
) -> Tensor:
    r"""Cross-entropy over labelled cells, weighted by class, with scTab's sparsity term.

    .. math:: L = \\frac{\\sum_i w_{y_i} (-\\log p_{i y_i})}{\\sum_i w_{y_i}} - \\lambda\\, M

    with :math:`M \\le 0` the negative entropy of the attention, so that a positive
    :math:`\\lambda` favours sparse attention.

    Parameters
    ----------
    logits
        ``(n_cells, n_labels)``.
    labels
        Codes, ``(n_cells,)``; ``UNLABELED_CODE`` marks cells without a label, which do not count.
    class_weights
        ``(n_labels,)``; all 1 if not given.
    mask_loss
        :math:`M`, ``()``.
    lambda_sparse
        :math:`\\lambda`.

    Returns
    -------
    The loss, ``()``; without any labelled cell, 0 plus the sparsity term.

    Examples
    --------
    >>> import torch
    >>> weighted_cross_entropy(torch.zeros(2, 2), torch.tensor([0, -100]))
    tensor(0.6931)
    """
    labelled = labels != UNLABELED_CODE
    loss = cross_entropy(logits[labelled], labels[labelled], class_weights, reduction="none")
    if class_weights is None:
        loss = loss.sum() / labelled.sum().clamp(min=1)
    else:
        total = class_weights[labels[labelled]].sum()
        loss = loss.sum() / total.masked_fill(total == 0, 1)
    return loss if mask_loss is None else loss - lambda_sparse * mask_loss
