"""Model that predicts surface proteins from RNA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS

from scvi_sctab._config import (
    PROTEIN_FIELDS,
    PROTEIN_HIDDEN,
    PROTEIN_PLAN,
    PROTEIN_TRAIN,
    SELF_SUPERVISED_NETWORK,
    override,
)
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.base import (
    EncoderModel,
    bring_to_encoder,
    document_cells,
    draw_cells,
    network_of_encoder,
    setup_arguments,
    start_from_encoder,
)
from scvi_sctab.data import (
    NamedObsField,
    check_anndata,
    check_cells,
    check_genes,
    check_key,
    check_keywords,
    get_column,
    get_proteins,
    normalized_expression,
    refuse_view,
)
from scvi_sctab.external.protein._field import ProteinField, require_shared
from scvi_sctab.external.protein._module import ProteinModule
from scvi_sctab.external.protein._plan import ProteinTrainingPlan
from scvi_sctab.external.protein._scores import score_columns
from scvi_sctab.module import build_encoder
from scvi_sctab.nn import single_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab._types import HasEncoder
    from scvi_sctab.data import CellSelection, UnlabeledDataSplitter


class ProteinPredictor(EncoderModel):
    """Predict surface proteins from RNA, as :cite:t:`Richter24` do with CITE-seq.

    It learns standardised log counts of proteins from cells with both; proteins may be missing in
    some cells. A network on an encoder of genes, which may be pretrained, and a linear path beside
    it are trained with separate losses; the prediction is the mean of both.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`.
    n_hidden
        Width of the hidden layer between embedding and proteins.
    registry
        Registry of a saved model, in place of ``adata``.
    **overrides
        Hyperparameters of :class:`~scvi_sctab.SCTAB`: those of the encoder, ``freeze_encoder``,
        ``linear_skip`` and ``batch_dropout``.

    Raises
    ------
    TypeError
        If a hyperparameter does not exist, or has no effect here.
    ValueError
        If a width is not positive.

    Examples
    --------
    >>> from scvi_sctab.external import ProteinPredictor
    >>> ProteinPredictor.setup_anndata(cells, "protein_expression")  # doctest: +SKIP
    >>> model = ProteinPredictor(cells)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> query.obsm["protein"] = model.predict_protein(query)  # doctest: +SKIP
    """

    _module_cls = ProteinModule
    _training_plan_cls = ProteinTrainingPlan
    _plan_config = PROTEIN_PLAN
    _train_config = PROTEIN_TRAIN

    @single_precision()
    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        n_hidden: int = PROTEIN_HIDDEN,
        registry: dict[str, Any] | None = None,
        **overrides: Any,
    ):
        super().__init__(adata, registry)
        config = override(
            SELF_SUPERVISED_NETWORK, overrides, type(self).__name__, names=PROTEIN_FIELDS
        )
        if n_hidden < 1:
            raise ValueError(f"{n_hidden=}: give the hidden layer one unit at least.")
        # Record resolved values, so that later defaults do not change a saved model.
        overrides = config.to_kwargs()
        self.init_params_ = self._get_init_params(locals())
        self._network = config
        n_genes, n_proteins = len(self.gene_names), len(self.protein_names)
        self.module = ProteinModule(
            build_encoder(n_genes, config),
            n_genes,
            n_proteins,
            n_hidden=n_hidden,
            n_categories=[len(condition.categories) for condition in self.conditions],
            batch_dropout=config.batch_dropout,
            freeze_encoder=config.freeze_encoder,
            linear_path=config.linear_skip,
        )
        self._summarize_as(
            f"{type(self).__name__}: {config.encoder}, {n_genes:,} genes, {n_proteins:,} proteins, "
            f"{sum(p.numel() for p in self.module.parameters()):,} parameters"
        )

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        protein_expression_obsm_key: str,
        protein_names_uns_key: str | None = None,
        batch_key: str | None = None,
        layer: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Check cells and register their counts; the arguments are those of TOTALVI.

        Parameters
        ----------
        adata
            Raw counts of genes, ``(n_cells, n_genes)``; dense, CSR or CSC. A MuData is converted
            by :func:`scvi_sctab.data.join_proteins`.
        protein_expression_obsm_key
            Key of ``adata.obsm`` with counts of proteins, ``(n_cells, n_proteins)``. Missing
            measurements are NaN; 0 counts as measured, even if a batch has only zeros.
        protein_names_uns_key
            Key of ``adata.uns`` with the names of proteins; the columns of the data frame, or
            numbers, if not given.
        batch_key
            Column of batches, which shift the log counts of proteins.
        layer
            Layer with counts of genes; ``None`` is ``adata.X``.
        **kwargs
            Passed to :meth:`~scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If there is no such key, column or layer.
        TypeError
            If there is no such argument, or ``batch_key`` is not the name of a column.
        ValueError
            If counts of genes are not raw, cells are empty, genes are duplicated or too few, or
            proteins are negative, infinite or missing in all cells.
        """
        arguments = setup_arguments(locals())
        check_keywords(cls.__name__, kwargs, arguments)
        check_key(batch_key, "batch_key")
        refuse_view(check_anndata(adata))
        if "source_registry" not in kwargs:
            check_genes(adata.var_names)
            check_cells(adata, layer)
        if batch_key is not None:
            get_column(adata.obs, batch_key, "batch_key")
        fields = [
            *cls._fields(layer),
            NamedObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            ProteinField(protein_expression_obsm_key, protein_names_uns_key),
        ]
        cls._register(adata, fields, arguments, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        model: HasEncoder,
        adata: AnnData,
        protein_expression_obsm_key: str,
        protein_names_uns_key: str | None = None,
        batch_key: str | None = None,
        freeze_encoder: bool = False,
        **overrides: Any,
    ) -> ProteinPredictor:
        """Build a model on the encoder of a trained one; ``model`` is not changed.

        Parameters
        ----------
        model
            A trained model of :mod:`scvi_sctab.pretrain`, or another with a method
            ``pretrained_encoder``.
        adata
            Cells with proteins, with counts in the same layer. Genes are matched by name.
        protein_expression_obsm_key, protein_names_uns_key, batch_key
            As in :meth:`setup_anndata`.
        freeze_encoder
            Whether the encoder is frozen. The embedding of a SELU encoder is standardised over
            ``adata`` once in either case.
        **overrides
            As in the class, except for the shape of the encoder.

        Returns
        -------
        A model to :meth:`train`.

        Raises
        ------
        RuntimeError
            If ``model`` is not trained.
        KeyError, ValueError
            As :meth:`setup_anndata`, or if the gene overlap is too small, or the encoder would
            have another shape.
        """
        encoder = model.pretrained_encoder()
        proteins = get_proteins(adata, protein_expression_obsm_key, protein_names_uns_key)
        cells = bring_to_encoder(encoder, adata)
        cells.obsm[protein_expression_obsm_key] = proteins
        if protein_names_uns_key is not None:
            cells.uns[protein_names_uns_key] = list(proteins.columns)
        cls.setup_anndata(
            cells,
            protein_expression_obsm_key,
            protein_names_uns_key,
            batch_key=batch_key,
            layer=encoder.registry["setup_args"]["layer"],
        )
        network = network_of_encoder(encoder, overrides)
        predictor = cls(cells, **{"freeze_encoder": freeze_encoder, **network})
        start_from_encoder(predictor, encoder)
        return predictor

    @property
    def protein_names(self) -> NDArray[np.str_]:
        """Proteins that the model predicts, in its order."""
        state = self.registry["field_registries"][REGISTRY_KEYS.PROTEIN_EXP_KEY]["state_registry"]
        return np.array([*state["column_names"]], dtype=str)

    def _log_proteins(self, adata: AnnData) -> pd.DataFrame:
        """Compute log counts of the model's proteins, NaN where missing."""
        setup = self.registry["setup_args"]
        keys = setup["protein_expression_obsm_key"], setup["protein_names_uns_key"]
        proteins = get_proteins(adata, *keys)
        require_shared([*proteins.columns], [*self.protein_names], keys[0])
        return np.log1p(proteins.reindex(columns=self.protein_names))

    def _splitter(self, **kwargs: Any) -> UnlabeledDataSplitter:
        """Split the cells with at least one measured protein."""
        proteins = self._log_proteins(self.adata).to_numpy()
        measured = np.flatnonzero(~np.isnan(proteins).all(axis=1))
        arrays = {REGISTRY_KEYS.PROTEIN_EXP_KEY: proteins}
        return super()._splitter(among=measured, arrays=arrays, **kwargs)

    def _start(self, cells: NDArray[np.intp]) -> None:
        """Standardise genes and proteins over the training cells, before the first training."""
        if self.is_trained_:
            return
        proteins = self._log_proteins(self.adata).iloc[cells]
        # A protein that was not measured in any of them is predicted as 0.
        moments = proteins.mean().fillna(0), proteins.std(ddof=0).replace(0, 1).fillna(1)
        x = normalized_expression(self.adata, self.layer, indices=draw_cells(cells))
        mean = np.asarray(x.mean(axis=0)).ravel()
        variance = x.multiply(x).sum() / x.shape[0] - mean @ mean

        def as_tensor(moment: pd.Series) -> Tensor:
            return torch.from_numpy(moment.to_numpy(dtype=np.float32, copy=True))

        self.module.standardize(
            (as_tensor(moments[0]), as_tensor(moments[1])),
            (torch.from_numpy(mean), torch.tensor(float(max(variance, 1e-8)) ** 0.5)),
        )

    @document_cells
    def predict_protein(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Predict proteins of cells; the shift of an unknown batch is 0.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        ``log(1 + count)``, ``(n_cells, n_proteins)``, rows named by cell, columns by protein.

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`get_latent_representation`.
        """
        self._require_trained()
        return self._predict_selected(
            self._select(adata, indices, layer, min_gene_overlap), batch_size
        )

    def _predict_selected(self, cells: CellSelection, batch_size: int | None) -> pd.DataFrame:
        names = pd.Index(self.protein_names)
        proteins = self._stack(self._predict, len(names), cells, batch_size)
        return pd.DataFrame(proteins, cells.names, names)

    def _predict(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        return self.module.predict(tensors).cpu().numpy()

    @document_cells
    def get_protein_scores(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Compare predicted to measured proteins.

        Parameters
        ----------
        adata
            Cells with proteins under the same key of ``obsm``, matched by name; the cells that the
            model was set up with if not given.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        A row per protein: ``pearson`` and ``mse`` of log counts over cells, and ``n``, the number
        of cells with a measurement.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            As :meth:`predict_protein` and :meth:`setup_anndata`, or if the cells have no protein
            of the model.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        return score_columns(*self._compared(cells, batch_size))

    @document_cells
    def get_cell_scores(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Compare predicted to measured proteins within each cell.

        The correlation is high for every prediction with the right mean of each protein.

        Parameters
        ----------
        adata
            Cells with proteins, as in :meth:`get_protein_scores`.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        A row per cell, with the columns of :meth:`get_protein_scores`.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            As :meth:`get_protein_scores`.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        predicted, measured = self._compared(cells, batch_size)
        return score_columns(predicted.T, measured.T)

    def _compared(
        self, cells: CellSelection, batch_size: int | None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        return (
            self._predict_selected(cells, batch_size),
            self._log_proteins(cells.adata).iloc[cells.positions],
        )
