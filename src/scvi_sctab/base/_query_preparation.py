"""Bring the genes of a query to those of a reference, as scvi-tools' other models do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._logging import logger
from scvi_sctab.base._checkpoint import CheckpointMixin
from scvi_sctab.data import check_anndata, prepare_query, refuse_view, strip_versions

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


class QueryPreparationMixin(CheckpointMixin):
    """What :meth:`load_query_data` does to genes by itself, as a step of its own."""

    @classmethod
    def prepare_query_anndata(
        cls,
        adata: AnnData,
        reference_model: Any,
        return_reference_var_names: bool = False,
        inplace: bool = True,
        *,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
        allow_pickle: bool = False,
    ) -> AnnData | pd.Index | None:
        """Bring a query to the genes of a reference; :meth:`load_query_data` does so by itself.

        Genes are matched by name, Ensembl versions ignored; those that the query lacks become
        columns of zeros, others are dropped. Nothing is made dense.

        Parameters
        ----------
        adata
            The query.
        reference_model
            A model, or the directory that one was saved to.
        return_reference_var_names
            Whether to return the genes of the reference and do nothing else.
        inplace
            Whether to change ``adata``, or to return a new one. ``raw`` and ``varm`` are dropped.
        min_gene_overlap
            Share of the genes below which the query is refused.
        allow_pickle
            As in :meth:`load_query_data`.

        Returns
        -------
        The query, unless ``inplace``; or the genes.

        Raises
        ------
        ValueError
            If too few of the genes are there, or ``adata`` is a view that is to be changed.

        Warns
        -----
        UserWarning
            If fewer than 80 % of the genes are there.
        """
        genes = pd.Index(cls._load_reference(reference_model, allow_pickle).gene_names)
        if return_reference_var_names:
            return genes
        check_anndata(adata)
        if inplace:
            refuse_view(adata)
        prepared = prepare_query(adata, genes, min_gene_overlap)
        n_found = int(genes.isin(strip_versions(adata.var_names)).sum())
        logger.info(
            f"{n_found:,} of the reference's {len(genes):,} genes are in the query; "
            f"{len(genes) - n_found:,} were filled with 0, {adata.n_vars - n_found:,} of the query's were dropped."
        )
        if not inplace:
            return prepared
        adata._init_as_actual(prepared)
        return None

    @classmethod
    def prepare_query_mudata(
        cls,
        mdata: MuData,
        reference_model: Any,
        return_reference_var_names: bool = False,
        inplace: bool = True,
        *,
        modality: str = "rna",
        allow_pickle: bool = False,
    ) -> MuData | pd.Index | None:
        """Bring one modality of a query to the genes of a reference.

        Parameters
        ----------
        mdata
            The query.
        reference_model, return_reference_var_names, inplace, allow_pickle
            As in :meth:`prepare_query_anndata`.
        modality
            Name of the modality with counts of genes.

        Returns
        -------
        The query, unless ``inplace``; or the genes.

        Raises
        ------
        KeyError
            If there is no such modality.
        ValueError
            If too few of the genes are there.
        """
        if modality not in mdata.mod:
            raise KeyError(f"There is no modality {modality!r}; `mdata` has {list(mdata.mod)}.")
        result = cls.prepare_query_anndata(
            mdata.mod[modality],
            reference_model,
            return_reference_var_names,
            inplace=False,
            allow_pickle=allow_pickle,
        )
        if return_reference_var_names:
            return result
        mdata = mdata if inplace else mdata.copy()
        mdata.mod[modality] = result
        mdata.update()
        return None if inplace else mdata
