"""Files of cells as other programs write them: opened, and read as a model reads them."""

from scvi_sctab.data.files._gene_names import GenesFound, find_genes, read_gene_table
from scvi_sctab.data.files._open import open_stored
from scvi_sctab.data.files._query import Query, find_query
from scvi_sctab.data.files._refusal import RefusedInputError
from scvi_sctab.data.files._stored import StoredCells, StoredMatrix
from scvi_sctab.data.files._write import check_writable, write_annotated

__all__ = [
    "GenesFound",
    "Query",
    "RefusedInputError",
    "StoredCells",
    "StoredMatrix",
    "check_writable",
    "find_genes",
    "find_query",
    "open_stored",
    "read_gene_table",
    "write_annotated",
]
