"""Attention of TabNet to genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.explanation._network import (
    attention_of,
    attentive_encoder,
    expression,
    mean_of,
    stack_rows,
)

if TYPE_CHECKING:
    from scipy import sparse
    from torch import Tensor

    from scvi_sctab._types import CellBatches, Network


def attend_to_genes(
    networks: Sequence[Network], cells: CellBatches, batch_size: int | None = None
) -> sparse.csr_matrix:
    """Compute the attention of each cell to each gene, ``(n_cells, n_genes)``.

    Parameters
    ----------
    networks
        Networks of the model; the mean over them is returned.
    cells
        The cells.
    batch_size
        Cells per minibatch.

    Raises
    ------
    ValueError
        If a network has no attention.
    """
    encoders = [attentive_encoder(network) for network in networks]

    def attend(tensors: dict[str, Tensor]) -> sparse.csr_matrix:
        x, codes = expression(tensors), tensors[CONDITIONS_KEY]
        return mean_of(
            [
                attention_of(encoder, x, network.condition(codes))
                for encoder, network in zip(encoders, networks, strict=True)
            ]
        )

    return stack_rows(cells.map(attend, batch_size), cells.n_genes)
