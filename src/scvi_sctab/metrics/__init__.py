"""Scores of predictions and of their probabilities; arrays in, frames out."""

from scvi_sctab.metrics._calibrated import Calibration, CellEvidence
from scvi_sctab.metrics._calibration import (
    expected_calibration_error,
    normalized_entropy,
    reliability,
)
from scvi_sctab.metrics._classification import classification_report, confusion, f1_macro
from scvi_sctab.metrics._conformal import conformal_threshold, p_values, prediction_sets
from scvi_sctab.metrics._novelty import LabelCenters, distance_to_centers, fit_centers
from scvi_sctab.metrics._scaling import Scaling, ScalingMethod, fit_scaling
from scvi_sctab.metrics._shift import shift_test

__all__ = [
    "Calibration",
    "CellEvidence",
    "LabelCenters",
    "Scaling",
    "ScalingMethod",
    "classification_report",
    "conformal_threshold",
    "confusion",
    "distance_to_centers",
    "expected_calibration_error",
    "f1_macro",
    "fit_centers",
    "fit_scaling",
    "normalized_entropy",
    "p_values",
    "prediction_sets",
    "reliability",
    "shift_test",
]
