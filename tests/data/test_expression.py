"""Sparse log-normalised expression against dense arithmetic."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scvi_sctab.data import align_genes, normalized_expression

GENES = [f"gene{i}" for i in range(12)]


@pytest.fixture
def counts():
    counts = np.random.default_rng(0).poisson(0.5, (5000, 12))
    counts[7] = 0
    return counts


def expected(counts):
    total = counts.sum(axis=1, keepdims=True)
    return np.log1p(1e4 * counts / np.where(total == 0, 1, total))


@pytest.mark.parametrize("store", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_expression_is_that_of_dense_counts_in_several_blocks(counts, store):
    adata = AnnData(store(counts.astype(np.float32)), var=pd.DataFrame(index=GENES))
    values = normalized_expression(adata)
    assert values.format == "csr"
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.toarray(), expected(counts), rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(adata[:9].to_memory().to_df()), counts[:9])


def test_cells_are_normalised_over_the_genes_of_the_model(counts):
    adata = AnnData(sparse.csr_matrix(counts[:, ::-1]), var=pd.DataFrame(index=GENES[::-1]))
    alignment = align_genes([*GENES[:10], "other"], adata.var)
    values = normalized_expression(adata, alignment=alignment).toarray()
    np.testing.assert_allclose(values[:, :10], expected(counts[:, :10]), rtol=1e-5)
    assert (values[:, 10] == 0).all()
