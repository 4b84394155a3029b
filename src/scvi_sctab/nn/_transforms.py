"""Normalisation and augmentation of expression, the same in training and prediction."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from scvi_sctab.sparse import CSR, csr_add_and_clip, csr_row_sums, over_parts

TARGET_SUM = 1e4
MAX_EXPRESSION = 9.0

# Values per part, about 0.2 ms; waking a thread takes a quarter of that.
_MIN_VALUES = 2**16


def normalize_counts(counts: Tensor, totals: Tensor | None = None) -> Tensor | CSR:
    """Divide each cell by its total, multiply by 10,000, take ``log(1 + x)``.

    Parameters
    ----------
    counts
        Raw counts over the model's genes, ``(n_cells, n_genes)``, dense or sparse.
    totals
        Totals to divide by, ``(n_cells,)``; the sum over the model's genes if not given.

    Returns
    -------
    Log-normalised expression, ``(n_cells, n_genes)``; that of a cell without counts is 0. CSR
    counts on the CPU stay sparse; all others become dense, since dense products are faster on a
    GPU.

    Examples
    --------
    >>> import torch
    >>> normalize_counts(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    tensor([[7.8244, 8.9228],
            [0.0000, 0.0000]])
    """
    if counts.layout is torch.sparse_csr and counts.device.type == "cpu":
        rows = CSR.from_torch(counts)
        scaled = rows.scale_rows(_factor(csr_row_sums(rows) if totals is None else totals))
        over_parts(_log1p_part, len(scaled.values), scaled.values, min_rows=_MIN_VALUES)
        return scaled
    dense = counts if counts.layout is torch.strided else counts.to_dense()
    factor = _factor(dense.sum(dim=1) if totals is None else totals)[:, None]
    # In place where it is our own copy: 2,048 cells take 158 MB.
    is_own = dense is not counts and dense.is_floating_point()
    return (dense.mul_(factor) if is_own else dense * factor).log1p_()


def count_molecules(counts: Tensor) -> Tensor:
    """Sum the counts of each cell.

    Parameters
    ----------
    counts
        Raw counts, ``(n_cells, n_genes)``, dense or CSR, on any device.

    Returns
    -------
    Number of molecules of each cell, ``(n_cells,)``.

    Examples
    --------
    >>> import torch
    >>> counts = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    >>> count_molecules(counts), count_molecules(counts.to_sparse_csr())
    (tensor([4., 0.]), tensor([4., 0.]))
    """
    if counts.layout is not torch.sparse_csr:
        return counts.sum(dim=1)
    # Counts are whole numbers, so that differences of running sums are exact.
    running = torch.nn.functional.pad(counts.values().long().cumsum(0), (1, 0))
    return running[counts.crow_indices()].diff().to(counts.dtype)


def _log1p_part(start: int, stop: int, values: Tensor) -> None:
    # The mode is per thread, and only inference mode may write to inference tensors.
    with torch.inference_mode():
        values[start:stop].log1p_()


def _factor(total: Tensor) -> Tensor:
    return TARGET_SUM / total.masked_fill(total == 0, 1)


def thin_to_depths(
    counts: Tensor,
    depths: tuple[float, float],
    share: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Thin cells to random depths, as if fewer of their molecules had been captured.

    Each molecule is kept with the same probability within a cell, so that counts are binomial.
    Cells with fewer molecules than their depth stay as they are.

    Parameters
    ----------
    counts
        Raw counts, ``(n_cells, n_genes)``, dense or CSR.
    depths
        Smallest and largest expected number of molecules; drawn uniformly on a logarithmic scale.
    share
        Share of cells that are thinned.
    generator
        Source of randomness on the device of ``counts``; torch's own if not given.

    Returns
    -------
    Counts, stored as ``counts`` are; a CSR tensor keeps its entries, some of which become 0.

    Examples
    --------
    >>> import torch
    >>> thinned = thin_to_depths(torch.full((1, 10_000), 5.0), (100, 100))
    >>> 50 < thinned.sum() < 150
    tensor(True)
    """
    totals = count_molecules(counts)
    drawn = torch.rand((2, len(totals)), generator=generator, device=totals.device)
    low, high = (float(torch.tensor(depth).log()) for depth in depths)
    depth = (low + (high - low) * drawn[0]).exp()
    kept = (depth / totals.clamp(min=1)).clamp(max=1).where(drawn[1] < share, 1.0)
    if counts.layout is not torch.sparse_csr:
        return torch.binomial(counts, kept[:, None].expand_as(counts), generator=generator)
    indptr, values = counts.crow_indices(), counts.values()
    thinned = torch.binomial(values, kept.repeat_interleave(indptr.diff()), generator=generator)
    parts = indptr, counts.col_indices(), thinned
    return torch.sparse_csr_tensor(*parts, counts.shape, check_invariants=False)


def augment(
    x: Tensor | CSR, vectors: Tensor | CSR, generator: Generator | None = None
) -> Tensor | CSR:
    """Move each cell towards another donor :cite:p:`Fischer24`.

    One vector is drawn per cell, independently of its label, and added or subtracted with equal
    probability; the sum is clipped to ``[0, 9]`` and not normalised again.

    Parameters
    ----------
    x
        Log-normalised expression, ``(n_cells, n_genes)``.
    vectors
        Differences between donors, ``(n_vectors, n_genes)``, best dense or sparse as ``x``; see
        :func:`scvi_sctab.data.donor_difference_vectors`.
    generator
        Source of randomness on the device of ``x``; torch's own if not given.

    Returns
    -------
    Augmented expression, ``(n_cells, n_genes)``, dense or sparse as ``x``.
    """
    size = (len(x),)
    which = torch.randint(len(vectors), size, generator=generator, device=x.device)
    sign = torch.randint(2, size, generator=generator, device=x.device) * 2 - 1
    if isinstance(x, CSR):
        vectors = vectors if isinstance(vectors, CSR) else CSR.from_dense(vectors)
        return csr_add_and_clip(x, vectors, which, sign, MAX_EXPRESSION)
    shift = vectors.to_dense().index_select(0, which).to(x.dtype).mul_(sign[:, None])
    return shift.add_(x).clamp_(0, MAX_EXPRESSION)
