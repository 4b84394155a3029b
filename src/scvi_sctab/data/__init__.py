"""Conversion of AnnData to tensors: counts, genes, labels, splits, augmentation."""

from scvi_sctab._messages import list_names, list_near_names
from scvi_sctab.data._augmentation import donor_difference_vectors, group_means, sample_cells
from scvi_sctab.data._cell_splitter import CellSplitter, UnlabeledDataSplitter
from scvi_sctab.data._cells import CellDataset
from scvi_sctab.data._conditions import (
    Condition,
    condition_codes,
    describe_unknown,
    registered_conditions,
)
from scvi_sctab.data._counts import (
    NotCountsError,
    check_counts,
    describe_empty_cells,
    empty_cells,
)
from scvi_sctab.data._data_splitter import LabeledDataSplitter
from scvi_sctab.data._expression import normalize_block, normalized_expression
from scvi_sctab.data._fields import NamedJointObsField, NamedLabelsField, NamedObsField
from scvi_sctab.data._genes import (
    GeneAlignment,
    GeneMismatchError,
    align_genes,
    check_genes,
    describe_mismatch,
)
from scvi_sctab.data._held_out import find_cells, find_held_out, true_labels
from scvi_sctab.data._identity import CellIdentities, TrainingRecord, identify
from scvi_sctab.data._indices import align_cells, check_indices
from scvi_sctab.data._join import join_references
from scvi_sctab.data._keywords import as_keys, check_arguments, check_key, check_keywords
from scvi_sctab.data._mudata import cells_of_mudata, is_mudata
from scvi_sctab.data._names import canonical, name_as_known, name_values
from scvi_sctab.data._obs import check_labels, find_column, get_column, reads_as_none
from scvi_sctab.data._order import BatchOrder
from scvi_sctab.data._programmes import GeneProgrammes, gene_programmes, read_gmt, regulators
from scvi_sctab.data._proteins import get_proteins, join_proteins
from scvi_sctab.data._query import (
    check_query_conditions,
    n_labelled,
    prepare_query,
    query_cells,
    query_labels,
    query_registry,
)
from scvi_sctab.data._reader import count_totals, get_matrix, read_counts, refuse_view
from scvi_sctab.data._reference import check_cells, check_reference, check_transfer
from scvi_sctab.data._registration import check_labels_unchanged, labelled_fields, make_manager
from scvi_sctab.data._selection import X_LAYER, CellSelection, check_anndata, choose_layer
from scvi_sctab.data._spelling import respell_genes, strip_versions
from scvi_sctab.data._splits import class_weights, split_by_donor, split_by_label, split_cells
from scvi_sctab.sparse import slice_rows, to_tensor

__all__ = [
    "X_LAYER",
    "BatchOrder",
    "CellDataset",
    "CellIdentities",
    "CellSelection",
    "CellSplitter",
    "Condition",
    "GeneAlignment",
    "GeneMismatchError",
    "GeneProgrammes",
    "LabeledDataSplitter",
    "NamedJointObsField",
    "NamedLabelsField",
    "NamedObsField",
    "NotCountsError",
    "TrainingRecord",
    "UnlabeledDataSplitter",
    "align_cells",
    "align_genes",
    "as_keys",
    "canonical",
    "cells_of_mudata",
    "check_anndata",
    "check_arguments",
    "check_cells",
    "check_counts",
    "check_genes",
    "check_indices",
    "check_key",
    "check_keywords",
    "check_labels",
    "check_labels_unchanged",
    "check_query_conditions",
    "check_reference",
    "check_transfer",
    "choose_layer",
    "class_weights",
    "condition_codes",
    "count_totals",
    "describe_empty_cells",
    "describe_mismatch",
    "describe_unknown",
    "donor_difference_vectors",
    "empty_cells",
    "find_cells",
    "find_column",
    "find_held_out",
    "gene_programmes",
    "get_column",
    "get_matrix",
    "get_proteins",
    "group_means",
    "identify",
    "is_mudata",
    "join_proteins",
    "join_references",
    "labelled_fields",
    "list_names",
    "list_near_names",
    "make_manager",
    "n_labelled",
    "name_as_known",
    "name_values",
    "normalize_block",
    "normalized_expression",
    "prepare_query",
    "query_cells",
    "query_labels",
    "query_registry",
    "read_counts",
    "read_gmt",
    "reads_as_none",
    "refuse_view",
    "registered_conditions",
    "regulators",
    "respell_genes",
    "sample_cells",
    "slice_rows",
    "split_by_donor",
    "split_by_label",
    "split_cells",
    "strip_versions",
    "to_tensor",
    "true_labels",
]
