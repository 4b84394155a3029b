"""Protocols that layers meet at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from scvi_sctab.nn import CSR, EncoderOutput


class Encoder(Protocol):
    """Embeds log-normalised expression; a :class:`torch.nn.Module`."""

    @property
    def n_output(self) -> int:
        """Width of the embedding."""

    def __call__(self, x: Tensor | CSR) -> EncoderOutput:
        """Embed cells ``(n_cells, n_genes)``, stored densely or, on the CPU, sparsely."""
