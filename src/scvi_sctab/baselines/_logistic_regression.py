"""Class-balanced logistic regression, a strong baseline on thousands of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn import linear_model

from scvi_sctab.baselines._template import Baseline
from scvi_sctab.data import normalized_expression

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data import GeneAlignment


class LogisticRegression(Baseline):
    """Class-balanced multinomial logistic regression on log-normalised expression, kept sparse.

    Expression is not standardised. The solver is lbfgs, with scikit-learn's defaults.

    Parameters
    ----------
    seed
        Not used: the result is deterministic.
    C
        Inverse strength of the penalty.
    max_iter
        Most iterations.

    Examples
    --------
    >>> from scvi_sctab import baselines, datasets
    >>> adata = datasets.pbmc_kang18()[::2]
    >>> new = adata.obs["donor_id"] == adata.obs["donor_id"].iloc[0]
    >>> predictor = baselines.LogisticRegression().fit(adata[~new], "cell_type")
    >>> predictor.predict_proba(adata[new]).idxmax(axis=1).nunique() > 1
    True
    """

    name = "logistic regression"
    is_seeded = False

    def __init__(self, seed: int = 0, *, C: float = 1.0, max_iter: int = 1000):
        super().__init__(seed)
        self.C, self.max_iter = C, max_iter

    def _fit(self, reference: AnnData, labels: NDArray[np.str_]) -> None:
        # In single precision lbfgs stops before it has converged.
        expression = normalized_expression(reference).astype(np.float64)
        self._model = linear_model.LogisticRegression(
            C=self.C, class_weight="balanced", max_iter=self.max_iter
        )
        self._model.fit(expression, reference.obs[self._labels_key].to_numpy(dtype=str))

    def _predict(self, query: AnnData, alignment: GeneAlignment) -> NDArray[np.floating]:
        expression = normalized_expression(query, alignment=alignment).astype(np.float64)
        return self._model.predict_proba(expression)
