"""Model that denoises and completes counts of cells with a bulk prior."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField, NumericalObsField

from scvi_sctab._config import IMPUTER
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._messages import list_near_names, warn
from scvi_sctab.base import document_cells, setup_arguments
from scvi_sctab.data import (
    NamedObsField,
    check_anndata,
    check_cells,
    check_genes,
    check_key,
    check_keywords,
    get_column,
    refuse_view,
)
from scvi_sctab.external.scdtl._bulk import (
    BulkProfiles,
    bulk_profiles,
    check_not_bulk,
    names_of_genes,
)
from scvi_sctab.external.scdtl._imputer_training import ImputerTraining, read_size_factors
from scvi_sctab.external.scdtl._module import BulkPriorModule
from scvi_sctab.external.scdtl._registered_bulk import BulkMixin
from scvi_sctab.nn import single_precision

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

Genes = Literal["union", "sc"]
BulkUseOption = Literal["auto", "full", "level", "none"]
Method = Literal["auto", "factor", "autoencoder"]
Observed = Literal["posterior", "prior", "keep"]


class BulkPriorImputer(BulkMixin, ImputerTraining):
    """Denoise and complete single-cell counts with bulk RNA-seq as a prior.

    Bulk says two things of a gene: its mean expression, and how it differs between samples. The
    model takes the first as the prior of its level and the second as the prior of its loadings; the
    cells decide how far either holds. The idea to transfer from bulk is that of :cite:t:`Zhao24`;
    the model is another one. Held-out molecules of the cells tell what bulk gains, see
    :meth:`get_bulk_gain`.

    Parameters
    ----------
    adata
        Cells registered by :meth:`setup_anndata`.
    bulk
        Samples registered by :meth:`setup_bulk_anndata`, of the same types or lines. Needed only
        here: what the model keeps of them is saved with it. Without bulk, the model denoises only.
    n_latent
        Dimension of the embedding of the autoencoder.
    n_bulk_factors
        Largest number of contrasts between samples; ``"auto"`` is one less than there are samples,
        40 at most.
    genes
        ``"union"``: genes that only bulk has are completed; ``"sc"``: they are not.
    bulk_use
        ``"full"``: level and contrasts, ``"level"``: level only, ``"none"``; ``"auto"``: what is
        best for molecules that are held out.
    method
        ``"factor"``: Poisson factors, fitted by expectation maximisation; ``"autoencoder"``:
        a thinning-denoising autoencoder; ``"auto"``: what is best for molecules that are held out.
    registry
        Registry of a saved model, in place of ``adata``.

    Raises
    ------
    ValueError
        If an option does not exist or needs bulk that is not given, cells or bulk are not set up
        or exchanged, or have too few genes in common.

    Warns
    -----
    UserWarning
        If all bulk samples have the same profile, so that only the level of genes is used.

    Examples
    --------
    >>> from scvi_sctab.external import BulkPriorImputer
    >>> BulkPriorImputer.setup_anndata(cells)  # doctest: +SKIP
    >>> BulkPriorImputer.setup_bulk_anndata(bulk, layer="tpm")  # doctest: +SKIP
    >>> model = BulkPriorImputer(cells, bulk)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> model.get_bulk_gain()  # doctest: +SKIP
    >>> imputed = model.get_imputed_values()  # doctest: +SKIP
    """

    _module_cls = BulkPriorModule

    @single_precision()
    def __init__(
        self,
        adata: AnnData | None = None,
        bulk: AnnData | None = None,
        *,
        n_latent: int = IMPUTER.n_latent,
        n_bulk_factors: int | Literal["auto"] = "auto",
        genes: Genes = "union",
        bulk_use: BulkUseOption = "auto",
        method: Method = "auto",
        registry: dict[str, Any] | None = None,
    ):
        _require_option("genes", genes, Genes)
        _require_option("bulk_use", bulk_use, BulkUseOption)
        _require_option("method", method, Method)
        if n_latent < 1:
            raise ValueError(f"{n_latent=}: give the embedding one dimension at least.")
        if n_bulk_factors != "auto" and n_bulk_factors < 0:
            raise ValueError(f"{n_bulk_factors=}: give a number of contrasts, or 'auto'.")
        # A saved model holds what it needs of bulk.
        if bulk is None and registry is None:
            for name, value, without in (
                ("bulk_use", bulk_use, ("auto", "none")),
                ("n_bulk_factors", n_bulk_factors, ("auto", 0)),
            ):
                if value not in without:
                    raise ValueError(
                        f"{name}={value!r} needs bulk: `{type(self).__name__}(adata, bulk)`, set "
                        "up by `setup_bulk_anndata`."
                    )
        self._refuse_bulk(adata)
        super().__init__(adata, registry)
        self._bulk: BulkProfiles | None = None
        if bulk is not None:
            limit = IMPUTER.max_contrasts if n_bulk_factors == "auto" else n_bulk_factors
            self._bulk = self._read_bulk(bulk, limit)
            uses_contrasts = bulk_use in ("auto", "full")
            n_bulk_factors = self._bulk.contrasts.shape[1] if uses_contrasts else 0
        elif n_bulk_factors == "auto":
            n_bulk_factors = 0
        # Record resolved values, so that later defaults do not change a saved model. Bulk is saved
        # as an attribute.
        self.init_params_ = self._get_init_params(
            {k: v for k, v in locals().items() if k != "bulk"}
        )
        self.module = BulkPriorModule(
            len(self.gene_names),
            int(n_bulk_factors),
            sum(len(condition.categories) for condition in self.conditions),
            n_latent=n_latent,
        )
        self._summarize_as(
            f"{type(self).__name__}: {len(self.gene_names):,} genes, {n_bulk_factors} contrasts of "
            f"bulk, method {method!r}, use of bulk {bulk_use!r}"
        )

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Check cells and register their counts.

        Parameters
        ----------
        adata
            Raw counts of molecules (UMI), ``(n_cells, n_genes)``; dense, CSR or CSC, in memory or
            backed. Training reads them into memory.
        layer
            Layer with the counts; ``None`` is ``adata.X``.
        batch_key
            Column of batches, whose genes may be seen more or less well.
        size_factor_key
            Column of size factors, by which values with ``library_size="observed"`` are scaled.
        **kwargs
            Passed to :meth:`~scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If there is no such column or layer.
        TypeError
            If there is no such argument.
        ValueError
            If counts are not raw, cells are empty or have as many counts as bulk samples, genes
            are duplicated or too few, or a size factor is not positive.
        """
        arguments = setup_arguments(locals())
        check_keywords(cls.__name__, kwargs, arguments)
        check_key(batch_key, "batch_key")
        check_key(size_factor_key, "size_factor_key")
        refuse_view(check_anndata(adata))
        if "source_registry" not in kwargs:
            check_genes(adata.var_names)
            check_cells(adata, layer)
            check_not_bulk(adata, layer, cls.__name__)
        if batch_key is not None:
            get_column(adata.obs, batch_key, "batch_key")
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
            NamedObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        ]
        if size_factor_key is not None:
            read_size_factors(adata.obs, size_factor_key)
            fields.append(NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key))
        cls._register(adata, fields, arguments, **kwargs)

    def _read_bulk(self, bulk: AnnData, max_contrasts: int) -> BulkProfiles:
        """Compute the profiles of bulk, and compare its genes with those of the cells."""
        values = self._bulk_values(bulk)
        profiles = bulk_profiles(
            values, bulk.var_names, bulk.obs_names, self.gene_names, max_contrasts
        )
        if not profiles.contrasts.shape[1] and max_contrasts:
            warn(
                "Bulk has a single profile: it gives the level of genes, but no contrasts between "
                "samples. Two different samples at least are needed for these."
            )
        return profiles

    @document_cells
    def get_imputed_values(
        self,
        adata: AnnData | None = None,
        genes: Sequence[str] | None = None,
        library_size: float | Literal["observed"] = IMPUTER.library_size,
        observed: Observed = "posterior",
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Impute the expression of cells.

        Genes of the training cells that a query lacks are predicted from its others, and do not
        count as zeros. Values of genes that only bulk has are read off bulk: they differ between
        types, hardly between the cells of a type, and a wrong bulk is not noticed there. Values are
        posterior means: tests of differential expression on them are circular.

        Parameters
        ----------
        adata
            As in :meth:`get_latent_representation`.
        genes
            Genes to return, of :meth:`get_gene_source`; all if not given. Ensembl versions are
            ignored.
        library_size
            Sum of the genes of the cells; ``"observed"`` is the number of counts of the cell, or
            its size factor if there is one.
        observed
            ``"posterior"``: prediction and count of the cell, combined by their precision;
            ``"prior"``: prediction only; ``"keep"``: the normalised count where it is not 0; rows
            then sum to more than ``library_size``.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        ``(n_cells, n_genes)``, rows named by cell, columns by gene: first the genes of the cells.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError
            If a gene is unknown.
        ValueError
            If counts are not raw, the gene overlap is too small, or an option does not exist.
        """
        _require_option("observed", observed, Observed)
        if not isinstance(library_size, str) or library_size != "observed":
            _require_positive(library_size, ", or 'observed'")
        cells = self._select(adata, indices, layer, min_gene_overlap)
        columns = self._find_genes(genes)
        return self._impute(cells, columns, library_size, observed, batch_size)

    @document_cells
    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        library_size: float = 1.0,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Predict the expression of the genes of the cells, without the effect of batches.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        library_size
            Sum over the genes of a cell.

        Returns
        -------
        ``(n_cells, n_genes)``, rows named by cell, columns by gene.

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`get_imputed_values`.
        """
        _require_positive(library_size)
        cells = self._select(adata, indices, layer, min_gene_overlap)
        columns = np.arange(len(self.gene_names))
        return self._impute(cells, columns, library_size, "prior", batch_size, with_batch=False)

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
        """Embed cells: weights of factors, which sum to 1, or the embedding of the autoencoder.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`scvi_sctab.SCTAB.predict`.

        Returns
        -------
        ``(n_cells, n_latent)``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If counts are not raw, or the gene overlap is too small.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        parts = [part.latent for part in self._describe(cells, batch_size)]
        n_latent = len(self._fit.concentration)
        if self._fit.method == "autoencoder":
            n_latent = self.module.embedding.out_features
        return np.concatenate([np.zeros((0, n_latent)), *parts]).astype(np.float32)

    @document_cells
    def get_bulk_weights(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Describe cells by the bulk samples whose contrasts their expression follows.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        ``(n_cells, n_samples)``, rows named by cell, columns by sample. Rows sum to 0; a cell like
        one of S samples has ``1 - 1/S`` there and ``-1/S`` elsewhere.

        Raises
        ------
        RuntimeError
            If the model is not trained, or does not use contrasts of bulk.
        ValueError
            As :meth:`get_latent_representation`.
        """
        self._require_trained()
        if self._bulk is None or self._fit.use != "full":
            raise RuntimeError(
                f"The model does not use contrasts of bulk, its use is {self._fit.use!r}: give "
                "bulk, and train with `bulk_use='full'`."
            )
        cells = self._select(adata, indices, layer, min_gene_overlap)
        parts = [part.coefficients for part in self._describe(cells, batch_size)]
        rotation = self._bulk.rotation
        weights = np.concatenate([np.zeros((0, rotation.shape[1])), *parts]) @ rotation.T
        return pd.DataFrame(weights, cells.names, self._bulk.samples)

    def get_bulk_gain(self) -> pd.DataFrame:
        """Return what bulk gained on held-out molecules of the training cells.

        It was measured before the final training, with the factor model, on a share of the
        molecules; it says what bulk gains on other molecules of such cells, but nothing on genes
        that the cells lack.

        Returns
        -------
        A row per pair of uses of bulk, ``use`` and ``over``, and third of ``genes`` by expression:
        ``gain`` and its standard error over cells ``se``, in thousandths of a nat per molecule
        (mnats), and ``n_molecules``. Uses are ``"none"``, ``"level"``, ``"full"``, and
        ``"shuffled"``, the contrasts of other genes; ``"gene mean"`` is the same mean in all cells.

        Raises
        ------
        RuntimeError
            If the model is not trained, has no bulk, or was trained with ``compare_bulk=False``.
        """
        self._require_trained()
        if self._gain is None:
            raise RuntimeError(
                "Bulk was not compared: give the model `bulk`, and train it with "
                "`compare_bulk=True`."
            )
        return self._gain.copy()

    def get_gene_source(self) -> pd.Series:
        """Return where the values of each gene are from.

        Returns
        -------
        ``"observed"`` for genes of the cells, ``"bulk only"`` for genes that only bulk has, by
        gene, in the order of :meth:`get_imputed_values`.
        """
        n_observed, others = len(self.gene_names), self.other_genes
        source = np.repeat(["observed", "bulk only"], [n_observed, len(others)])
        return pd.Series(source, [*self.gene_names, *others], name="source")

    def _find_genes(self, genes: Sequence[str] | None) -> NDArray[np.intp]:
        """Look up the positions of genes among those of :meth:`get_gene_source`."""
        known = self.get_gene_source().index
        if genes is None:
            return np.arange(len(known))
        genes = names_of_genes(genes)
        positions = known.get_indexer(genes)
        if (positions < 0).any():
            unknown = [
                gene for gene, position in zip(genes, positions, strict=True) if position < 0
            ]
            raise KeyError(
                f"Neither cells nor bulk have the genes {list_near_names(unknown, known)}. "
                "`model.get_gene_source()` lists those that can be imputed."
            )
        return np.asarray(positions)


def _require_option(name: str, value: object, options: Any) -> None:
    if value not in get_args(options):
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, get_args(options)))}.")


def _require_positive(library_size: object, alternative: str = "") -> None:
    if not (isinstance(library_size, Real) and 0 < float(library_size) < np.inf):
        raise ValueError(f"{library_size=}: give a positive number{alternative}.")
