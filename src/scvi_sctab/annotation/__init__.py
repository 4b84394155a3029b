"""Statements about cells from logits: probabilities, prediction sets, novelty, terms, votes."""

from scvi_sctab.annotation._annotate import (
    Rates,
    annotate_cells,
    describe_cells,
    join_probabilities,
    predict_labels,
)
from scvi_sctab.annotation._audit import (
    MAX_PAIRS_WITH_GENES,
    LabelAudit,
    count_groups,
    count_issues,
    count_pairs,
    describe_issues,
    telling_genes,
)
from scvi_sctab.annotation._calibrate import (
    MIN_CELLS_TO_CALIBRATE,
    count_labels,
    fit_calibration,
    scaling_method,
)
from scvi_sctab.annotation._clusters import cluster_cells, embed_cells
from scvi_sctab.annotation._coarse import accepted_labels, check_label
from scvi_sctab.annotation._frame import EMPTY_SET, SET_SEPARATOR, unassign
from scvi_sctab.annotation._populations import (
    MIN_CELLS_OF_POPULATION,
    MIN_POPULATIONS,
    Populations,
    can_be_tested,
    compare_populations,
    gene_excess,
    possible_causes,
)
from scvi_sctab.annotation._profiles import Profiles
from scvi_sctab.annotation._scores import score_labels
from scvi_sctab.annotation._shift import MIN_CELLS_TO_COMPARE, find_shift, shift_message
from scvi_sctab.annotation._state import AnnotationState, same_values
from scvi_sctab.annotation._status import STATUS
from scvi_sctab.annotation._terms import check_entries, place_labels
from scvi_sctab.annotation._votes import (
    VOTE_WEIGHT,
    Neighborhood,
    nearest_neighbors,
    neighborhoods_of_groups,
    neighborhoods_of_neighbors,
    refine_labels,
    vote,
)

__all__ = [
    "EMPTY_SET",
    "MAX_PAIRS_WITH_GENES",
    "MIN_CELLS_OF_POPULATION",
    "MIN_CELLS_TO_CALIBRATE",
    "MIN_CELLS_TO_COMPARE",
    "MIN_POPULATIONS",
    "SET_SEPARATOR",
    "STATUS",
    "VOTE_WEIGHT",
    "AnnotationState",
    "LabelAudit",
    "Neighborhood",
    "Populations",
    "Profiles",
    "Rates",
    "accepted_labels",
    "annotate_cells",
    "can_be_tested",
    "check_entries",
    "check_label",
    "cluster_cells",
    "compare_populations",
    "count_groups",
    "count_issues",
    "count_labels",
    "count_pairs",
    "describe_cells",
    "describe_issues",
    "embed_cells",
    "find_shift",
    "fit_calibration",
    "gene_excess",
    "join_probabilities",
    "nearest_neighbors",
    "neighborhoods_of_groups",
    "neighborhoods_of_neighbors",
    "place_labels",
    "possible_causes",
    "predict_labels",
    "refine_labels",
    "same_values",
    "score_labels",
    "scaling_method",
    "shift_message",
    "telling_genes",
    "unassign",
    "vote",
]
