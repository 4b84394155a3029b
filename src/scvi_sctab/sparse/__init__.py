"""Sparse rows as tensors and in scipy, their compiled kernels, and the threads of the kernels."""

from scvi_sctab.sparse._cpus import available_cpus
from scvi_sctab.sparse._csr import CSR, concatenate_rows, to_scipy
from scvi_sctab.sparse._parallel import kernel, n_threads, over_parts, sleeping_threads
from scvi_sctab.sparse._products import (
    check_operands,
    csr_add_and_clip,
    csr_lookup,
    csr_matmul,
    csr_moments,
    csr_row_sums,
    csr_shifted_matmul,
    csr_transposed_matmul,
)
from scvi_sctab.sparse._scipy import (
    BrokenMatrixError,
    as_csr,
    as_float32,
    assemble,
    check_pointers,
    check_sparse,
    dense_to_scipy,
    in_order,
    move_columns,
    silence_torch,
    slice_rows,
    storable,
    to_tensor,
)

__all__ = [
    "CSR",
    "BrokenMatrixError",
    "as_csr",
    "as_float32",
    "assemble",
    "available_cpus",
    "check_operands",
    "check_pointers",
    "check_sparse",
    "concatenate_rows",
    "csr_add_and_clip",
    "csr_lookup",
    "csr_matmul",
    "csr_moments",
    "csr_row_sums",
    "csr_shifted_matmul",
    "csr_transposed_matmul",
    "dense_to_scipy",
    "in_order",
    "kernel",
    "move_columns",
    "n_threads",
    "over_parts",
    "silence_torch",
    "sleeping_threads",
    "slice_rows",
    "storable",
    "to_scipy",
    "to_tensor",
]
