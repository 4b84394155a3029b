"""Differences between donors, for augmentation."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans

from scvi_sctab.data._expression import normalize_block
from scvi_sctab.sparse import in_order

Codes = NDArray[np.int64]

MAX_CELLS = 500_000
MAX_PAIRS_PER_LABEL = 300
MIN_ABS_DIFFERENCE = 0.25
MAX_ABS_DIFFERENCE = 1.5
N_CLUSTERS = 50
MIN_CLUSTER_SIZE = 2_000
N_VECTORS = 5_000


def sample_cells(labels: Codes, seed: int) -> NDArray[np.intp]:
    """Choose at most 500,000 cells, class-balanced, in increasing order.

    Parameters
    ----------
    labels
        Codes per cell, ``(n_cells,)``.
    seed
        Seed of the choice.
    """
    if len(labels) <= MAX_CELLS:
        return np.arange(len(labels))
    weight = 1 / np.bincount(labels)[labels]
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(labels), MAX_CELLS, replace=False, p=weight / weight.sum()))


def group_means(blocks: Iterable[sparse.csr_matrix], groups: Codes) -> NDArray[np.float32]:
    """Compute the mean log-normalised expression of each group, in one pass.

    Parameters
    ----------
    blocks
        Raw counts, CSR, together ``(n_cells, n_genes)``.
    groups
        Code of the group of each cell, ``(n_cells,)``; every code from 0 on is used.

    Returns
    -------
    ``(n_groups, n_genes)``.
    """
    n_groups, start, sums = groups.max() + 1, 0, None
    for block in blocks:
        n_cells = block.shape[0]
        member = sparse.csr_matrix(
            (np.ones(n_cells), (groups[start : start + n_cells], np.arange(n_cells))),
            shape=(n_groups, n_cells),
        )
        part = member @ normalize_block(in_order(block))
        sums = part if sums is None else sums + part
        start += n_cells
    if sums is None:
        raise ValueError("There are no cells to average.")
    sizes = np.bincount(groups, minlength=n_groups)
    return sums.astype(np.float32).toarray() / sizes[:, None].astype(np.float32)


def donor_difference_vectors(
    blocks: Iterable[sparse.csr_matrix], labels: Codes, donors: Codes, seed: int
) -> NDArray[np.float32]:
    """Compute differences between donors of the same label :cite:p:`Fischer24`.

    For at most 300 random pairs of donors per label, the difference of their mean log-normalised
    expression is computed; values up to 0.25 are set to 0, the others clipped at 1.5. At most
    5,000 of these vectors are returned, drawn from clusters of more than 2,000 among 50.

    Parameters
    ----------
    blocks
        Raw counts of the training cells, CSR, together ``(n_cells, n_genes)``.
    labels, donors
        Codes per cell, ``(n_cells,)``.
    seed
        Seed of every draw.

    Returns
    -------
    ``(n_vectors, n_genes)``; no rows if no label has two donors.

    Notes
    -----
    - NOTE[DIFF] All pairs of a label with few donors are kept; the original always drops one.
    - NOTE[DIFF] Up to 5,000 vectors are all kept; the original's clusters of 2,000 need more. If
      there are more, but no cluster is large enough, 5,000 are drawn from all.
    - NOTE[DIFF] Every draw is seeded; the original seeds neither the pairs nor the clusters.
    """
    _, first, groups = np.unique(
        labels * (donors.max() + 1) + donors, return_index=True, return_inverse=True
    )
    means = group_means(blocks, groups)
    rng = np.random.default_rng(seed)
    pairs: list[NDArray[np.intp]] = []
    for label in np.unique(labels):
        all_pairs = np.array(list(combinations(np.flatnonzero(labels[first] == label), 2)))
        n_kept = min(len(all_pairs), MAX_PAIRS_PER_LABEL)
        pairs.extend(
            all_pairs[rng.choice(len(all_pairs), n_kept, replace=False)] if n_kept else ()
        )
    if not pairs:
        return np.zeros((0, means.shape[1]), dtype=np.float32)
    vectors = sparse.vstack([_clip(means[i] - means[j]) for i, j in pairs], format="csr")
    return vectors[_representative(vectors, seed)].toarray()


def _clip(difference: NDArray[np.float32]) -> sparse.csr_matrix:
    kept = np.where(np.abs(difference) > MIN_ABS_DIFFERENCE, difference, 0)
    return sparse.csr_matrix(kept.clip(-MAX_ABS_DIFFERENCE, MAX_ABS_DIFFERENCE))


def _representative(vectors: sparse.csr_matrix, seed: int) -> NDArray[np.intp]:
    """Choose vectors from large clusters, which leaves out outliers."""
    n_vectors = vectors.shape[0]
    if n_vectors <= N_VECTORS:
        return np.arange(n_vectors)
    cluster = KMeans(N_CLUSTERS, n_init="auto", random_state=seed).fit_predict(vectors)
    large = np.flatnonzero(np.bincount(cluster)[cluster] > MIN_CLUSTER_SIZE)
    pool = large if len(large) >= N_VECTORS else np.arange(n_vectors)
    return np.random.default_rng(seed).choice(pool, N_VECTORS, replace=False)
