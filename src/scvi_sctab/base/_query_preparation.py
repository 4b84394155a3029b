"""Alignment of a query with the genes of a reference, by the verbs of scvi-tools."""

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
    """Alignment of the genes of a query, which :meth:`load_query_data` includes, as a separate step."""

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
        """Align a query with the genes of a reference; :meth:`load_query_data` includes this step.

        Genes are matched by name, without Ensembl versions; missing ones become columns of zeros,
        others are dropped. Sparse counts stay sparse.

        Parameters
        ----------
        adata
            The query.
        reference_model
            A model, or the directory that one was saved to.
        return_reference_var_names
            Whether to only return the genes of the reference.
        inplace
            Whether to change ``adata``, or to return a new one. ``raw`` and ``varm`` are dropped.
        min_gene_overlap
            Gene overlap below which the query is refused.
        allow_pickle
            As in :meth:`load_query_data`.

        Returns
        -------
        The query, unless ``inplace``; or the genes.

        Raises
        ------
        ValueError
            If the gene overlap is too small, or ``adata`` is a view and ``inplace``.

        Warns
        -----
        UserWarning
            If the gene overlap is below 80 %.
        """
        genes = pd.Index(cls._load_reference(reference_model, allow_pickle, "cpu").gene_names)
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
        """Align one modality of a query with the genes of a reference.

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
            If the gene overlap is too small.
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
