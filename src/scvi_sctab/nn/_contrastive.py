"""Losses between two views of a cell, the projector before them, and the spread of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from scvi_sctab.nn._dense import ThreadedLinear

# As in batch norm: a dimension without variance becomes 0, with a finite gradient.
_EPSILON = 1e-5


class Projector(nn.Sequential):
    """Layers between an embedding and its loss, which are dropped after training.

    Parameters
    ----------
    n_input
        Width of the embedding.
    widths
        Widths of the layers. Each but the last is followed by batch norm and ReLU. None has a
        bias, since batch norm, and the standardisation in :func:`barlow_twins_loss`, would
        subtract it.

    Notes
    -----
    - input: ``(n_cells, n_input)``; output: ``(n_cells, widths[-1])``.

    Examples
    --------
    >>> import torch
    >>> Projector(64, widths=(256, 512))(torch.rand(32, 64)).shape
    torch.Size([32, 512])
    """

    def __init__(self, n_input: int, widths: Sequence[int] = (256, 256, 512, 512)):
        *hidden, n_output = widths
        layers: list[nn.Module] = []
        for before, after in pairwise([n_input, *hidden]):
            layers += [ThreadedLinear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        last = hidden[-1] if hidden else n_input
        super().__init__(*layers, ThreadedLinear(last, n_output, bias=False))
        self.n_output = n_output


def barlow_twins_loss(first: Tensor, second: Tensor, off_diagonal: float = 0.0051) -> Tensor:
    r"""Compute the distance of the views' cross-correlation from identity :cite:p:`Zbontar21`.

    With :math:`C` the correlations over cells of each dimension of the first view with each of the
    second,

    .. math:: \sum_i (C_{ii} - 1)^2 + \lambda \sum_{i \neq j} C_{ij}^2.

    Mean and variance are those of the minibatch, also in validation.

    Parameters
    ----------
    first, second
        Projections of the views, ``(n_cells, n_dimensions)``.
    off_diagonal
        :math:`\lambda`.

    Returns
    -------
    The loss, ``()``. A dimension that is constant over cells adds 1.

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(float(barlow_twins_loss(z, 3 * z + 1)), 4)
    0.0
    """
    correlation = _standardize(first).T @ _standardize(second) / len(first)
    diagonal = correlation.diagonal()
    off = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + off_diagonal * off


def _standardize(z: Tensor) -> Tensor:
    variance, mean = torch.var_mean(z, dim=0, correction=0)
    return (z - mean) * (variance + _EPSILON).rsqrt()


def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Compute the squared distance of vectors of length 1, :math:`2 - 2 \cos` :cite:p:`Grill20`.

    Parameters
    ----------
    prediction
        Prediction from one view, ``(n_cells, n_dimensions)``.
    target
        Projection of the other view, ``(n_cells, n_dimensions)``; it gets no gradient.

    Returns
    -------
    The mean over cells, ``()``: 0 for equal directions, 4 for opposite ones.

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[1.0, 0.0]])
    >>> byol_loss(z, 5 * z), byol_loss(z, -z)
    (tensor(0.), tensor(4.))
    """
    return 2 - 2 * cosine_similarity(prediction, target.detach(), dim=1).mean()


def embedding_spread(z: Tensor) -> Tensor:
    r"""Compute the spread of the directions of embeddings; 0 if they have collapsed.

    Embeddings are scaled to length 1. The spread is :math:`\sqrt d` times the standard deviation
    over cells, averaged over the :math:`d` dimensions.

    Parameters
    ----------
    z
        Embeddings, ``(n_cells, n_dimensions)``.

    Returns
    -------
    The spread, ``()``, without gradient: 0 if all cells have the same direction, 1 if directions
    are uniform. A component that all cells share lowers it.

    Examples
    --------
    >>> import torch
    >>> float(embedding_spread(torch.ones(8, 4)))
    0.0
    """
    directions = normalize(z.detach(), dim=1)
    return directions.std(dim=0, correction=0).mean() * z.shape[1] ** 0.5
