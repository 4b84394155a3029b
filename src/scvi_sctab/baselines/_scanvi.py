"""scANVI, with the query mapped by surgery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi.model import SCANVI, SCVI

from scvi_sctab._optional import import_optional
from scvi_sctab.baselines._sctab import seeded
from scvi_sctab.baselines._template import Baseline
from scvi_sctab.data import query_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data import GeneAlignment

_BATCH_KEY = "_batch"
_UNLABELED = "Unknown"


class ScANVI(Baseline):
    """scANVI :cite:p:`Xu21` with the query mapped by architecture surgery :cite:p:`Lotfollahi21`.

    The recipe is that of the tutorial of scvi-tools: 2,000 highly variable genes, donors as
    batches, SCVI, then SCANVI on up to 100 cells per label, then the query without weight decay.
    Each prediction trains on its query again. The donors of the query are read from the column of
    the reference; without this column all cells are of one donor.

    Parameters
    ----------
    seed
        Seed of scvi-tools during training; the random states outside are not changed.
    max_epochs
        Epochs of SCVI; if not given, scvi-tools chooses by the number of cells.
    label_epochs, query_epochs
        Epochs of SCANVI on the reference, and on the query.
    n_top_genes
        Number of highly variable genes, by scanpy's default method; all genes if there are fewer.
    """

    name = "scANVI"

    def __init__(
        self,
        seed: int = 0,
        *,
        max_epochs: int | None = None,
        label_epochs: int = 20,
        query_epochs: int = 100,
        n_top_genes: int = 2000,
    ):
        super().__init__(seed)
        self.max_epochs, self.label_epochs = max_epochs, label_epochs
        self.query_epochs, self.n_top_genes = query_epochs, n_top_genes

    def _fit(self, reference: AnnData, labels: NDArray[np.str_]) -> None:
        reference.obs[_BATCH_KEY] = self._batches(reference)
        reference = reference[:, self._variable_genes(reference)].copy()
        # Layers for surgery, see the tutorial of scvi-tools.
        layers = {"use_layer_norm": "both", "use_batch_norm": "none", "encode_covariates": True}
        size = {"n_layers": 2, "n_latent": 30, "dropout_rate": 0.2, "gene_likelihood": "nb"}
        with seeded(self.seed):
            SCVI.setup_anndata(reference, batch_key=_BATCH_KEY)
            base = SCVI(reference, **layers, **size)
            base.train(self.max_epochs, enable_progress_bar=False)
            self._model = SCANVI.from_scvi_model(base, _UNLABELED, labels_key=self._labels_key)
            self._model.train(
                self.label_epochs, n_samples_per_label=100, enable_progress_bar=False
            )

    def _predict(self, query: AnnData, alignment: GeneAlignment) -> NDArray[np.floating]:
        cells = query_cells(query, None, self._genes)
        cells.obs[_BATCH_KEY] = self._batches(query)
        cells = cells[:, self._model.adata.var_names].copy()
        cells.obs[self._labels_key] = _UNLABELED
        with seeded(self.seed):
            mapped = SCANVI.load_query_data(cells, self._model)
            mapped.train(
                self.query_epochs,
                plan_kwargs={"weight_decay": 0.0},
                check_val_every_n_epoch=10,
                enable_progress_bar=False,
            )
        labels = np.unique(self._model.adata.obs[self._labels_key].astype(str))
        # A softmax in single precision can exceed 1 by rounding.
        return mapped.predict(soft=True)[labels].to_numpy().clip(0, 1)

    def _batches(self, adata: AnnData) -> NDArray[np.str_]:
        if self._donor_key is not None and self._donor_key in adata.obs:
            return adata.obs[self._donor_key].to_numpy(dtype=str)
        return np.full(adata.n_obs, "one")

    def _variable_genes(self, reference: AnnData) -> NDArray[np.bool_]:
        if reference.n_vars <= self.n_top_genes:
            return np.ones(reference.n_vars, dtype=bool)
        scanpy = import_optional("scanpy", "benchmark", "baselines.ScANVI")
        expression = reference.copy()
        scanpy.pp.normalize_total(expression, target_sum=1e4)
        scanpy.pp.log1p(expression)
        chosen = scanpy.pp.highly_variable_genes(
            expression, n_top_genes=self.n_top_genes, batch_key=_BATCH_KEY, inplace=False
        )
        return chosen["highly_variable"].to_numpy()
