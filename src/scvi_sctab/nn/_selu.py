"""Encoder and decoder of self-supervised learning: fully connected layers with SELU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scvi_sctab.nn._dense import ThreadedLinear, linear
from scvi_sctab.nn._encoders import EncoderOutput
from scvi_sctab.nn._sparse_layers import GeneLinear

if TYPE_CHECKING:
    from scvi_sctab.sparse import CSR

# Small, so that an untrained decoder returns its bias for every cell.
_OUTPUT_STD = 0.01


class SELUEncoder(nn.Module):
    """Fully connected layers with SELU, the encoder of :cite:t:`Richter24`.

    Parameters
    ----------
    input_dim
        Number of genes.
    widths
        Width of each layer; that of the last, which is linear, is the width of the embedding.
    dropout
        Dropout rate after each layer but the last.

    Notes
    -----
    - input: ``(n_cells, input_dim)``, log-normalised expression; optionally a condition
      ``(n_cells, widths[0])``, added to the output of the first linear layer.
    - output: :class:`~scvi_sctab.nn.EncoderOutput` with an embedding ``(n_cells, widths[-1])``.

    Examples
    --------
    >>> import torch
    >>> SELUEncoder(100)(torch.rand(32, 100)).embedding.shape
    torch.Size([32, 64])
    """

    def __init__(
        self,
        input_dim: int,
        widths: Sequence[int] = (512, 512, 256, 256, 64),
        dropout: float = 0.1,
    ):
        super().__init__()
        self.n_condition, self.n_output = widths[0], widths[-1]
        self.layers = nn.Sequential(GeneLinear(input_dim, widths[0]))
        for before, after in zip(widths, widths[1:], strict=False):
            self.layers.extend([nn.SELU(), nn.Dropout(dropout), ThreadedLinear(before, after)])

    def forward(self, x: Tensor | CSR, condition: Tensor | None = None) -> EncoderOutput:
        """Embed cells."""
        embedding = self.layers[0](x)
        if condition is not None:
            embedding = embedding + condition
        embedding = self.layers[1:](embedding)
        return EncoderOutput(embedding, embedding.new_zeros(()))

    def standardize(self, mean: Tensor, std: Tensor) -> None:
        """Standardise the embedding, by changing the weights of the last layer.

        A classifier on top then starts from an embedding of unit variance after any pretext task.

        Parameters
        ----------
        mean, std
            Mean and standard deviation of the embedding of some cells, ``(widths[-1],)``; a
            constant dimension is only shifted.
        """
        last: nn.Linear = self.layers[-1]  # type: ignore[assignment]
        std = std.masked_fill(std <= torch.finfo(std.dtype).eps, 1)
        with torch.no_grad():
            last.weight /= std[:, None]
            last.bias.copy_((last.bias - mean) / std)


class SELUDecoder(nn.Module):
    """Decoder from an embedding to genes, the layers of :class:`SELUEncoder` in reverse order.

    Parameters
    ----------
    n_input
        Width of the embedding.
    n_genes
        Number of genes.
    widths
        Width of each hidden layer.
    dropout
        Dropout rate after each hidden layer.

    Notes
    -----
    - input: ``(n_cells, n_input)``; output: ``(n_cells, n_genes)``, real numbers.
    - NOTE[DIFF] The published decoder ends with a sigmoid, which cannot exceed 1; log-normalised
      expression reaches 9.

    Examples
    --------
    >>> import torch
    >>> SELUDecoder(64, 100)(torch.rand(32, 64)).shape
    torch.Size([32, 100])
    """

    def __init__(
        self,
        n_input: int,
        n_genes: int,
        widths: Sequence[int] = (256, 256, 512, 512),
        dropout: float = 0.1,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip([n_input, *widths], widths, strict=False):
            layers += [ThreadedLinear(before, after), nn.SELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.final_mapping = ThreadedLinear(widths[-1] if widths else n_input, n_genes)
        nn.init.normal_(self.final_mapping.weight, std=_OUTPUT_STD)
        nn.init.zeros_(self.final_mapping.bias)

    def start_from(self, output: Tensor) -> None:
        """Initialise the bias, the output of the untrained decoder, with ``(n_genes,)``."""
        with torch.no_grad():
            self.final_mapping.bias.copy_(output)

    def forward(self, z: Tensor, genes: Tensor | None = None) -> Tensor:
        """Reconstruct all genes, or those at the positions ``genes``, ``(n_targets,)``."""
        hidden = self.layers(z)
        if genes is None:
            return self.final_mapping(hidden)
        weight, bias = self.final_mapping.weight, self.final_mapping.bias
        return linear(hidden, weight[genes], bias[genes])
