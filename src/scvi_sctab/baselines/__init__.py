"""Other methods behind the same two calls, ``fit`` and ``predict_proba``, to compare with.

Each takes a seed as its first argument, so that the classes themselves can be passed to
:func:`scvi_sctab.metrics.benchmark`.
"""

from scvi_sctab.baselines._celltypist import CellTypist
from scvi_sctab.baselines._linear import Linear
from scvi_sctab.baselines._logistic_regression import LogisticRegression
from scvi_sctab.baselines._mlp import MLP
from scvi_sctab.baselines._scanvi import ScANVI
from scvi_sctab.baselines._sctab import SCTABEnsemblePredictor, SCTABPredictor
from scvi_sctab.baselines._template import Baseline
from scvi_sctab.baselines._xgboost import XGBoost

__all__ = [
    "MLP",
    "Baseline",
    "CellTypist",
    "Linear",
    "LogisticRegression",
    "SCTABEnsemblePredictor",
    "SCTABPredictor",
    "ScANVI",
    "XGBoost",
]
