"""The architecture of scDTL: bulk autoencoder, adaptation, U-Net and attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from scvi_sctab._config import SCDTL_NETWORK, SCDTL_PLAN, SCDTL_TRAIN
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._messages import list_names, list_near_names
from scvi_sctab.base import UnlabeledModel, document_cells, draw_cells, seed, setup_arguments
from scvi_sctab.data import (
    check_anndata,
    check_cells,
    check_genes,
    check_keywords,
    read_counts,
    refuse_view,
    strip_versions,
)
from scvi_sctab.external.scdtl._bulk import check_not_bulk, names_of_genes
from scvi_sctab.external.scdtl._registered_bulk import BulkMixin
from scvi_sctab.external.scdtl._scdtl_module import ScDTLModule
from scvi_sctab.external.scdtl._scdtl_start import positions_in_order, summarize
from scvi_sctab.nn import single_precision

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

# Cells from which the order of genes is estimated.
_N_ORDERED = 1000
_BATCH_SIZE = 128


class ScDTL(BulkMixin, UnlabeledModel):
    """Denoise single cells with the architecture of scDTL :cite:p:`Zhao24`.

    An autoencoder of bulk learns to denoise; an encoder of cells is adapted to it by the maximum
    mean discrepancy; a U-Net over genes denoises each cell on its own, in parallel; and attention
    fuses both channels. Training needs neither labels nor true counts: molecules of the observed
    counts are hidden, and the loss is on these. The differences to the released code are listed in
    the module and its parts.

    Use :class:`~scvi_sctab.external.BulkPriorImputer` to denoise, and this class to compare: on
    held-out molecules of 100 cells of cell lines with bulk of the same lines it gained 10
    thousandths of a nat per molecule over factors without bulk, and those with bulk gained 25, in a
    fraction of the time (3 seeds, ``benchmarks/imputation.py``).

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`.
    bulk
        AnnData registered by :meth:`setup_bulk_anndata`, with two samples at least. Genes are
        matched by name; those of one side only are left out. It is not saved with the model, which
        does not need it to predict.
    genes
        Genes of the model; those that cells and bulk share if not given. Ensembl versions are
        ignored.
    gene_order
        Names of genes in the order of the convolution, such as that on chromosomes; an order in
        which neighbours are correlated in bulk and cells if not given.
    n_latent, n_hidden
        Width of the code, and of the hidden layers.
    mmd_weight
        Weight of the maximum mean discrepancy; without it, bulk and cells share the decoder only.
    registry
        Registry of a saved model, in place of ``adata``.

    Raises
    ------
    ValueError
        If bulk and cells share no genes, bulk has fewer than two samples, ``gene_order`` lacks
        genes, or a size is not positive.

    Examples
    --------
    >>> from scvi_sctab.external import ScDTL
    >>> ScDTL.setup_anndata(cells)  # doctest: +SKIP
    >>> ScDTL.setup_bulk_anndata(bulk)  # doctest: +SKIP
    >>> model = ScDTL(cells, bulk)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> imputed = model.get_imputed_values()  # doctest: +SKIP
    """

    _module_cls = ScDTLModule
    _plan_config = SCDTL_PLAN
    _train_config = SCDTL_TRAIN

    @single_precision()
    def __init__(
        self,
        adata: AnnData | None = None,
        bulk: AnnData | None = None,
        *,
        genes: Sequence[str] | None = None,
        gene_order: Sequence[str] | None = None,
        n_latent: int = SCDTL_NETWORK.n_latent,
        n_hidden: int = SCDTL_NETWORK.n_hidden,
        mmd_weight: float = SCDTL_NETWORK.mmd_weight,
        registry: dict[str, Any] | None = None,
    ):
        self._refuse_bulk(adata)
        super().__init__(adata, registry)
        if min(n_latent, n_hidden) < 1 or not mmd_weight >= 0:
            raise ValueError(
                f"{n_latent=}, {n_hidden=}, {mmd_weight=}: give at least one unit per layer, and a "
                "weight of at least 0."
            )
        profiles = None if bulk is None else self._read_bulk(bulk)
        genes = self._choose_genes(profiles, genes)
        if gene_order is not None:
            gene_order = names_of_genes(gene_order)
            positions_in_order(np.array(genes, dtype=str), gene_order)
        # Bulk is not an argument of a saved model.
        self.init_params_ = self._get_init_params(
            {name: value for name, value in locals().items() if name != "bulk"}
        )
        config = replace(
            SCDTL_NETWORK, n_latent=n_latent, n_hidden=n_hidden, mmd_weight=mmd_weight
        )
        place = pd.Index(self.gene_names).get_indexer(genes)
        self.module = ScDTLModule(torch.from_numpy(place), config)
        self._gene_order = gene_order
        self._shares = None if profiles is None else _shares(profiles, genes)
        self._genes = np.array(genes, dtype=str)
        self._summarize_as(
            f"{type(self).__name__}: {len(genes):,} genes of cells and bulk, latent of {n_latent}, "
            f"{sum(p.numel() for p in self.module.parameters()):,} parameters"
        )

    @classmethod
    def setup_anndata(cls, adata: AnnData, layer: str | None = None, **kwargs: Any) -> None:
        """Check cells and register their counts.

        Parameters
        ----------
        adata
            Raw counts, ``(n_cells, n_genes)``; dense, CSR or CSC, in memory or backed.
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
            If counts are not raw, cells are empty or have as many counts as bulk samples, or genes
            are duplicated or too few.
        """
        arguments = setup_arguments(locals())
        check_keywords(cls.__name__, kwargs, arguments)
        refuse_view(check_anndata(adata))
        if "source_registry" not in kwargs:
            check_genes(adata.var_names)
            check_cells(adata, layer)
            check_not_bulk(adata, layer, cls.__name__)
        cls._register(adata, cls._fields(layer), arguments, **kwargs)

    def _read_bulk(self, bulk: AnnData) -> pd.DataFrame:
        """Read the expression of bulk samples, ``(n_samples, n_genes)``, with names of genes."""
        values = self._bulk_values(bulk)
        profiles = pd.DataFrame(values, bulk.obs_names, strip_versions(bulk.var_names))
        shares = profiles.div(profiles.sum(axis=1), axis=0).to_numpy()
        if np.allclose(shares, shares[0]):
            raise ValueError(
                f"Bulk has {len(shares)} samples with the same profile: scDTL learns differences "
                "between two samples at least. `BulkPriorImputer(adata, bulk)` uses the level."
            )
        return profiles

    def _choose_genes(
        self, profiles: pd.DataFrame | None, genes: Sequence[str] | None
    ) -> list[str]:
        """Return the genes of the model, in the order of the cells."""
        if genes is None and profiles is None:
            raise ValueError("Give bulk: `ScDTL(adata, bulk)`, set up by `setup_bulk_anndata`.")
        known = set(self.gene_names.tolist())
        if profiles is not None:
            known &= set(profiles.columns)
        chosen = known if genes is None else set(names_of_genes(genes))
        if missing := sorted(chosen - known):
            raise ValueError(
                f"`genes` has {list_names(missing)}, which cells and bulk do not both have. Leave "
                "them out, or leave out `genes` for all in common."
            )
        return [gene for gene in self.gene_names.tolist() if gene in chosen]

    @property
    def imputed_genes(self) -> NDArray[np.str_]:
        """Genes of the model, in the order of the columns of :meth:`get_imputed_values`."""
        return self._genes

    def _check_arguments(self, *arguments: Any, **named: Any) -> None:
        super()._check_arguments(*arguments, **named)
        if self._shares is None:
            raise ValueError(
                "The bulk is not saved with a model, which needs it to train: build a new one, "
                "`ScDTL(adata, bulk)`, and train that."
            )

    def _start(self, cells: NDArray[np.intp]) -> None:
        """Estimate levels, order genes and train on bulk, before the first training."""
        assert self._shares is not None  # `_check_arguments`
        if self.is_trained_:
            return
        place = self.module.positions.cpu().numpy()
        drawn = draw_cells(cells, _N_ORDERED)
        counts = next(read_counts(self.adata, self.layer, drawn, block_size=len(drawn)))
        totals = np.zeros(len(self.gene_names))
        for block in read_counts(self.adata, self.layer, cells):
            totals += np.asarray(block.sum(axis=0)).ravel()
        order = self._gene_order
        place_in_order = None if order is None else positions_in_order(self._genes, order)
        dense = np.asarray(counts[:, place].toarray(), dtype=np.float32)
        self.module.start_from(summarize(dense, totals[place], self._shares, place_in_order))
        # Lightning moves the module to its device later; bulk is small.
        generator = torch.Generator(self.module.device).manual_seed(seed())
        self.module.train()
        self.module.train_on_bulk(generator)

    @document_cells
    def get_imputed_values(
        self,
        adata: AnnData | None = None,
        genes: Sequence[str] | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        library_size: float | Literal["observed"] = 1e4,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Impute counts.

        Genes of the model that a query lacks are predicted from its others, and do not count as
        zeros.

        Parameters
        ----------
        adata
            Cells with raw counts; the cells that the model was set up with if not given.
        genes
            Genes to return; those of the model, :attr:`imputed_genes`, if not given. Ensembl
            versions are ignored.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        library_size
            Sum of the values of a cell over the genes of the model; ``"observed"`` is the sum of
            its counts over these genes.

        Returns
        -------
        Expected counts, ``(n_cells, n_genes)``, rows named by cell, columns by gene.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError
            If a gene is not one of the model.
        ValueError
            If counts are not raw, the gene overlap is too small, or ``library_size`` is not
            positive.
        """
        self._require_trained()
        observed = library_size == "observed"
        if not observed and not (isinstance(library_size, int | float) and library_size > 0):
            raise ValueError(f"{library_size=} is neither positive nor 'observed'.")
        columns = self._columns_of(genes)
        cells = self._select(adata, indices, layer, min_gene_overlap)

        def impute(tensors: dict[str, Tensor]) -> NDArray[np.float32]:
            shares = self.module.predict(tensors)
            size = self.module.library_of(tensors, shares) if observed else library_size
            return (shares * size)[:, columns].cpu().numpy()

        values = self._stack(impute, len(columns), cells, _batch_size(batch_size))
        return pd.DataFrame(values, cells.names, pd.Index(self._genes[columns.numpy()]))

    @document_cells
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.float32]:
        """Embed cells by the encoder that was adapted to them.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`scvi_sctab.SCTAB.predict`.

        Returns
        -------
        ``(n_cells, n_latent)``.

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`get_imputed_values`.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        return self._stack(
            lambda tensors: self.module.embed(tensors).cpu().numpy(),
            self.module.config.n_latent,
            cells,
            _batch_size(batch_size),
        )

    @document_cells
    def get_fusion_weights(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Compute the weights by which attention fuses both channels.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        Means over genes, in (0, 1), a row per cell: ``transferred``, of the decoder that was trained
        on bulk, and ``own``, of the U-Net.

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`get_imputed_values`.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        weights = self._stack(
            lambda tensors: self.module.fusion(tensors).cpu().numpy(),
            2,
            cells,
            _batch_size(batch_size),
        )
        return pd.DataFrame(weights, cells.names, ["transferred", "own"])

    def _columns_of(self, genes: Sequence[str] | None) -> Tensor:
        """Find genes among those of the model."""
        if genes is None:
            return torch.arange(len(self._genes))
        names = names_of_genes(genes)
        columns = pd.Index(self._genes).get_indexer(names)
        if (columns < 0).any():
            missing = [name for name, place in zip(names, columns, strict=True) if place < 0]
            raise KeyError(
                f"The model has no genes {list_near_names(missing, self._genes)}: it has those that "
                "cells and bulk share, `model.imputed_genes`."
            )
        return torch.from_numpy(columns)


def _shares(profiles: pd.DataFrame, genes: Sequence[str]) -> NDArray[np.float64]:
    """Compute the shares of genes in each bulk sample, ``(n_samples, n_genes)``."""
    values = profiles[[*genes]].to_numpy(dtype=np.float64)
    return values / values.sum(axis=1, keepdims=True)


def _batch_size(batch_size: int | None) -> int:
    """Limit cells per minibatch, since the convolutions keep many values per gene."""
    return _BATCH_SIZE if batch_size is None else batch_size
