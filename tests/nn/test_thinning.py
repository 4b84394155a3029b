"""Thinning of cells to random depths."""

import pytest
import torch
from scipy import sparse
from scipy.stats import kstest

from scvi_sctab.nn import count_molecules, thin_to_depths
from scvi_sctab.sparse import to_tensor


@pytest.fixture
def counts():
    torch.manual_seed(0)
    return torch.poisson(torch.full((400, 200), 5.0))


def as_csr(counts):
    return to_tensor(sparse.csr_matrix(counts.numpy()))


@pytest.mark.parametrize("store", [torch.clone, as_csr])
def test_molecules_are_kept_with_one_probability_per_cell(counts, store):
    thinned = thin_to_depths(store(counts), (100.0, 100.0))
    assert thinned.layout is store(counts).layout
    dense = thinned.to_dense()
    assert (dense <= counts).all()
    assert (dense == dense.round()).all()
    totals = count_molecules(thinned)
    assert totals.mean() == pytest.approx(100, abs=2)
    # Binomial with p near 0.1, not Poisson: variance 100 * (1 - p).
    assert totals.var() == pytest.approx(90, rel=0.25)
    share = dense.sum(dim=0) / counts.sum(dim=0)
    assert share.std() < 0.02


def test_depths_are_uniform_on_a_logarithmic_scale(counts):
    torch.manual_seed(1)
    deep = counts * 1000
    depth = count_molecules(thin_to_depths(deep, (20.0, 20_000.0))).log10()
    low, high = (float(torch.tensor(x).log10()) for x in (20.0, 20_000.0))
    assert kstest(depth.numpy(), "uniform", (low, high - low)).pvalue > 0.01


@pytest.mark.parametrize("store", [torch.clone, as_csr])
def test_only_a_share_of_cells_is_thinned_and_shallow_ones_stay(counts, store):
    torch.manual_seed(2)
    thinned = thin_to_depths(store(counts), (50.0, 60.0), share=0.25)
    changed = count_molecules(thinned) < count_molecules(counts)
    assert changed.float().mean() == pytest.approx(0.25, abs=0.07)
    assert torch.equal(thinned.to_dense()[~changed], counts[~changed])
    shallow = thin_to_depths(store(counts), (1e6, 1e7))
    assert torch.equal(shallow.to_dense(), counts)


def test_an_empty_cell_stays_empty():
    assert thin_to_depths(torch.zeros(2, 3), (10.0, 20.0)).sum() == 0


def test_a_generator_repeats_the_draws(counts):
    first, second = (
        thin_to_depths(counts, (20.0, 200.0), generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert torch.equal(first, second)
