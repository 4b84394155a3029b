"""What an encoder returns, and the two plain ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from scvi_sctab.nn._sparse_layers import GeneLinear

if TYPE_CHECKING:
    from scvi_sctab.sparse import CSR


class EncoderOutput(NamedTuple):
    """What every encoder returns.

    Attributes
    ----------
    embedding
        ``(n_cells, n_output)``.
    mask_loss
        ``()``; negative entropy of the attention, at most 0, and 0 without attention.
    """

    embedding: Tensor
    mask_loss: Tensor


class Encoder(nn.Module):
    """Network that embeds log-normalised expression.

    Attributes
    ----------
    n_output
        Width of the embedding.
    n_condition
        Width of a condition.

    Notes
    -----
    - input: ``(n_cells, n_genes)``, stored densely or, on the CPU, sparsely; optionally a
      condition ``(n_cells, n_condition)``, an embedding of batch and covariates, added to the
      first hidden layer.
    - output: :class:`~scvi_sctab.nn.EncoderOutput`.
    """

    n_output: int
    n_condition: int
    __call__: Callable[..., EncoderOutput]


class MLPEncoder(Encoder):
    """Fully connected layers, the MLP that scTab compares itself with.

    Parameters
    ----------
    input_dim
        Number of genes.
    n_output
        Width of every layer and of the embedding.
    n_layers
        Number of layers.
    dropout
        Dropout rate after each layer.

    Notes
    -----
    - input: ``(n_cells, input_dim)``, log-normalised expression; optionally a condition
      ``(n_cells, n_output)``, added to what the first linear layer returns.
    - output: :class:`~scvi_sctab.nn.EncoderOutput` with an embedding ``(n_cells, n_output)``.

    Examples
    --------
    >>> import torch
    >>> MLPEncoder(100, n_output=16)(torch.rand(32, 100)).embedding.shape
    torch.Size([32, 16])
    """

    def __init__(
        self, input_dim: int, n_output: int = 128, n_layers: int = 8, dropout: float = 0.1
    ):
        super().__init__()
        self.n_output = self.n_condition = n_output
        widths = [input_dim] + [n_output] * n_layers
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    GeneLinear(before, after),
                    nn.BatchNorm1d(after),
                    nn.SiLU(),
                    nn.Dropout(dropout),
                )
                for before, after in zip(widths, widths[1:], strict=False)
            )
        )

    def forward(self, x: Tensor | CSR, condition: Tensor | None = None) -> EncoderOutput:
        """Embed cells."""
        linear, *layers = [part for layer in self.layers for part in layer.children()]
        embedding = linear(x) if condition is None else linear(x) + condition
        for layer in layers:
            embedding = layer(embedding)
        return EncoderOutput(embedding, embedding.new_zeros(()))


class LinearEncoder(Encoder):
    """One linear layer: with the label head, a low-rank softmax regression.

    Parameters
    ----------
    input_dim
        Number of genes.
    n_output
        Width of the embedding.

    Notes
    -----
    - input: ``(n_cells, input_dim)``, log-normalised expression; optionally a condition
      ``(n_cells, n_output)``, added to what the first linear layer returns.
    - output: :class:`~scvi_sctab.nn.EncoderOutput` with an embedding ``(n_cells, n_output)``.

    Examples
    --------
    >>> import torch
    >>> LinearEncoder(100, n_output=16)(torch.rand(32, 100)).embedding.shape
    torch.Size([32, 16])
    """

    def __init__(self, input_dim: int, n_output: int = 128):
        super().__init__()
        self.n_output = self.n_condition = n_output
        self.linear = GeneLinear(input_dim, n_output)

    def forward(self, x: Tensor | CSR, condition: Tensor | None = None) -> EncoderOutput:
        """Embed cells."""
        embedding = self.linear(x)
        if condition is not None:
            embedding = embedding + condition
        return EncoderOutput(embedding, embedding.new_zeros(()))
