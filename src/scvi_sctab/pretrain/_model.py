"""Base of the models of this folder: set-up and mapping of queries."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.base import setup_arguments
from scvi_sctab.data import (
    check_anndata,
    check_cells,
    check_genes,
    check_keywords,
    choose_layer,
    query_cells,
    refuse_view,
)
from scvi_sctab.pretrain._neighbors import NeighborsMixin
from scvi_sctab.pretrain._published import PublishedEncoderMixin

if TYPE_CHECKING:
    from anndata import AnnData


class SelfSupervisedModel(NeighborsMixin, PublishedEncoderMixin):
    """An encoder of genes and the pretext that trains it; labels are not needed."""

    @classmethod
    def setup_anndata(cls, adata: AnnData, layer: str | None = None, **kwargs: Any) -> None:
        """Check cells and register their counts.

        Parameters
        ----------
        adata
            Raw counts, ``(n_cells, n_genes)``; dense, CSR or CSC. Labels are not needed.
        layer
            Layer with raw counts; ``None`` is ``adata.X``.
        **kwargs
            Passed to :meth:`~scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If there is no such layer.
        TypeError
            If there is no such argument.
        ValueError
            If counts are not raw, cells are empty, or genes are duplicated or too few.
        """
        arguments = setup_arguments(locals())
        check_keywords(cls.__name__, kwargs, arguments)
        refuse_view(check_anndata(adata))
        if "source_registry" not in kwargs:
            check_genes(adata.var_names)
            check_cells(adata, layer)
        cls._register(adata, cls._fields(layer), arguments, **kwargs)

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData,
        reference_model: Any,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
        allow_pickle: bool = False,
    ) -> Any:
        """Align a query with the genes of a trained model, to train it further on these cells.

        This is not needed to embed a query: ``reference_model`` is not conditioned on batches and
        matches genes by itself.

        Parameters
        ----------
        adata
            The query; it is not changed. Genes are matched by name, missing ones are filled with
            0.
        reference_model
            A trained model of this class, or the directory that one was saved to.
        layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        allow_pickle
            As in :meth:`load`.

        Returns
        -------
        A trained model with the weights of the reference and the cells of the query.

        Raises
        ------
        TypeError
            If the reference is of another class.
        ValueError
            If counts are not raw, or the gene overlap is too small.
        """
        reference = cls._load_reference(reference_model, allow_pickle)
        place = choose_layer(check_anndata(adata), layer, reference.layer)
        query = query_cells(
            adata, place, reference.gene_names, min_gene_overlap, into=reference.layer
        )
        cls.setup_anndata(
            query, source_registry=deepcopy(reference.registry), layer=reference.layer
        )
        model = cls(query, **reference._arguments())
        model.module.load_state_dict(reference.module.state_dict())
        model.to_device(reference.device)
        model.module.eval()
        model.is_trained_ = True
        return model
