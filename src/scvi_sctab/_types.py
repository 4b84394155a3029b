"""Protocols between packages: encoders and cell-type predictors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from torch import Tensor

    from scvi_sctab.nn import CSR, EncoderOutput


class Encoder(Protocol):
    """Encoder of log-normalised expression; a :class:`torch.nn.Module`."""

    @property
    def n_output(self) -> int:
        """Width of the embedding."""

    @property
    def n_condition(self) -> int:
        """Width of a condition."""

    def __call__(self, x: Tensor | CSR, condition: Tensor | None = None) -> EncoderOutput:
        """Embed cells ``(n_cells, n_genes)``, stored densely or, on the CPU, sparsely.

        The ``condition``, an embedding of batch and covariates, is added to the first hidden
        layer.
        """


class PretrainedEncoder(NamedTuple):
    """Encoder of a self-supervised model, with its registry and hyperparameters.

    Attributes
    ----------
    adata
        Cells that the model is registered with, if any.
    registry
        Its registry.
    network
        Hyperparameters of its encoder, as in :class:`~scvi_sctab.SCTAB`.
    weights
        State dict of its encoder.
    """

    adata: AnnData | None
    registry: dict[str, Any]
    network: dict[str, Any]
    weights: dict[str, Tensor]


class HasEncoder(Protocol):
    """Trained model whose encoder :meth:`scvi_sctab.SCTAB.from_pretrained` can use."""

    def pretrained_encoder(self) -> PretrainedEncoder:
        """Return cells, registry, hyperparameters and weights of the encoder."""


class CellTypePredictor(Protocol):
    """Method that learns cell types from a reference and predicts them for a query.

    Both have raw counts in ``X`` and names of genes in ``var_names``. A method without
    probabilities returns 1 for the predicted label and 0 for the others, and has an attribute
    ``has_probabilities = False``.
    """

    name: str

    def fit(self, reference: AnnData, labels_key: str, donor_key: str | None = None) -> Self:
        """Train on the labelled cells of a reference, ``(n_cells, n_genes)``."""

    def predict_proba(self, query: AnnData) -> pd.DataFrame:
        """Return ``(n_cells, n_labels)``, rows named by cell, columns by label.

        The label of a cell is the column with the largest value.
        """
