"""Registry keys, file names and numeric bounds."""

from typing import Final

DONOR_KEY: Final = "donor"
"""Registry key of the donor field."""

CONDITIONS_KEY: Final = "conditions"
"""Name of the codes of batch and covariates within a batch of cells."""
UNKNOWN_CODE: Final = -1
"""Code of a batch or covariate that a model does not know, or is not told."""

UNLABELED_CATEGORY: Final = "unknown"
"""Label that marks cells without a label, unless ``setup_anndata`` is told another."""

MIN_GENES: Final = 10
"""Fewest genes a reference may have."""
MIN_GENE_OVERLAP: Final = 0.25
"""Share of the model's genes below which a query is refused."""
WARN_GENE_OVERLAP: Final = 0.8
"""Share of the model's genes below which a query is warned about."""
MIN_CELLS_PER_LABEL: Final = 2
"""Fewest cells a label may have."""
FEW_CELLS: Final = 3
"""Cells of a label, a batch or a covariate below which set-up warns, as scvi-tools does."""
MIN_PROGRAMME_GENES: Final = 5
"""Genes of the data below which a gene programme is left out."""
MIN_PROGRAMMES: Final = 2
"""Fewest gene programmes there may be."""

N_NAMES_SHOWN: Final = 5
"""How many names an error or a warning lists before it says how many more there are."""
READ_BLOCK_CELLS: Final = 4096
"""Cells read from a matrix at a time."""

WEIGHTS_FILE: Final = "model.safetensors"
PICKLE_FILE: Final = "model.pt"
ADATA_FILE: Final = "adata.h5ad"
ENSEMBLE_FILE: Final = "ensemble.safetensors"
JOURNAL_FILE: Final = "members.json"
"""In the temporary folder of an ensemble: folders of members that are new or replaced."""

QUERY_POLICIES: Final = {
    "batch": (),
    "head": ("final_mapping.*", "linear_skip.*"),
    "all": ("*",),
}
"""Parameters of the reference that a policy trains beside what a query adds."""
