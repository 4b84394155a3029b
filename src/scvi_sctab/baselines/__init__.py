"""Other methods to compare with, all with the two methods ``fit`` and ``predict_proba``.

Each class has a seed as its first argument: it is a ``make`` of a :class:`scvi_sctab.benchmark.Method` for
:func:`scvi_sctab.benchmark.run`.
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
