"""Protocols that layers meet at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from anndata import AnnData
    from torch import Tensor
    from torch.nn import Parameter

    from scvi_sctab.nn import CSR, EncoderOutput


class Encoder(Protocol):
    """Embeds log-normalised expression; a :class:`torch.nn.Module`."""

    @property
    def n_output(self) -> int:
        """Width of the embedding."""

    @property
    def n_condition(self) -> int:
        """Width of a condition."""

    def parameters(self) -> Iterator[Parameter]:
        """List its weights, as every module does."""

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Say whether its weights are trained."""

    def eval(self) -> Any:
        """Leave training mode."""

    def __call__(self, x: Tensor | CSR, condition: Tensor | None = None) -> EncoderOutput:
        """Embed cells ``(n_cells, n_genes)``, stored densely or, on the CPU, sparsely.

        What is known of them beside their counts is the ``condition``, added to the first hidden
        layer.
        """


class PretrainedEncoder(NamedTuple):
    """What a self-supervised model hands over.

    Attributes
    ----------
    adata
        Cells that it is registered with, if any.
    registry
        Its registry.
    network
        Hyperparameters of its encoder, as :class:`~scvi_sctab.SCTAB` takes them.
    weights
        State dict of its encoder.
    """

    adata: AnnData | None
    registry: dict[str, Any]
    network: dict[str, Any]
    weights: dict[str, Tensor]


class HasEncoder(Protocol):
    """A trained model that hands its encoder over to :meth:`scvi_sctab.SCTAB.from_pretrained`."""

    def pretrained_encoder(self) -> PretrainedEncoder:
        """Return cells, registry, hyperparameters and weights of an encoder of genes."""


class CellTypePredictor(Protocol):
    """A method that learns cell types from a reference and gives them to a query.

    Both hold raw counts in ``X``, genes named by ``var_names``. A method without probabilities
    returns 1 for the label it chose and 0 for the others, and says so by an attribute
    ``has_probabilities = False``.
    """

    name: str

    def fit(self, reference: AnnData, labels_key: str, donor_key: str | None = None) -> Self:
        """Learn from the labelled cells of a reference, ``(n_cells, n_genes)``."""

    def predict_proba(self, query: AnnData) -> pd.DataFrame:
        """Return ``(n_cells, n_labels)``, rows named by cell, columns by label.

        The label of a cell is the column with the largest value.
        """
