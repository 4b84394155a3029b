"""XGBoost: boosted trees on principal components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from scvi_sctab._optional import import_optional
from scvi_sctab.baselines._template import Baseline
from scvi_sctab.data import class_weights, normalized_expression, split_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data import GeneAlignment

_VALIDATION_SIZE = 0.15


class XGBoost(Baseline):
    """Boosted trees :cite:p:`Chen16` on principal components of log-normalised expression.

    The defaults are those of the scTab paper :cite:p:`Fischer24`: components of the training
    cells, early stopping on held-out donors, class-balanced weights of cells.

    Parameters
    ----------
    seed
        Seed of the held-out donors, of the components and of the cells drawn for each tree.
    n_components
        Number of principal components; fewer if there are fewer cells or genes.
    n_estimators
        Largest number of rounds, each of one tree per label.
    early_stopping_rounds
        Rounds without a smaller validation loss after which training stops.
    **parameters
        Further parameters of XGBoost, such as ``nthread`` or ``eta``, instead of the defaults.

    Notes
    -----
    - NOTE[DIFF] The validation loss of early stopping is not weighted.
    - NOTE[DIFF] The original fits components in batches of cells; here they are exact.
    """

    name = "XGBoost"

    def __init__(
        self,
        seed: int = 0,
        *,
        n_components: int = 256,
        n_estimators: int = 800,
        early_stopping_rounds: int = 10,
        **parameters: Any,
    ):
        super().__init__(seed)
        self._xgboost = import_optional("xgboost", "benchmark", "baselines.XGBoost")
        self.n_components, self.n_estimators = n_components, n_estimators
        self.early_stopping_rounds = early_stopping_rounds
        self.parameters = {
            "objective": "multi:softprob",
            "tree_method": "hist",
            "eta": 0.05,
            "subsample": 0.75,
            "max_depth": 10,
            "seed": seed,
            **parameters,
        }

    def _fit(self, reference: AnnData, labels: NDArray[np.str_]) -> None:
        codes = np.searchsorted(labels, reference.obs[self._labels_key].to_numpy(dtype=str))
        donors = None
        if self._donor_key is not None:
            donors = pd.factorize(reference.obs[self._donor_key])[0]
        train, validation, _ = split_cells(codes, donors, 1 - _VALIDATION_SIZE, None, self.seed)
        expression = normalized_expression(reference)
        # The arpack solver needs fewer components than cells and genes.
        n_components = min(self.n_components, len(train) - 1, reference.n_vars - 1)
        self._pca = PCA(n_components, svd_solver="arpack", random_state=self.seed)
        self._pca.fit(expression[train])
        weights = class_weights(codes[train], len(labels))[codes[train]]
        cells = self._matrix(expression[train], label=codes[train], weight=weights)
        held_out = []
        if len(validation):
            held_out = [
                (self._matrix(expression[validation], label=codes[validation]), "validation")
            ]
        self._booster = self._xgboost.train(
            {**self.parameters, "num_class": len(labels)},
            cells,
            num_boost_round=self.n_estimators,
            evals=held_out,
            early_stopping_rounds=self.early_stopping_rounds if held_out else None,
            verbose_eval=False,
        )

    def _predict(self, query: AnnData, alignment: GeneAlignment) -> NDArray[np.floating]:
        cells = self._matrix(normalized_expression(query, alignment=alignment))
        n_rounds = self._booster.num_boosted_rounds()
        if self._booster.attr("best_iteration") is not None:
            n_rounds = self._booster.best_iteration + 1
        return self._booster.predict(cells, iteration_range=(0, n_rounds))

    def _matrix(self, expression: Any, **about_cells: Any) -> Any:
        return self._xgboost.DMatrix(self._pca.transform(expression), **about_cells)
