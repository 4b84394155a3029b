"""Scores of predictions and of their probabilities; arrays in, frames out."""

from scvi_sctab.metrics._calibration import (
    expected_calibration_error,
    normalized_entropy,
    reliability,
)
from scvi_sctab.metrics._classification import classification_report, confusion, f1_macro
from scvi_sctab.metrics._hierarchical import (
    CorrectedLabels,
    hierarchical_scores,
    ontology_corrected,
    ontology_cross_entropy,
    ontology_report,
)

__all__ = [
    "CorrectedLabels",
    "classification_report",
    "confusion",
    "expected_calibration_error",
    "f1_macro",
    "hierarchical_scores",
    "normalized_entropy",
    "ontology_corrected",
    "ontology_cross_entropy",
    "ontology_report",
    "reliability",
]
