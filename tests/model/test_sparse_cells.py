"""From AnnData to labels without the zeros."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from scipy import sparse

from scvi_sctab import SCTAB
from scvi_sctab.data import to_tensor
from scvi_sctab.sparse import CSR, storable
from scvi_sctab.train import ClassifierTrainingPlan

KEYS = {"labels_key": "cell_type", "donor_key": "donor_id"}
ONE_EPOCH = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}


def refuse(*_):
    raise AssertionError("Cells were made dense.")


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_cells_never_become_dense_on_the_cpu(reference, query, preset, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "to_dense", refuse)
    monkeypatch.setattr(CSR, "to_dense", refuse)
    SCTAB.setup_anndata(reference, **KEYS)
    model = SCTAB(reference, preset=preset)
    model.train(**ONE_EPOCH, batch_size=128)
    # Means of donors are dense, cells are not.
    for name in ("toarray", "todense"):
        monkeypatch.setattr(sparse.csr_matrix, name, refuse)
    assert len(model.annotate(query)) == query.n_obs
    assert sparse.issparse(model.get_attention(query))


def test_training_loss_is_the_mean_over_steps_and_there_for_callbacks(reference, monkeypatch):
    steps, logged = [], []
    backward = ClassifierTrainingPlan.manual_backward

    def record(plan, loss):
        steps.append(float(loss.detach()))
        backward(plan, loss)

    class Look(Callback):
        def on_train_epoch_end(self, trainer, plan):
            logged.append(float(trainer.callback_metrics["train_loss"]))

    monkeypatch.setattr(ClassifierTrainingPlan, "manual_backward", record)
    SCTAB.setup_anndata(reference, **KEYS)
    model = SCTAB(reference)
    model.train(**{**ONE_EPOCH, "max_epochs": 3}, batch_size=100, callbacks=[Look()])
    expected = np.array(steps).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(logged, expected, rtol=1e-5)
    history = model.history["train_loss"].to_numpy(dtype=float).ravel()
    np.testing.assert_allclose(history, expected, rtol=1e-5)


def test_an_epoch_that_max_steps_ends_early_has_a_training_loss(reference):
    SCTAB.setup_anndata(reference, **KEYS)
    model = SCTAB(reference)
    model.train(**ONE_EPOCH, max_steps=4, batch_size=100)
    assert len(model.history["train_loss"]) == 1


def test_half_precision_on_the_cpu_is_refused_with_the_cure(reference):
    SCTAB.setup_anndata(reference, **KEYS)
    with pytest.raises(TypeError, match="precision=32"):
        SCTAB(reference).train(**ONE_EPOCH, precision="bf16-true")


def test_genes_have_no_attention_where_the_encoder_has_none(reference, query):
    SCTAB.setup_anndata(reference, **KEYS)
    model = SCTAB(reference, preset="small", encoder="mlp")
    model.train(**ONE_EPOCH)
    markers = model.get_markers(query, n_genes=len(model.gene_names))
    assert markers["attention"].isna().all()
    assert markers["expression"].notna().all()


def test_devices_without_sparse_tensors_are_handed_dense_ones():
    counts = to_tensor(sparse.csr_matrix(np.eye(3, dtype=np.float32)))
    assert storable(counts, torch.device("cpu")) is counts
    assert storable(counts, torch.device("cuda")) is counts
    assert torch.equal(storable(counts, torch.device("mps")), torch.eye(3))


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_counts_in_memory_are_shared_and_never_written_to(reference, query, preset):
    reference.X = sparse.csr_matrix(reference.X, dtype=np.float32)
    query.X = sparse.csr_matrix(query.X, dtype=np.float32)
    before = [adata.X.copy() for adata in (reference, query)]
    SCTAB.setup_anndata(reference, **KEYS)
    model = SCTAB(reference, preset=preset)
    model.train(**ONE_EPOCH, batch_size=128)
    model.predict(query[:, reference.var_names].copy(), soft=True)
    model.get_attention(query)
    model.get_markers(query, n_genes=2)
    for adata, counts in zip((reference, query), before, strict=True):
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(adata.X, name), getattr(counts, name))


@pytest.mark.filterwarnings("ignore:Training will be faster when sparse matrix:UserWarning")
@pytest.mark.parametrize("encoder", ["tabnet", "mlp", "linear"])
def test_sparse_and_dense_storage_train_the_same_model(reference, query, encoder):
    tables = []
    for store in (sparse.csr_matrix, sparse.csc_matrix, lambda x: sparse.csr_matrix(x).toarray()):
        cells = reference.copy()
        cells.X = store(cells.X)
        SCTAB.setup_anndata(cells, **KEYS)
        torch.manual_seed(0)
        model = SCTAB(cells, preset="small", encoder=encoder)
        model.train(**ONE_EPOCH)
        tables.append(model.predict(query, soft=True))
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], rtol=0, atol=1e-5)
