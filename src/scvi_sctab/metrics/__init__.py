"""Scores of predictions and of their probabilities; arrays in, frames out."""

from scvi_sctab.metrics._calibration import (
    expected_calibration_error,
    normalized_entropy,
    reliability,
)
from scvi_sctab.metrics._classification import classification_report, confusion, f1_macro

__all__ = [
    "classification_report",
    "confusion",
    "expected_calibration_error",
    "f1_macro",
    "normalized_entropy",
    "reliability",
]
