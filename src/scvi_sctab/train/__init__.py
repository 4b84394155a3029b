"""The training plan and its callbacks."""

from scvi_sctab.train._callbacks import RestoreBestWeights
from scvi_sctab.train._plan import ClassifierTrainingPlan

__all__ = ["ClassifierTrainingPlan", "RestoreBestWeights"]
