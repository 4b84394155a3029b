"""Output of an encoder, and the linear and the MLP encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from scvi_sctab.nn._sparse_layers import GeneLinear

if TYPE_CHECKING:
    from scvi_sctab.sparse import CSR


class EncoderOutput(NamedTuple):
    """Output of every encoder.

    Attributes
    ----------
    embedding
        ``(n_cells, n_output)``.
    mask_loss
        ``()``; negative entropy of the attention, at most 0, and 0 without attention.
    """

    embedding: Tensor
    mask_loss: Tensor


class MLPEncoder(nn.Module):
    """Fully connected layers, as in the MLP baseline of scTab.

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
      ``(n_cells, n_output)``, added to the output of the first linear layer.
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


class LinearEncoder(nn.Module):
    """One linear layer; together with the label head it is a low-rank softmax regression.

    Parameters
    ----------
    input_dim
        Number of genes.
    n_output
        Width of the embedding.

    Notes
    -----
    - input: ``(n_cells, input_dim)``, log-normalised expression; optionally a condition
      ``(n_cells, n_output)``, added to the output of the layer.
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
