"""Expression of groups of cells: mean and standard deviation of each gene."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


@dataclass(frozen=True, eq=False)
class Profiles:
    """Log-normalised expression of groups of cells.

    Parameters
    ----------
    mean, sd
        Mean and standard deviation, ``(n_groups, n_genes)``; 0 for a group without cells.
    n_cells
        Number of cells of each group, ``(n_groups,)``.
    """

    mean: NDArray[np.floating]
    sd: NDArray[np.floating]
    n_cells: NDArray[np.int64]

    @classmethod
    def fit(
        cls, blocks: Iterable[sparse.csr_matrix], codes: NDArray[np.integer], n_groups: int
    ) -> Profiles:
        """Compute the profiles of groups, in one pass.

        Parameters
        ----------
        blocks
            Log-normalised expression, CSR, together ``(n_cells, n_genes)``; at least one.
        codes
            Group of each cell, ``(n_cells,)``; cells with -1 do not count.
        n_groups
            Number of groups.

        Examples
        --------
        >>> cells = sparse.csr_matrix(np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]))
        >>> Profiles.fit([cells], np.array([0, 0, 1]), 2).mean.tolist()
        [[2.0, 0.0], [0.0, 2.0]]
        """
        start, sums, squares = 0, 0.0, 0.0
        for block in blocks:
            own = codes[start : start + block.shape[0]]
            used = np.flatnonzero(own >= 0)
            member = sparse.csr_matrix(
                (np.ones(len(used)), (own[used], used)), shape=(n_groups, block.shape[0])
            )
            sums = sums + (member @ block).toarray()
            squares = squares + (member @ block.multiply(block)).toarray()
            start += block.shape[0]
        n_cells = np.bincount(codes[codes >= 0], minlength=n_groups)
        size = np.maximum(n_cells, 1)[:, None]
        mean = sums / size
        return cls(mean, np.sqrt(np.maximum(squares / size - mean**2, 0)), n_cells)

    def take_genes(self, genes: NDArray[np.intp]) -> Profiles:
        """Select genes by position; values are in double precision."""
        mean, sd = (np.asarray(values[:, genes], np.float64) for values in (self.mean, self.sd))
        return Profiles(mean, sd, self.n_cells)

    def to_dict(self) -> dict[str, Any]:
        """Return arrays, to save; half precision is enough for log-normalised values."""
        half = {name: getattr(self, name).astype(np.float16) for name in ("mean", "sd")}
        return {**half, "n_cells": self.n_cells}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Profiles:
        """Restore the result of :meth:`to_dict`."""
        return cls(**saved)
