"""Interface between the verbs of a model and its networks, one or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from scvi_sctab._constants import MIN_GENE_OVERLAP

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.annotation import AnnotationState
    from scvi_sctab.base import CellReader
    from scvi_sctab.data import CellSelection, TrainingRecord
    from scvi_sctab.metrics import CellLogits
    from scvi_sctab.module import CellTypeClassifier

T = TypeVar("T")


class CellClassifier:
    """Interface between verbs and networks.

    :class:`~scvi_sctab.SCTAB` and :class:`~scvi_sctab.SCTABEnsemble` fill it in; the verbs of
    ``CellAnnotator`` and ``CellExplainer`` use nothing else of them.
    """

    if TYPE_CHECKING:

        @property
        def labels(self) -> NDArray[np.str_]: ...

        @property
        def gene_names(self) -> NDArray[np.str_]: ...

        @property
        def registry(self) -> dict[str, Any]: ...

        @property
        def digest(self) -> str: ...

        @property
        def adata(self) -> Any: ...

        @property
        def adata_manager(self) -> Any: ...

        @property
        def train_indices(self) -> NDArray[np.intp] | None: ...

        @property
        def validation_indices(self) -> NDArray[np.intp] | None: ...

        @property
        def is_trained(self) -> bool: ...

        @property
        def training_record(self) -> TrainingRecord | None: ...

        @property
        def networks(self) -> tuple[CellTypeClassifier, ...]: ...

        @property
        def _is_adapted(self) -> bool: ...

        @property
        def annotation(self) -> AnnotationState: ...

        @annotation.setter
        def annotation(self, state: AnnotationState) -> None: ...

    def _require_trained(self) -> None:
        """Stop if the model is not trained."""
        raise NotImplementedError

    def _select(
        self,
        adata: AnnData | None,
        indices: Sequence[int] | NDArray[Any] | None = None,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> CellSelection:
        """Resolve which cells are meant, and where their counts are."""
        raise NotImplementedError

    def _read(self, cells: CellSelection) -> CellReader:
        """Match genes and conditions of cells, ready to be read in batches."""
        raise NotImplementedError

    def _to_logits(self, tensors: dict[str, Tensor]) -> CellLogits:
        """Logits, and reference logits, of a batch of cells."""
        raise NotImplementedError

    def _latent(self, cells: CellSelection, batch_size: int | None = None) -> NDArray[np.float32]:
        """Embed cells."""
        raise NotImplementedError

    def _map_cells(
        self,
        function: Callable[[dict[str, Tensor]], T],
        cells: CellSelection,
        batch_size: int | None = None,
    ) -> Iterator[T]:
        """Apply a function to batches of cells."""
        return self._read(cells).map(function, batch_size)

    def _logits_of(
        self, cells: CellSelection, batch_size: int | None = None
    ) -> Iterator[CellLogits]:
        """Yield logits of cells, a batch at a time."""
        return self._map_cells(self._to_logits, cells, batch_size)
