"""Protocols that layers meet at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from scvi_sctab.nn import CSR, EncoderOutput


class Encoder(Protocol):
    """Embeds log-normalised expression; a :class:`torch.nn.Module`."""

    @property
    def n_output(self) -> int:
        """Width of the embedding."""

    @property
    def n_condition(self) -> int:
        """Width of a condition."""

    def __call__(self, x: Tensor | CSR, condition: Tensor | None = None) -> EncoderOutput:
        """Embed cells ``(n_cells, n_genes)``, stored densely or, on the CPU, sparsely.

        What is known of them beside their counts is the ``condition``, added to the first hidden
        layer.
        """


class HasEncoder(Protocol):
    """A trained model that hands its encoder over to :meth:`scvi_sctab.SCTAB.from_pretrained`."""

    def pretrained_encoder(self) -> Any:
        """Return cells, registry, arguments and weights.

        They are those of a :class:`scvi.module.VAE`, as attributes ``adata``, ``registry``,
        ``arguments`` and ``weights``.
        """
