"""Donor-difference vectors against a plain computation with pandas."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scvi_sctab.data import _augmentation, donor_difference_vectors, group_means, sample_cells
from scvi_sctab.nn import augment, normalize_counts


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(rng.gamma(0.3, 4, (400, 30))).astype(np.float32))
    return counts, rng.integers(0, 3, 400), rng.integers(0, 4, 400)


def expected_means(counts, labels, donors):
    x = normalize_counts(torch.from_numpy(counts.toarray())).numpy()
    return pd.DataFrame(x).groupby([labels, donors]).mean()


def test_group_means_are_those_of_pandas_over_any_blocks(cells):
    counts, labels, donors = cells
    groups = labels * 4 + donors
    blocks = [counts[:150], counts[150:151], counts[151:]]
    expected = expected_means(*cells).to_numpy()
    np.testing.assert_allclose(group_means(blocks, groups), expected, rtol=1e-5, atol=1e-6)


def test_there_is_no_mean_of_no_cells():
    with pytest.raises(ValueError, match="no cells to average"):
        group_means([], np.array([0]))


def test_vectors_are_the_clipped_differences_of_all_pairs_of_donors(cells):
    means = expected_means(*cells)
    expected = []
    for label in range(3):
        for i, j in combinations(range(4), 2):
            v = (means.loc[(label, i)] - means.loc[(label, j)]).to_numpy()
            expected.append(np.clip(np.where(np.abs(v) > 0.25, v, 0), -1.5, 1.5))
    vectors = donor_difference_vectors([cells[0]], cells[1], cells[2], seed=0)
    order_ours, order = (np.lexsort(np.round(x, 3).T) for x in (vectors, np.array(expected)))
    np.testing.assert_allclose(vectors[order_ours], np.array(expected)[order], atol=1e-5)


def test_pairs_are_capped_per_label_and_seeded(cells, monkeypatch):
    monkeypatch.setattr(_augmentation, "MAX_PAIRS_PER_LABEL", 2)
    first, same, other = (donor_difference_vectors([cells[0]], *cells[1:], s) for s in (1, 1, 2))
    assert first.shape == (6, 30)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_of_many_vectors_those_of_large_clusters_are_kept(monkeypatch):
    monkeypatch.setattr(_augmentation, "N_VECTORS", 10)
    monkeypatch.setattr(_augmentation, "N_CLUSTERS", 2)
    monkeypatch.setattr(_augmentation, "MIN_CLUSTER_SIZE", 5)
    odd = np.full((3, 8), 9.0)
    vectors = sparse.csr_matrix(np.vstack([np.random.default_rng(0).normal(size=(20, 8)), odd]))
    kept = _augmentation._representative(vectors, seed=0)
    assert len(kept) == len(set(kept)) == 10
    assert kept.max() < 20


def test_without_a_second_donor_there_is_no_vector(cells):
    counts, labels, _ = cells
    assert donor_difference_vectors([counts], labels, np.zeros_like(labels), 0).shape == (0, 30)


def test_many_cells_are_sampled_balanced_over_labels(monkeypatch):
    monkeypatch.setattr(_augmentation, "MAX_CELLS", 200)
    labels = np.repeat([0, 1], [10_000, 300])
    cells = sample_cells(labels, seed=0)
    assert len(np.unique(cells)) == 200
    assert 0.3 < labels[cells].mean() < 0.6


def test_augmenting_adds_or_subtracts_one_vector_and_clamps():
    x = torch.rand(500, 6) * 9
    vectors = torch.randn(4, 6)
    moved = augment(x, vectors, torch.Generator().manual_seed(0))
    candidates = torch.stack([(x + s * v).clamp(0, 9) for v in vectors for s in (1, -1)])
    matches = (candidates - moved).abs().amax(dim=2) < 1e-6
    assert matches.any(dim=0).all()
    assert (matches.sum(dim=1) > 30).all()
    assert moved.min() >= 0
    assert moved.max() <= 9
