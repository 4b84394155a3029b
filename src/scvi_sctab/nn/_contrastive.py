"""Losses that compare two views of a cell, and what they are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from scvi_sctab.nn._dense import ThreadedLinear

# As batch norm: a dimension without variance becomes 0, and its gradient stays finite.
_EPSILON = 1e-5


class Projector(nn.Sequential):
    """Layers between an embedding and the loss of it, which are thrown away after training.

    Parameters
    ----------
    n_input
        Width of the embedding.
    widths
        Widths of the layers. Each but the last is followed by batch norm and ReLU. None has a
        bias, since batch norm, or the loss of :func:`barlow_twins_loss`, would take it out.

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
    r"""Distance of the cross-correlation of two views from the identity :cite:p:`Zbontar21`.

    With :math:`C` the correlations over cells of each dimension of the one with each of the other,

    .. math:: \sum_i (C_{ii} - 1)^2 + \lambda \sum_{i \neq j} C_{ij}^2.

    The statistics are those of the batch in validation, too.

    Parameters
    ----------
    first, second
        Projections of the views, ``(n_cells, n_dimensions)``.
    off_diagonal
        :math:`\lambda`.

    Returns
    -------
    The loss, ``()``. A dimension that is the same in all cells adds 1.

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
    r"""Squared distance of vectors of length 1, :math:`2 - 2 \cos` :cite:p:`Grill20`.

    Parameters
    ----------
    prediction
        What is predicted of one view, ``(n_cells, n_dimensions)``.
    target
        Projection of the other, ``(n_cells, n_dimensions)``; no gradient flows into it.

    Returns
    -------
    The mean over cells, ``()``, between 0, where they point the same way, and 4.

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[1.0, 0.0]])
    >>> byol_loss(z, 5 * z), byol_loss(z, -z)
    (tensor(0.), tensor(4.))
    """
    return 2 - 2 * cosine_similarity(prediction, target.detach(), dim=1).mean()


def embedding_spread(z: Tensor) -> Tensor:
    r"""How far embeddings point in different directions; 0 where they have collapsed.

    It is :math:`\sqrt d` times the standard deviation over cells of each of the :math:`d`
    dimensions, averaged, of embeddings scaled to length 1.

    Parameters
    ----------
    z
        Embeddings, ``(n_cells, n_dimensions)``.

    Returns
    -------
    The spread, ``()``, without gradient: 0 where all cells point the same way, 1 where they point
    everywhere alike. Something that all cells have in common lowers it.

    Examples
    --------
    >>> import torch
    >>> float(embedding_spread(torch.ones(8, 4)))
    0.0
    """
    directions = normalize(z.detach(), dim=1)
    return directions.std(dim=0, correction=0).mean() * z.shape[1] ** 0.5
