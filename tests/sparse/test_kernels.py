"""Kernels of products on parts of the rows, and on more blocks of genes than one, against numpy."""

import numpy as np
import pytest
from scipy import sparse

from scvi_sctab.sparse._kernels import matmul_rows, transposed_matmul_rows

UNTOUCHED = 7.0


@pytest.fixture(params=[0.2, 0.9], ids=["sparse", "nearly dense"])
def rows(request):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 33)) * (rng.random((9, 33)) < request.param)
    matrix = sparse.csr_matrix(values)
    return values, (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)


# Of the larger width, a block that fits into the cache has 4 genes.
@pytest.mark.parametrize("width", [3, 24_000])
@pytest.mark.parametrize(("start", "stop"), [(0, 7), (7, 20), (20, 33), (0, 33), (5, 5)])
def test_a_part_of_the_genes_is_written_and_nothing_else(rows, start, stop, width):
    values, arrays = rows
    dense = np.random.default_rng(1).normal(size=(9, width))
    output = np.full((33, width), UNTOUCHED)
    transposed_matmul_rows(start, stop, *arrays, dense, output)
    np.testing.assert_allclose(output[start:stop], values.T[start:stop] @ dense, atol=1e-12)
    assert (output[:start] == UNTOUCHED).all()
    assert (output[stop:] == UNTOUCHED).all()


@pytest.mark.parametrize("width", [3, 24_000])
@pytest.mark.parametrize(("start", "stop"), [(0, 4), (4, 9), (0, 9), (3, 3)])
def test_a_part_of_the_cells_is_written_and_nothing_else(rows, start, stop, width):
    values, arrays = rows
    rng = np.random.default_rng(1)
    scale, weight, offset = (
        rng.normal(size=33),
        rng.normal(size=(33, width)),
        rng.normal(size=width),
    )
    output = np.full((9, width), UNTOUCHED)
    matmul_rows(start, stop, *arrays, scale, weight, offset, output)
    expected = (values * scale) @ weight + offset
    np.testing.assert_allclose(output[start:stop], expected[start:stop], atol=1e-12)
    assert (output[:start] == UNTOUCHED).all()
    assert (output[stop:] == UNTOUCHED).all()
