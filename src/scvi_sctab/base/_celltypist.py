"""Content of the files of CellTypist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvi_sctab.base._plain_pickle import Record, read_plain_pickle

# The modules were renamed in scikit-learn 0.22; public models are of several versions.
_CLASSIFIERS = {
    ("sklearn.linear_model._logistic", "LogisticRegression"): Record,
    ("sklearn.linear_model.logistic", "LogisticRegression"): Record,
    ("sklearn.linear_model._stochastic_gradient", "SGDClassifier"): Record,
    ("sklearn.linear_model.stochastic_gradient", "SGDClassifier"): Record,
}
# Objects beside the numbers, of which nothing is used.
_UNUSED = {
    ("sklearn.linear_model._sgd_fast", "Log"): Record,
    ("sklearn.linear_model.sgd_fast", "Log"): Record,
    ("sklearn.linear_model._sgd_fast", "Hinge"): Record,
    ("_loss", "CyHalfBinomialLoss"): Record,
    ("_loss", "__pyx_unpickle_CyHalfBinomialLoss"): Record,
}
_SCALERS = {
    ("sklearn.preprocessing._data", "StandardScaler"): Record,
    ("sklearn.preprocessing.data", "StandardScaler"): Record,
}


@dataclass(frozen=True, eq=False)
class CellTypistFile:
    """Numbers of a CellTypist model.

    Attributes
    ----------
    labels
        Labels, ``(n_labels,)``.
    genes
        Genes, ``(n_genes,)``.
    coefficients
        Of scaled expression, ``(n_labels, n_genes)``.
    intercepts
        ``(n_labels,)``.
    mean, scale
        Mean and standard deviation that expression is scaled by, ``(n_genes,)``.
    description
        Facts that its authors wrote.
    """

    labels: NDArray[np.str_]
    genes: NDArray[np.str_]
    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    description: Mapping[str, Any]


def read_celltypist(path: Path) -> CellTypistFile:
    """Read a model of CellTypist as data only.

    Parameters
    ----------
    path
        File that ``celltypist.models.Model.write`` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it names code that a model does not need, is damaged, or is no model of CellTypist.
    """
    content = read_plain_pickle(path, {**_CLASSIFIERS, **_UNUSED, **_SCALERS})
    try:
        classifier, scaler = content["Model"].state, content["Scaler_"].state
        genes = np.asarray(classifier["features"], dtype=str)
        coefficients = np.atleast_2d(np.asarray(classifier["coef_"], dtype=np.float64))
        intercepts = np.atleast_1d(np.asarray(classifier["intercept_"], dtype=np.float64))
        scale = np.asarray(scaler["scale_"], dtype=np.float64)
        mean = scaler["mean_"] if scaler["with_mean"] else np.zeros(len(scale))
        labels = np.asarray(classifier["classes_"], dtype=str)
        description = content.get("description", {})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a model of CellTypist: it lacks {error}.") from error
    if len(labels) == 2 and len(coefficients) == 1:  # the score of the second label
        coefficients = np.concatenate([-coefficients, coefficients])
        intercepts = np.concatenate([-intercepts, intercepts])
    mean = np.asarray(mean, dtype=np.float64)
    shapes = [coefficients.shape, intercepts.shape, mean.shape, scale.shape]
    n_labels, n_genes = len(labels), len(genes)
    if shapes != [(n_labels, n_genes), (n_labels,), (n_genes,), (n_genes,)]:
        raise ValueError(
            f"{path} is damaged: {n_labels:,} labels and {n_genes:,} genes, but coefficients, "
            f"intercepts, means and scales of shapes {', '.join(map(str, shapes))}."
        )
    numbers = (coefficients, intercepts, mean, scale)
    if not all(np.isfinite(array).all() for array in numbers) or not (scale > 0).all():
        raise ValueError(f"{path} is damaged: it has numbers that are not finite, or no scale.")
    return CellTypistFile(labels, genes, *numbers, description)
