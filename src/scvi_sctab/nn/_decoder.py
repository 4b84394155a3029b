"""Decoder from an embedding to the expression of genes, after TabNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scvi_sctab.nn._dense import ThreadedLinear, linear
from scvi_sctab.nn._tabnet_blocks import FeatureTransformer, GLUBlock, glu_linears

# Small, so that an untrained decoder returns its bias for every cell.
_OUTPUT_STD = 0.01


class TabNetDecoder(nn.Module):
    """Gated layers and a linear map to genes, after the decoder of TabNet :cite:p:`Arik21`.

    Parameters
    ----------
    n_input
        Width of the embedding.
    n_genes
        Number of genes.
    n_hidden
        Width of the gated layers; that of the embedding if not given.
    n_shared, n_independent
        Numbers of gated layers, as in :class:`~scvi_sctab.nn.TabNetEncoder`; with one step the two
        kinds do the same.
    virtual_batch_size
        Smallest virtual batch of ghost batch norm, in cells.
    momentum
        Momentum of ghost batch norm.

    Raises
    ------
    ValueError
        If there is no layer.

    Notes
    -----
    - input: ``(n_cells, n_input)``; output: ``(n_cells, n_genes)``, log-normalised expression.
    - NOTE[DIFF] TabNet adds up one decoder per attention step; here a single decoder reads the sum
      of the steps.

    Examples
    --------
    >>> import torch
    >>> decoder = TabNetDecoder(
    ...     8, 100, n_shared=1, n_independent=1, virtual_batch_size=32, momentum=0.02
    ... )
    >>> decoder(torch.rand(32, 8)).shape
    torch.Size([32, 100])
    """

    def __init__(
        self,
        n_input: int,
        n_genes: int,
        *,
        n_shared: int,
        n_independent: int,
        virtual_batch_size: int,
        momentum: float,
        n_hidden: int | None = None,
    ):
        super().__init__()
        if n_independent == 0 and n_shared == 0:
            raise ValueError("The decoder needs a layer: n_independent and n_shared are both 0.")
        self.n_hidden = n_input if n_hidden is None else n_hidden
        blocks: list[nn.Module] = []
        for n_layers in (n_shared, n_independent):
            if n_layers == 0:
                blocks.append(nn.Identity())
                continue
            first = not any(isinstance(block, GLUBlock) for block in blocks)
            linears = glu_linears(n_input if first else self.n_hidden, self.n_hidden, n_layers)
            blocks.append(
                GLUBlock(linears, virtual_batch_size, momentum, first=first, shared=False)
            )
        self.transformer = FeatureTransformer(*blocks)
        self.final_mapping = ThreadedLinear(self.n_hidden, n_genes)
        nn.init.normal_(self.final_mapping.weight, std=_OUTPUT_STD)
        nn.init.zeros_(self.final_mapping.bias)

    @property
    def n_condition(self) -> int:
        """Width of the condition."""
        return 2 * self.n_hidden

    def start_from(self, means: Tensor) -> None:
        """Initialise the bias with the means of the genes.

        If it started at 0, the bias of a gene that every cell expresses would need hundreds of
        steps to reach the mean.

        Parameters
        ----------
        means
            Mean log-normalised expression of each gene, ``(n_genes,)``.

        Raises
        ------
        ValueError
            If the number of means is not that of the genes.
        """
        bias = self.final_mapping.bias
        if means.shape != bias.shape:
            raise ValueError(f"means of shape {tuple(means.shape)}, but {len(bias)} genes.")
        with torch.no_grad():
            bias.copy_(means)

    def forward(
        self, z: Tensor, condition: Tensor | None = None, genes: Tensor | None = None
    ) -> Tensor:
        """Reconstruct expression.

        Parameters
        ----------
        z
            Embedding, ``(n_cells, n_input)``.
        condition
            Added before the first batch norm, ``(n_cells, n_condition)``.
        genes
            Positions of the genes to reconstruct, ``(n_targets,)``; all if not given.

        Returns
        -------
        ``(n_cells, n_genes)`` or ``(n_cells, n_targets)``.
        """
        hidden = self.transformer(z, condition)
        if genes is None:
            return self.final_mapping(hidden)
        weight, bias = self.final_mapping.weight, self.final_mapping.bias
        return linear(hidden, weight[genes], bias[genes])
