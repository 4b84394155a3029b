"""Number of threads, the same for every method; without heavy imports, as it must run first."""

from __future__ import annotations

import os

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def limit(n_threads: int) -> None:
    """Tell every library; to be called before the first of them is imported."""
    os.environ.update(dict.fromkeys(VARIABLES, str(n_threads)))


def limit_torch() -> None:
    """Tell torch what :func:`limit` told the environment."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
