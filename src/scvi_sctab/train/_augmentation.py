"""Augmentation of cells by differences between donors, and by random depths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from scvi_sctab.nn import augment, thin_to_depths
from scvi_sctab.sparse import CSR

if TYPE_CHECKING:
    from scvi_sctab._config import DepthConfig

    Cells = Tensor | CSR


class DonorDifferences(nn.Module):
    """Augmentation of cells by differences between donors, see :func:`~scvi_sctab.nn.augment`.

    Parameters
    ----------
    vectors
        Differences of log-normalised expression, ``(n_vectors, n_genes)``.

    Notes
    -----
    - input and output: log-normalised expression, ``(n_cells, n_genes)``.
    """

    indptr: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, vectors: CSR):
        super().__init__()
        # As three buffers, since torch can neither copy nor broadcast a sparse one.
        for name in ("indptr", "columns", "values"):
            self.register_buffer(name, getattr(vectors, name), persistent=False)
        self.n_genes = vectors.n_columns
        self._dense: Tensor | None = None

    def _apply(self, *args: Any, **kwargs: Any) -> DonorDifferences:
        """Move to another device, where dense differences, up to 400 MB, are made when needed.

        The trainer moves a plan back to the CPU at its end; the model keeps the plan.
        """
        self._dense = None
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Cells) -> Cells:
        """Add or subtract a random difference for each cell."""
        return augment(x, vectors=self._vectors())

    def _vectors(self) -> Cells:
        """Return the differences, sparse on the CPU and dense on other devices, as cells are."""
        vectors = CSR(self.indptr, self.columns, self.values, self.n_genes)
        if self.values.device.type == "cpu":
            return vectors
        if self._dense is None:
            self._dense = vectors.to_dense()
        return self._dense


class RandomDepths(nn.Module):
    """Thinning of a share of cells to random depths, see :func:`~scvi_sctab.nn.thin_to_depths`.

    Parameters
    ----------
    config
        Depths and share.

    Notes
    -----
    - input and output: raw counts, ``(n_cells, n_genes)``.
    """

    def __init__(self, config: DepthConfig):
        super().__init__()
        self.config = config

    def forward(self, counts: Tensor) -> Tensor:
        """Thin cells; others each time."""
        return thin_to_depths(counts, self.config.depths, self.config.share)
