"""Attributions of a label to genes, by captum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab._optional import import_optional
from scvi_sctab.explanation._network import (
    centred_logits,
    dense_expression,
    mean_of,
    stack_rows,
    with_gradients,
)
from scvi_sctab.sparse import to_scipy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse
    from torch import Tensor

    from scvi_sctab._types import CellBatches, Network

AttributionMethod = Literal["integrated_gradients", "input_x_gradient"]

# Small, since each cell is evaluated once per step of integration.
_BATCH_SIZE = 64
_MAX_ROWS = 256


def check_attribution(method: str) -> None:
    """Refuse a method that does not exist, and check that captum is installed.

    Parameters
    ----------
    method
        Name of the method.

    Raises
    ------
    ImportError
        If captum is not installed.
    ValueError
        If there is no such method.
    """
    import_optional("captum.attr", "interpret", "get_attributions()")
    if method not in get_args(AttributionMethod):
        raise ValueError(f"{method=} is none of {', '.join(get_args(AttributionMethod))}.")


def attribute(
    networks: Sequence[Network],
    predictable: NDArray[np.bool_],
    cells: CellBatches,
    codes: NDArray[np.intp],
    method: AttributionMethod,
    n_steps: int,
    batch_size: int | None = None,
) -> sparse.csr_matrix:
    """Attribute the centred logit of each cell's label to its genes, ``(n_cells, n_genes)``.

    Parameters
    ----------
    networks
        Networks of the model; the mean over them is returned.
    predictable
        Labels that can be predicted, ``(n_labels,)``.
    cells
        The cells.
    codes
        Code of the label of each cell, ``(n_cells,)``.
    method, n_steps
        As in :meth:`scvi_sctab.SCTAB.get_attributions`.
    batch_size
        Cells per minibatch.
    """
    attr = import_optional("captum.attr", "interpret", "get_attributions()")
    forwards = [partial(centred_logits, network, predictable) for network in networks]
    if method == "input_x_gradient":
        explainers, options = [attr.InputXGradient(forward) for forward in forwards], {}
    else:
        explainers = [attr.IntegratedGradients(forward) for forward in forwards]
        options = {"n_steps": n_steps, "internal_batch_size": _MAX_ROWS}
    start = 0

    def attribute_batch(tensors: dict[str, Tensor]) -> sparse.csr_matrix:
        nonlocal start
        x, conditions = dense_expression(tensors), tensors[CONDITIONS_KEY]
        rows = slice(start, start + len(x))
        start = rows.stop
        with with_gradients():
            target = torch.from_numpy(codes[rows]).to(x.device)
            x, conditions = x.clone().requires_grad_(), conditions.clone()
            values = [
                explainer.attribute(
                    x, target=target, additional_forward_args=(conditions,), **options
                )
                for explainer in explainers
            ]
        return mean_of([to_scipy(value.float()) for value in values])

    return stack_rows(cells.map(attribute_batch, batch_size or _BATCH_SIZE), cells.n_genes)
