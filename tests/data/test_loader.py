"""Training batches are CSR tensors, whatever the counts are stored as."""

import anndata
import numpy as np
import pytest
import scvi
import torch
from scipy import sparse

from scvi_sctab import SCTAB
from scvi_sctab.data import LabeledDataSplitter, UnlabeledDataSplitter

BATCH_SIZE = 100


def scrambled(x):
    """Columns of every row backwards."""
    x = sparse.csr_matrix(x)
    for first, end in zip(x.indptr, x.indptr[1:], strict=False):
        x.indices[first:end] = x.indices[first:end][::-1].copy()
        x.data[first:end] = x.data[first:end][::-1].copy()
    x.has_sorted_indices = False
    return x


def halved(x):
    """Every count in two entries, so that no entry is a whole count."""
    x = x.tocoo()
    parts = np.concatenate([x.data // 2, x.data - x.data // 2])
    rows, columns = np.tile(x.row, 2), np.tile(x.col, 2)
    order = np.argsort(rows, kind="stable")
    indptr = np.searchsorted(rows[order], np.arange(x.shape[0] + 1))
    return sparse.csr_matrix((parts[order], columns[order], indptr), shape=x.shape)


STORED = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "dense": lambda x: x.toarray(),
    "dense by columns": lambda x: np.asfortranarray(x.toarray()),
    "unsorted": scrambled,
    "in two entries": halved,
    "float64": lambda x: x.astype(np.float64),
    "integer": lambda x: x.astype(np.int64),
    "dense integer": lambda x: x.toarray().astype(np.uint16),
}


def splitter_of(adata, **arguments):
    SCTAB.setup_anndata(adata, labels_key="cell_type")
    manager = SCTAB(adata, preset="small").adata_manager
    n_labels = adata.obs["cell_type"].nunique()
    arguments = {"train_size": 0.8, "batch_size": BATCH_SIZE, **arguments}
    return LabeledDataSplitter(manager, n_labels, **arguments)


def assert_batches_are_rows_of(loader, cells, x, codes):
    """Batches in the order of ``cells``."""
    start = 0
    for batch in loader:
        counts, labels = batch["X"], batch["labels"]
        here = cells[start : start + len(labels)]
        assert counts.layout is torch.sparse_csr
        assert counts.values().dtype == torch.float32
        assert counts.col_indices().dtype == counts.crow_indices().dtype == torch.int32
        expected = sparse.csr_matrix(x[here])
        np.testing.assert_array_equal(counts.crow_indices(), expected.indptr)
        np.testing.assert_array_equal(counts.col_indices(), expected.indices)
        np.testing.assert_array_equal(counts.values(), expected.data)
        assert labels.dtype == torch.int64
        np.testing.assert_array_equal(labels, codes[here][:, None])
        start += len(here)
    assert start == len(cells)


@pytest.mark.parametrize("form", STORED)
@pytest.mark.filterwarnings("ignore:Training will be faster when sparse matrix is")
def test_batches_are_the_dense_rows_as_csr(reference, form):
    x, codes = reference.X.toarray(), reference.obs["cell_type"].cat.codes.to_numpy()
    reference.X = STORED[form](reference.X)
    splitter = splitter_of(reference)
    assert_batches_are_rows_of(splitter.val_dataloader(), splitter.val_idx, x, codes)


@pytest.mark.parametrize("form", STORED)
@pytest.mark.filterwarnings("ignore:Training will be faster when sparse matrix is")
def test_batches_may_be_dense_and_hold_further_arrays(reference, form):
    x = reference.X.toarray()
    reference.X = STORED[form](reference.X)
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    manager = SCTAB(reference, preset="small").adata_manager
    arrays = {"number": np.arange(reference.n_obs)[:, None]}
    splitter = UnlabeledDataSplitter(
        manager, train_size=0.8, batch_size=BATCH_SIZE, arrays=arrays, dense=True
    )
    start = 0
    for batch in splitter.val_dataloader():
        cells = splitter.val_idx[start : start + len(batch["X"])]
        assert batch["X"].layout is torch.strided
        assert batch["X"].dtype == torch.float32
        np.testing.assert_array_equal(batch["X"], x[cells])
        np.testing.assert_array_equal(batch["number"].ravel(), cells)
        start += len(cells)
    assert start == splitter.n_val


def test_batches_of_a_layer_are_its_rows(reference):
    x, codes = reference.X.toarray(), reference.obs["cell_type"].cat.codes.to_numpy()
    reference.layers["counts"] = reference.X.copy()
    reference.X = reference.X.log1p()
    SCTAB.setup_anndata(reference, labels_key="cell_type", layer="counts")
    manager = SCTAB(reference, preset="small").adata_manager
    splitter = LabeledDataSplitter(manager, 6, train_size=0.8, batch_size=BATCH_SIZE)
    assert_batches_are_rows_of(splitter.val_dataloader(), splitter.val_idx, x, codes)


@pytest.mark.parametrize("form", ["csr", "dense", "csc"])
@pytest.mark.filterwarnings("ignore:`X` lies on disk by columns")
def test_batches_of_a_file_are_its_rows(reference, tmp_path, form):
    x, codes = reference.X.toarray(), reference.obs["cell_type"].cat.codes.to_numpy()
    reference.X = STORED[form](reference.X)
    reference.write_h5ad(tmp_path / "reference.h5ad")
    backed = anndata.read_h5ad(tmp_path / "reference.h5ad", backed="r")
    cells = np.random.default_rng(0).permutation(backed.n_obs)[:250]
    splitter = splitter_of(backed, external_indexing=[np.setdiff1d(range(924), cells), cells])
    assert_batches_are_rows_of(splitter.val_dataloader(), cells, x, codes)
    backed.file.close()


def test_training_batches_are_shuffled_and_hold_each_cell_once(reference):
    reference.obs["number"] = np.arange(reference.n_obs)
    x = reference.X.toarray()
    splitter = splitter_of(reference, batch_size=50)
    rows = torch.cat([b["X"].to_dense() for b in splitter.train_dataloader()]).numpy()
    in_order = x[splitter.train_idx][: len(rows)]
    assert not (rows == in_order).all()
    known = {row.tobytes() for row in x[splitter.train_idx]}
    assert len(rows) == len(splitter.train_idx) // 50 * 50
    assert {row.tobytes() for row in rows} <= known
    assert len({row.tobytes() for row in rows}) > 0.9 * len(rows)


@pytest.mark.parametrize(
    "arguments", [{"num_workers": 1}, {"pin_memory": True}, {"num_workers": 1, "pin_memory": True}]
)
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator")
def test_batches_of_other_processes_and_in_pinned_memory_are_the_same(reference, arguments):
    x, codes = reference.X.toarray(), reference.obs["cell_type"].cat.codes.to_numpy()
    splitter = splitter_of(reference, **arguments)
    assert_batches_are_rows_of(splitter.val_dataloader(), splitter.val_idx, x, codes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU needs pinned memory")
def test_batches_are_pinned_where_that_is_of_use(reference):
    splitter = splitter_of(reference, pin_memory=True)
    assert next(iter(splitter.val_dataloader()))["X"].values().is_pinned()


def test_reading_and_predicting_leave_the_counts_of_the_user_as_they_were(model, query):
    x = scrambled(query.X)
    query.X = x
    before = x.data.copy(), x.indices.copy(), x.indptr.copy()
    for permuted in (query, query[:, ::-1].copy()):
        model.predict(permuted)
    sorted_query = query.copy()
    sorted_query.X.sort_indices()
    kept = sorted_query.X.data.copy()
    model.predict(sorted_query)
    np.testing.assert_array_equal(sorted_query.X.data, kept)
    assert query.X is x
    for array, old in zip((x.data, x.indices, x.indptr), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_training_leaves_the_counts_of_the_user_as_they_were(reference):
    scvi.settings.seed = 0
    before = reference.X.copy()
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    SCTAB(reference, preset="small").train(max_epochs=1, enable_progress_bar=False)
    assert (reference.X != before).nnz == 0
