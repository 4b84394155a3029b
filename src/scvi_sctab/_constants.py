"""Registry keys, file names and numeric bounds."""

from typing import Final

DONOR_KEY: Final = "donor"
"""Registry key of the donor field."""

CONDITIONS_KEY: Final = "conditions"
"""Key of the codes of batch and covariates in a minibatch."""
MEASURED_KEY: Final = "measured"
"""Key of the flags of genes in a minibatch, without those that a query lacks; absent if it has all."""
TOTAL_KEY: Final = "total"
"""Key of the counts of cells over all genes of a query in a minibatch, for imported models."""
UNKNOWN_CODE: Final = -1
"""Code of an unknown or missing batch or covariate."""

UNLABELED_CATEGORY: Final = "unknown"
"""Label of unlabelled cells, unless ``setup_anndata`` is given another."""

MIN_GENES: Final = 10
"""Smallest number of genes of a reference."""
MIN_GENE_OVERLAP: Final = 0.25
"""Share of the model's genes below which a query is refused."""
ERROR_RATE: Final = 0.1
"""Share of cells whose prediction set may miss the true label."""
FALSE_ALARM_RATE: Final = 0.05
"""Share of cells of known labels that may be called novel."""
FALSE_DISCOVERY_RATE: Final = 0.05
"""Share of the populations called novel that may be of known labels."""
N_FOLDS: Final = 5
"""Number of folds of an audit of labels."""
TERM_LEVEL: Final = 0.9
"""Smallest probability of a term."""
WARN_GENE_OVERLAP: Final = 0.8
"""Share of the model's genes below which a query is warned about."""
MIN_CELLS_PER_LABEL: Final = 2
"""Smallest number of cells of a label."""
FEW_CELLS: Final = 3
"""Number of cells of a label, batch or covariate below which set-up warns, as in scvi-tools."""
MIN_PROGRAMME_GENES: Final = 5
"""Number of genes in the data below which a gene programme is left out."""
MIN_PROGRAMMES: Final = 2
"""Smallest number of gene programmes."""

N_NAMES_SHOWN: Final = 5
"""Number of names that an error or a warning lists; the others are counted."""
READ_BLOCK_CELLS: Final = 4096
"""Number of cells read from a matrix at a time."""

WEIGHTS_FILE: Final = "model.safetensors"
PICKLE_FILE: Final = "model.pt"
ADATA_FILE: Final = "adata.h5ad"
ENSEMBLE_FILE: Final = "ensemble.safetensors"
TRAINING_FILE: Final = "training.safetensors"
"""State of a training, from which a killed one continues."""
JOURNAL_FILE: Final = "members.json"
"""File in the temporary folder of an ensemble: folders of members that are new or replaced."""

QUERY_POLICIES: Final = {
    "batch": (),
    "head": ("final_mapping.*", "linear_skip.*"),
    "all": ("*",),
}
"""Parameters of the reference that each policy trains, besides those of the query."""
