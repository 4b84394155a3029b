"""Training from a corpus against training in memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from tests.data.stores.conftest import needs_annbatch

from scvi_sctab import SCTAB
from scvi_sctab.data.stores import AtlasDataModule, prepare_corpus
from scvi_sctab.data.stores._loader import CellSampler
from scvi_sctab.pretrain import MaskedAutoencoder

pytestmark = needs_annbatch
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


class Stop(Callback):
    """Fail within the second epoch."""

    def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 4:
            raise RuntimeError("no memory")


@pytest.fixture
def corpus(files, tmp_path):
    return prepare_corpus(
        files, tmp_path / "atlas", labels_key="cell_type", donor_key="donor", dataset_cells=300
    )


@pytest.fixture
def atlas(corpus):
    return AtlasDataModule(corpus)


@pytest.fixture
def trained(atlas):
    model = SCTAB(registry=atlas.registry)
    model.train(max_epochs=8, datamodule=atlas, **QUIET)
    return model


def in_memory(atlas):
    cells = atlas.adata.to_memory()
    cells.obs = cells.obs[["cell_type", "donor"]].copy()
    SCTAB.setup_anndata(cells, labels_key="cell_type", donor_key="donor")
    return cells


def test_a_store_gives_the_same_batches_as_memory(atlas):
    model = SCTAB(registry=atlas.registry)
    model._take_cells(atlas)
    splitter = model._training_cells(train_size=0.9, batch_size=64)
    memory = in_memory(atlas)
    seen = []
    for epoch in range(2):
        loader = splitter.train_dataloader()
        loader.sampler.set_epoch(epoch)
        order = [
            request["requests"][split]
            for request in loader.sampler.sample(atlas.adata.n_obs)
            for split in request["splits"]
        ]
        for batch, cells in zip(loader, order, strict=True):
            assert (batch["X"].to_dense().numpy() == memory.X[cells].toarray()).all()
            assert (batch["labels"].ravel().numpy() == splitter.labels[cells]).all()
        seen.append(np.concatenate(order))
        assert len(set(seen[-1])) == len(seen[-1])
        assert set(seen[-1]) <= set(splitter.train_idx)
    assert len(seen[0]) >= len(splitter.train_idx) - 63
    assert not (seen[0] == seen[1]).all()


def test_a_store_gives_the_same_loss_at_every_step_as_memory(atlas):
    losses = []
    for source in ("store", "memory"):
        scvi.settings.seed = 0
        if source == "store":
            model = SCTAB(registry=atlas.registry)
            model._take_cells(atlas)
        else:
            model = SCTAB(in_memory(atlas))
        module = model.module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        model_of_store = SCTAB(registry=atlas.registry)
        model_of_store._take_cells(atlas)
        loader = model_of_store._training_cells(train_size=0.9, batch_size=64).train_dataloader()
        cells = model._training_cells(train_size=0.9, batch_size=64).cells
        found = []
        for epoch in range(3):
            loader.sampler.set_epoch(epoch)
            order = [
                request["requests"][split]
                for request in loader.sampler.sample(atlas.adata.n_obs)
                for split in request["splits"]
            ]
            batches = iter(loader) if source == "store" else (cells[list(c)] for c in order)
            for batch in batches:
                torch.manual_seed(len(found))
                _, _, output = module(batch)
                optimizer.zero_grad()
                output.loss.backward()
                optimizer.step()
                found.append(float(output.loss.detach()))
        losses.append(found)
    assert len(losses[0]) > 30
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_a_model_trains_and_calibrates_on_a_corpus(trained, atlas, studies):
    assert trained.evaluate().loc["accuracy", "f1"] > 0.9
    assert trained.annotation.calibration is not None
    donors = atlas.adata.obs["donor"].to_numpy()
    assert not set(donors[trained.train_indices]) & set(donors[trained.validation_indices])
    part = atlas.adata.obs["split"].to_numpy()
    assert set(part[trained.train_indices]) == {"train"}
    assert set(part[trained.validation_indices]) == {"val"}
    labelled = atlas.adata.obs["cell_type"].to_numpy() != "unknown"
    assert labelled[trained.train_indices].all()
    predicted = trained.predict(studies[0])
    assert (predicted == studies[0].obs["cell_type"]).mean() > 0.9


def test_a_model_of_a_corpus_is_saved_and_loaded_without_it(trained, studies, tmp_path):
    trained.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model", adata=False)
    cells = studies[1]
    expected = trained.annotate(cells)
    assert loaded.annotate(cells).equals(expected)


def test_a_loaded_model_trains_on(trained, corpus, tmp_path):
    trained.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model", adata=False)
    loaded.train(max_epochs=1, datamodule=AtlasDataModule(corpus), **QUIET)
    assert set(loaded.validation_indices) == set(trained.validation_indices)


def test_another_split_can_be_asked_for(atlas):
    model = SCTAB(registry=atlas.registry)
    model.train(max_epochs=1, datamodule=atlas, train_size=0.5, **QUIET)
    labelled = (atlas.adata.obs["cell_type"] != "unknown").sum()
    assert len(model.train_indices) + len(model.validation_indices) == labelled
    donors = atlas.adata.obs["donor"].to_numpy()
    assert not set(donors[model.train_indices]) & set(donors[model.validation_indices])


def test_differences_between_donors_come_from_the_corpus(atlas):
    model = SCTAB(registry=atlas.registry, preset="paper")
    model.train(max_epochs=1, datamodule=atlas, augment=True, batch_size=256, **QUIET)
    assert model.is_trained


def test_an_autoencoder_trains_on_a_corpus(atlas):
    MaskedAutoencoder.setup_anndata(atlas.adata)
    encoder = MaskedAutoencoder(atlas.adata, widths=(32, 8))
    encoder.train(max_epochs=2, datamodule=atlas, **QUIET)
    latent = encoder.get_latent_representation()
    assert latent.shape == (1200, 8)
    assert np.isfinite(latent).all()


def test_a_query_model_maps_from_a_model_of_a_corpus(trained, studies):
    query = SCTAB.load_query_data(studies[0], trained, policy="head")
    assert len(query.predict()) == 700


def test_a_corpus_of_other_genes_is_refused(trained, files, tmp_path):
    other = prepare_corpus(
        files, tmp_path / "other", labels_key="cell_type", donor_key="donor", genes="union"
    )
    trained.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match=r"60 genes and the model 59, of which 59.*genes=model"):
        loaded.train(max_epochs=1, datamodule=AtlasDataModule(other), **QUIET)


def test_cells_of_a_model_are_not_replaced(atlas, studies):
    SCTAB.setup_anndata(studies[0], labels_key="cell_type")
    with pytest.raises(ValueError, match="another AnnData than the data module"):
        SCTAB(studies[0]).train(max_epochs=1, datamodule=atlas, **QUIET)


def test_worker_processes_are_refused(atlas):
    model = SCTAB(registry=atlas.registry)
    with pytest.raises(TypeError, match="num_workers: cells of a corpus are read by threads"):
        model.train(datamodule=atlas, datasplitter_kwargs={"num_workers": 2}, **QUIET)
    assert not model.is_trained_


def test_other_data_modules_are_refused(atlas):
    with pytest.raises(TypeError, match="takes an AtlasDataModule.*prepare_corpus"):
        SCTAB(registry=atlas.registry).train(max_epochs=1, datamodule=object(), **QUIET)


def test_a_damaged_chunk_is_an_error(atlas, corpus):
    model = SCTAB(registry=atlas.registry)
    chunks = [
        p for p in (corpus.collection / "dataset_1" / "X" / "data").rglob("*") if p.is_file()
    ]
    for chunk in chunks:
        if chunk.name != "zarr.json":
            chunk.write_bytes(b"no data" * 50)
    with pytest.raises(OSError, match="block of the corpus cannot be read.*prepare it anew"):
        model.train(max_epochs=1, datamodule=atlas, **QUIET)
    assert not model.is_trained


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("n_cells", [40_000, 1407, 255])
def test_processes_share_the_batches_of_one(n_ranks, training, n_cells):
    cells = np.flatnonzero(np.random.default_rng(0).random(n_cells) < 0.95)
    arguments = {"training": training, "seed": 3}
    one = batches_of(CellSampler(cells, 64 * n_ranks, **arguments))
    shares = []
    for rank in range(n_ranks):
        sampler = CellSampler(cells, 64, **arguments, place=(rank, n_ranks))
        shares.append(batches_of(sampler))
        assert sampler.n_batches() == len(one) == len(shares[-1])
    for i, whole in enumerate(one):
        assert (np.concatenate([share[i] for share in shares]) == whole).all()
    read = np.concatenate(one)
    assert len(set(read)) == len(read)
    left_out = len(cells) - len(read)
    assert left_out < (64 * n_ranks if training else n_ranks)
    assert training or left_out == (len(cells) % (64 * n_ranks) if left_out else 0)


def test_too_few_cells_for_the_processes_are_refused():
    with pytest.raises(ValueError, match="3 cells to train on cannot be divided among 2 devices"):
        CellSampler(np.arange(3), 64, training=True, seed=0, place=(0, 2))


def test_batches_that_are_done_are_not_read_again():
    cells = np.arange(50_000)
    whole, rest = (
        CellSampler(cells, 100, training=True, seed=1, start=start) for start in ((0, 0), (2, 203))
    )
    whole.set_epoch(2)
    assert all(map(np.array_equal, batches_of(rest), batches_of(whole)[203:]))
    assert len(batches_of(rest)) == 500 - 203
    for sampler in (whole, rest):
        sampler.set_epoch(3)
    assert all(map(np.array_equal, batches_of(rest), batches_of(whole)))
    assert len(batches_of(rest)) == 500


def test_few_cells_are_one_short_batch():
    (only,) = batches_of(CellSampler(np.arange(10), 64, training=True, seed=0))
    assert sorted(only) == list(range(10))


def batches_of(sampler):
    return [
        request["requests"][split]
        for request in sampler.sample(50_000)
        for split in request["splits"]
    ]


def test_a_training_from_a_corpus_continues_where_it_was_stopped(corpus, tmp_path):
    arguments = {"max_epochs": 3, "batch_size": 64, "checkpoint_every_n_steps": 2, **QUIET}

    def build(seed):
        torch.manual_seed(seed)
        atlas = AtlasDataModule(corpus)
        return SCTAB(registry=atlas.registry, preset="small"), atlas

    whole, atlas = build(0)
    whole.train(datamodule=atlas, checkpoint_dir=tmp_path / "whole", **arguments)
    stopped, atlas = build(0)
    with pytest.raises(RuntimeError, match="no memory"):
        stopped.train(
            datamodule=atlas, checkpoint_dir=tmp_path / "run", callbacks=[Stop()], **arguments
        )
    resumed, atlas = build(1)
    resumed.train(datamodule=atlas, checkpoint_dir=tmp_path / "run", resume=True, **arguments)
    weights = whole.module.state_dict()
    for name, tensor in resumed.module.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert len(resumed.history["train_loss"]) == 3


@pytest.mark.latest
@pytest.mark.slow(reason="starts Python three times, which imports torch")
def test_two_devices_train_from_a_corpus_as_one_does_on_batches_of_twice_the_size(
    corpus, tmp_path
):
    script = Path(__file__).parent / "train_on_devices.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for devices in (1, 2):
        command = [sys.executable, str(script), str(devices), str(corpus.path), str(tmp_path)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, first, second = (
        np.load(tmp_path / f"{name}.npz", allow_pickle=False) for name in ("1-0", "2-0", "2-1")
    )
    assert set(one) == set(first) == set(second)
    for name in one:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        # Minibatches of odd numbers of held-out cells are divided unevenly, for the loss alone.
        tolerance = 1e-3 if name == "history validation_loss" else 1e-4
        np.testing.assert_allclose(first[name], one[name], rtol=tolerance, atol=1e-5, err_msg=name)


def test_labels_of_another_set_up_are_not_learnt(atlas, trained):
    before = trained._label_codes().copy()
    SCTAB.setup_anndata(atlas.adata, labels_key="donor", batch_key="cell_type")
    trained.train(max_epochs=1, datamodule=atlas, **QUIET)
    assert (trained._label_codes() == before).all()


def test_the_same_corpus_may_be_opened_again(trained, corpus):
    trained.train(max_epochs=1, datamodule=AtlasDataModule(corpus), **QUIET)


def test_cells_that_are_set_up_otherwise_are_refused(trained, corpus, tmp_path):
    trained.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match="set up with batch_key=None, the cells with 'donor'"):
        loaded.train(max_epochs=1, datamodule=AtlasDataModule(corpus, batch_key="donor"), **QUIET)
    assert loaded.adata is None


def test_a_refused_call_leaves_the_model_without_cells(atlas):
    model = SCTAB(registry=atlas.registry)
    with pytest.raises(ValueError, match="at least one epoch"):
        model.train(max_epochs=0, datamodule=atlas, **QUIET)
    assert model.adata is None


def test_columns_of_the_corpus_can_be_left_out(corpus):
    atlas = AtlasDataModule(corpus, donor_key=None)
    assert atlas.registry["setup_args"]["donor_key"] is None


def test_a_loaded_encoder_trains_on_from_a_corpus(atlas, corpus, tmp_path):
    MaskedAutoencoder.setup_anndata(atlas.adata)
    encoder = MaskedAutoencoder(atlas.adata, widths=(32, 8))
    encoder.train(max_epochs=1, datamodule=atlas, **QUIET)
    encoder.save(tmp_path / "encoder")
    loaded = MaskedAutoencoder.load(tmp_path / "encoder", adata=False)
    before = loaded.module.encoder.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    loaded.train(max_epochs=1, datamodule=AtlasDataModule(corpus), **QUIET)
    after = loaded.module.encoder.state_dict()
    assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())
