"""Scores of predictions and of their probabilities; arrays in, frames out."""

from scvi_sctab.metrics._benchmark import benchmark
from scvi_sctab.metrics._calibration import (
    expected_calibration_error,
    normalized_entropy,
    reliability,
)
from scvi_sctab.metrics._classification import classification_report, confusion, f1_macro
from scvi_sctab.metrics._protocol import paper_protocol
from scvi_sctab.metrics._splits import (
    Split,
    assign_donors,
    donor_splits,
    subsample_cells,
    subsample_donors,
)

__all__ = [
    "classification_report",
    "confusion",
    "expected_calibration_error",
    "f1_macro",
    "normalized_entropy",
    "reliability",
    "Split",
    "assign_donors",
    "benchmark",
    "donor_splits",
    "paper_protocol",
    "subsample_cells",
    "subsample_donors",
]
