"""Protocols between packages: encoders and cell-type predictors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse
    from torch import Tensor
    from torch.nn import Parameter

    from scvi_sctab.nn import EncoderOutput, GeneLinear
    from scvi_sctab.sparse import CSR

    Names = Sequence[str] | NDArray[np.str_] | NDArray[np.object_]
    """Names of genes, cells or labels."""

T = TypeVar("T")


class Encoder(Protocol):
    """Encoder of log-normalised expression; a :class:`torch.nn.Module`."""

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

        The ``condition``, an embedding of batch and covariates, is added to the first hidden
        layer.
        """


class Network(Protocol):
    """Classifier of cells; a :class:`torch.nn.Module`."""

    encoder: Encoder
    linear_skip: GeneLinear | None

    @property
    def reads_genes(self) -> bool:
        """Whether it reads genes, rather than a latent space."""

    @property
    def is_imported(self) -> bool:
        """Whether the weights are another package's."""

    def condition(self, conditions: Tensor | None) -> Tensor | None:
        """Embed codes of batch and covariates."""

    def generative(
        self, x: Tensor | CSR, z: Tensor, conditions: Tensor | None = None
    ) -> dict[str, Any]:
        """Classify embedded cells; ``"logits"`` are among the result."""


class CellBatches(Protocol):
    """Cells that a model is asked about, read a batch at a time."""

    @property
    def n_genes(self) -> int:
        """Number of the model's genes."""

    def __len__(self) -> int:
        """Count the cells."""

    def map(
        self, function: Callable[[dict[str, Tensor]], T], batch_size: int | None = None
    ) -> Iterator[T]:
        """Apply a function to batches of raw counts and codes of conditions."""


class TrainingCells(Protocol):
    """Cells to train on and to hold out: an AnnData, or a store that does not fit into memory."""

    labels: NDArray[np.int64]
    """Codes of labels, ``(n_cells,)``; those of unlabelled cells come after all labels."""
    train_idx: NDArray[np.intp]
    val_idx: NDArray[np.intp]
    test_idx: NDArray[np.intp]

    @property
    def n_val(self) -> int:
        """Number of cells to hold out."""

    @property
    def donors(self) -> NDArray[np.int64] | None:
        """Codes of donors, ``(n_cells,)``, if there are any."""

    def assign(self, cells: NDArray[np.intp], codes: NDArray[np.int64] | int) -> None:
        """Train cells on other labels from now on."""

    def assigned(self) -> NDArray[np.int64]:
        """Return the codes of the labels that are trained on, ``(n_cells,)``."""

    def read(self, cells: NDArray[np.intp]) -> Iterator[sparse.csr_matrix]:
        """Read raw counts of some cells, a block at a time."""

    def train_dataloader(self) -> Any:
        """Load the cells to train on in batches.

        With several processes (``trainer.world_size``), it loads the cells of this one. A training
        can be continued if there are attributes ``order_seed``, which with the epoch determines
        the order of the cells, and ``start``, epoch and number of its batches that are done.
        """

    def val_dataloader(self) -> Any:
        """Load the cells to hold out in batches."""


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
