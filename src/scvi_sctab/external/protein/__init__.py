"""Prediction of surface proteins from RNA."""

from scvi_sctab.external.protein._model import ProteinPredictor
from scvi_sctab.external.protein._module import ProteinModule
from scvi_sctab.external.protein._plan import ProteinTrainingPlan

__all__ = ["ProteinModule", "ProteinPredictor", "ProteinTrainingPlan"]
