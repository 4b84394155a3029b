"""Scores of predictions and of their probabilities: functions of arrays that return frames."""

from scvi_sctab.metrics._calibrated import Calibration, CellLogits, LeftOut
from scvi_sctab.metrics._calibration import (
    expected_calibration_error,
    normalized_entropy,
    reliability,
)
from scvi_sctab.metrics._classification import classification_report, confusion, f1_macro
from scvi_sctab.metrics._conformal import conformal_threshold, p_values, prediction_sets
from scvi_sctab.metrics._group_errors import group_errors
from scvi_sctab.metrics._held_out_molecules import (
    HeldOutScores,
    expression_tertiles,
    held_out_log_likelihood,
    score_held_out,
)
from scvi_sctab.metrics._hierarchical import (
    CorrectedLabels,
    hierarchical_scores,
    ontology_corrected,
    ontology_cross_entropy,
    ontology_report,
)
from scvi_sctab.metrics._label_issues import LabelIssues, find_label_issues
from scvi_sctab.metrics._latents import (
    LatentMatching,
    TargetScores,
    match_latents,
    mean_correlation_coefficient,
    target_scores,
)
from scvi_sctab.metrics._markers import MarkerScores, score_markers
from scvi_sctab.metrics._molecules import molecular_split, simulate_dropout, thin_counts
from scvi_sctab.metrics._novelty import LabelCenters, distance_to_centers, fit_centers
from scvi_sctab.metrics._scaling import Scaling, ScalingMethod, check_method, fit_scaling
from scvi_sctab.metrics._shift import shift_test

__all__ = [
    "Calibration",
    "CellLogits",
    "CorrectedLabels",
    "HeldOutScores",
    "LabelCenters",
    "LabelIssues",
    "LeftOut",
    "LatentMatching",
    "MarkerScores",
    "Scaling",
    "ScalingMethod",
    "TargetScores",
    "check_method",
    "classification_report",
    "conformal_threshold",
    "confusion",
    "distance_to_centers",
    "expected_calibration_error",
    "expression_tertiles",
    "f1_macro",
    "find_label_issues",
    "fit_centers",
    "fit_scaling",
    "group_errors",
    "held_out_log_likelihood",
    "hierarchical_scores",
    "molecular_split",
    "match_latents",
    "mean_correlation_coefficient",
    "normalized_entropy",
    "ontology_corrected",
    "ontology_cross_entropy",
    "ontology_report",
    "p_values",
    "prediction_sets",
    "reliability",
    "score_held_out",
    "score_markers",
    "shift_test",
    "simulate_dropout",
    "target_scores",
    "thin_counts",
]
