"""Training plans and their callbacks, and the self-training of a query."""

from scvi_sctab.train._augmentation import RandomDepths
from scvi_sctab.train._callbacks import RestoreBestWeights
from scvi_sctab.train._closed_form import RidgeFit, fit_ridge
from scvi_sctab.train._collapse import WarnCollapse
from scvi_sctab.train._moving_average import UpdateMovingAverage
from scvi_sctab.train._optimizer import GeneAdamW, align_state, fused_adamw
from scvi_sctab.train._plan import ClassifierTrainingPlan
from scvi_sctab.train._processes import SyncProcesses, average_statistics
from scvi_sctab.train._query_path import QueryCells, QueryFit, diversity, fit_query_path
from scvi_sctab.train._refit import refit_layer
from scvi_sctab.train._runner import SinglePrecisionRunner
from scvi_sctab.train._self_supervised_plan import SelfSupervisedTrainingPlan
from scvi_sctab.train._self_training import SelfTraining, select_confident
from scvi_sctab.train._two_speed_plan import TwoSpeedPlan

__all__ = [
    "RidgeFit",
    "fit_ridge",
    "ClassifierTrainingPlan",
    "GeneAdamW",
    "QueryCells",
    "QueryFit",
    "RandomDepths",
    "RestoreBestWeights",
    "SelfSupervisedTrainingPlan",
    "SelfTraining",
    "SinglePrecisionRunner",
    "SyncProcesses",
    "TwoSpeedPlan",
    "UpdateMovingAverage",
    "WarnCollapse",
    "align_state",
    "average_statistics",
    "diversity",
    "fit_query_path",
    "fused_adamw",
    "refit_layer",
    "select_confident",
]
