"""Set-up of bulk samples for a model of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scvi.data.fields import LayerField

from scvi_sctab.base import BaseModel
from scvi_sctab.data import check_anndata, refuse_view
from scvi_sctab.external.scdtl._bulk import check_common_genes, read_bulk

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

BULK_KEY = "bulk"
"""Registry key of the expression in bulk."""


class BulkMixin(BaseModel):
    """Model of cells that also reads bulk samples."""

    @classmethod
    def setup_bulk_anndata(cls, bulk: AnnData, layer: str | None = None) -> None:
        """Check bulk samples and register their expression.

        Parameters
        ----------
        bulk
            Samples in rows, genes in columns, named as in the cells: counts, CPM or TPM. The scale
            of a sample has no effect. Means over the cells of a type are bulk, too, but of *other*
            cells: those of the cells to impute hold the molecules that are held out.
        layer
            Layer with the expression; ``None`` is ``bulk.X``.

        Raises
        ------
        KeyError
            If there is no such layer.
        ValueError
            If values are missing, infinite, negative, logarithms or all equal, a sample is empty,
            genes are duplicated, or the samples look like single cells.
        """
        refuse_view(check_anndata(bulk, "bulk"))
        read_bulk(bulk, layer)
        cls._register(bulk, [LayerField(BULK_KEY, layer, is_count_data=False)], {"layer": layer})

    @classmethod
    def _is_bulk(cls, adata: AnnData) -> bool:
        return cls._has_set_up(adata) and BULK_KEY in cls._registry_of(adata)["field_registries"]

    @classmethod
    def _refuse_bulk(cls, adata: AnnData | None) -> None:
        """Raise an error if cells were set up as bulk."""
        if adata is not None and cls._is_bulk(check_anndata(adata)):
            raise ValueError(
                "`adata` was set up as bulk. Were cells and bulk swapped? "
                f"`{cls.__name__}(adata, bulk)`."
            )

    def _bulk_values(self, bulk: AnnData) -> NDArray[np.float64]:
        """Read bulk that was set up, ``(n_samples, n_genes)``, and compare its genes with ours."""
        name = type(self).__name__
        if not self._has_set_up(check_anndata(bulk, "bulk")):
            raise ValueError(
                f"`bulk` is not set up: `{name}.setup_bulk_anndata(bulk, layer=...)`."
            )
        if not self._is_bulk(bulk):
            raise ValueError(
                f"`bulk` was set up as cells. Were cells and bulk swapped? `{name}(adata, bulk)`; "
                "bulk is set up by `setup_bulk_anndata`."
            )
        check_common_genes(self.gene_names, self.adata, bulk)
        return read_bulk(bulk, self._registry_of(bulk)["setup_args"]["layer"])
