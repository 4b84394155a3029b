"""From AnnData to tensors: counts, genes, labels, splits, augmentation."""

from scvi_sctab.data._augmentation import donor_difference_vectors, group_means, sample_cells
from scvi_sctab.data._cell_splitter import CellSplitter, UnlabeledDataSplitter
from scvi_sctab.data._conditions import (
    Condition,
    canonical,
    condition_codes,
    registered_conditions,
)
from scvi_sctab.data._counts import (
    NotCountsError,
    check_counts,
    describe_empty_cells,
    empty_cells,
)
from scvi_sctab.data._csr import slice_rows, to_tensor
from scvi_sctab.data._data_splitter import LabeledDataSplitter
from scvi_sctab.data._expression import normalized_expression
from scvi_sctab.data._genes import (
    GeneAlignment,
    GeneMismatchError,
    align_genes,
    check_genes,
)
from scvi_sctab.data._indices import check_indices
from scvi_sctab.data._messages import list_names
from scvi_sctab.data._obs import ask_about_labels, check_labels, get_column, reads_as_none
from scvi_sctab.data._programmes import GeneProgrammes, gene_programmes, read_gmt, regulators
from scvi_sctab.data._proteins import get_proteins, join_proteins
from scvi_sctab.data._query import (
    check_query_conditions,
    prepare_query,
    query_cells,
    query_labels,
    query_registry,
)
from scvi_sctab.data._reader import get_matrix, read_counts, refuse_view
from scvi_sctab.data._reference import check_cells, check_reference
from scvi_sctab.data._spelling import respell_genes, strip_versions
from scvi_sctab.data._splits import class_weights, split_by_donor, split_by_label, split_cells

__all__ = [
    "CellSplitter",
    "Condition",
    "GeneAlignment",
    "GeneMismatchError",
    "GeneProgrammes",
    "LabeledDataSplitter",
    "NotCountsError",
    "UnlabeledDataSplitter",
    "align_genes",
    "ask_about_labels",
    "canonical",
    "check_cells",
    "check_counts",
    "check_genes",
    "check_indices",
    "check_labels",
    "check_query_conditions",
    "check_reference",
    "class_weights",
    "condition_codes",
    "describe_empty_cells",
    "donor_difference_vectors",
    "empty_cells",
    "gene_programmes",
    "get_column",
    "get_matrix",
    "get_proteins",
    "group_means",
    "join_proteins",
    "list_names",
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
]
