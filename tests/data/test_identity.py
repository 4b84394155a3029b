"""Fingerprints of cells."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scvi_sctab.data import CellIdentities, CellSelection, TrainingRecord, identify
from scvi_sctab.data._identity import hash_counts


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return sparse.csr_matrix(rng.poisson(1.0, (50, 40)).astype(np.float32))


def as_cells(counts, names=None):
    names = [f"c{i}" for i in range(counts.shape[0])] if names is None else names
    genes = pd.DataFrame(index=[f"G{i}" for i in range(counts.shape[1])])
    adata = AnnData(counts, pd.DataFrame(index=names), genes)
    return CellSelection(adata, np.arange(adata.n_obs)), list(genes.index)


def reference_hash(row):
    """SplitMix64 over gene and bits of the count, summed."""
    total = 0
    for column, value in zip(row.indices, row.data, strict=True):
        if value == 0:
            continue
        bits = int(np.float32(value).view(np.uint32))
        x = ((int(column) << 32) ^ bits) + 0x9E3779B97F4A7C15
        x &= 2**64 - 1
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
        total += x ^ (x >> 31)
    return total % 2**64


def test_a_hash_is_what_plain_python_gives(counts):
    hashes, n_genes = hash_counts(counts)
    assert [reference_hash(row) for row in counts] == hashes.tolist()
    np.testing.assert_array_equal(n_genes, counts.getnnz(axis=1))


def test_a_hash_depends_on_neither_the_order_of_columns_nor_stored_zeros(counts):
    loose = counts.copy()
    for start, stop in zip(loose.indptr[:-1], loose.indptr[1:], strict=True):
        loose.indices[start:stop] = loose.indices[start:stop][::-1].copy()
        loose.data[start:stop] = loose.data[start:stop][::-1].copy()
    np.testing.assert_array_equal(hash_counts(loose)[0], hash_counts(counts)[0])
    with_zeros = counts.copy()
    with_zeros.data[::7] = 0
    pruned = with_zeros.copy()
    pruned.eliminate_zeros()
    for own, other in zip(hash_counts(with_zeros), hash_counts(pruned), strict=True):
        np.testing.assert_array_equal(own, other)


def test_one_count_more_makes_another_cell(counts):
    changed = counts.copy()
    changed.data[changed.indptr[3]] += 1
    differ = hash_counts(changed)[0] != hash_counts(counts)[0]
    assert np.flatnonzero(differ).tolist() == [3]


def test_names_hash_alike_on_every_machine():
    # Saved in files, so that another version of pandas must give the same.
    assert pd.util.hash_array(np.array(["cell 1"], dtype=object))[0] == 18403257008904091123


def test_cells_of_few_genes_are_recognised_by_name_only(counts):
    shallow = counts.toarray()
    shallow[:, 19:] = 0
    own, genes = as_cells(sparse.csr_matrix(shallow))
    other, _ = as_cells(sparse.csr_matrix(shallow), [f"d{i}" for i in range(50)])
    known = identify(own, genes)
    assert known.among(known).all()
    assert not identify(other, genes).among(known).any()


def test_joining_adds_what_is_new(counts):
    cells, genes = as_cells(counts)
    everyone = identify(cells, genes)
    first, last = everyone.take(np.arange(30)), everyone.take(np.arange(20, 50))
    assert len(first.join(last)) == 50
    assert everyone.among(first.join(last)).all()
    assert len(first.join(CellIdentities.none())) == 30


def test_a_record_of_several_models_holds_out_what_none_was_trained_on(counts):
    cells, genes = as_cells(counts)
    everyone = identify(cells, genes)
    none = CellIdentities.none()

    def record(held_out):
        mask = np.isin(np.arange(50), held_out)
        return TrainingRecord(everyone.take(~mask), everyone.take(mask), none)

    joined = TrainingRecord.join([record([1, 2, 3, 4]), record([3, 4, 5])])
    assert np.flatnonzero(everyone.among(joined.held_out)).tolist() == [3, 4]
    assert np.flatnonzero(~everyone.among(joined.trained)).tolist() == [3, 4]


def test_a_record_survives_being_saved(counts):
    cells, genes = as_cells(counts)
    everyone = identify(cells, genes)
    record = TrainingRecord(everyone.take(slice(0, 9)), everyone, CellIdentities.none())
    again = TrainingRecord.from_dict(record.to_dict())
    np.testing.assert_array_equal(again.trained.keys, record.trained.keys)
    np.testing.assert_array_equal(again.held_out.counts, record.held_out.counts)
    assert len(again.set_aside) == 0
