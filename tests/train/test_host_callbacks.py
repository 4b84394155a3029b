"""The host's callbacks work with every training plan, and torch has its threads back."""

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from scvi.train import SaveCheckpoint

from scvi_sctab import SCTAB
from scvi_sctab.external import ProteinPredictor
from scvi_sctab.pretrain import BYOL, BarlowTwins, MaskedAutoencoder

STEPS = {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}
PRETRAINED = [MaskedAutoencoder, BYOL, BarlowTwins, ProteinPredictor]


class Watch(Callback):
    """Keep what steps return, and the number of torch's threads while they do."""

    def __init__(self, error=None):
        self.losses, self.n_threads, self.error = [], set(), error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"])
        self.n_threads.add(torch.get_num_threads())
        if self.error:
            raise self.error


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def make(cls, cells):
    if cls is SCTAB:
        SCTAB.setup_anndata(cells, labels_key="cell_type", donor_key="donor_id")
    elif cls is ProteinPredictor:
        cells.obsm["protein"] = pd.DataFrame(
            cells.X[:, :3].toarray(), cells.obs_names, ["first", "second", "third"]
        )
        cls.setup_anndata(cells, "protein")
    else:
        cls.setup_anndata(cells)
    return cls(cells)


@pytest.mark.parametrize("cls", [SCTAB, *PRETRAINED])
def test_steps_return_their_loss_without_its_graph(cls, reference):
    model, watch = make(cls, reference), Watch()
    model.train(**STEPS, callbacks=[watch])
    assert not any(loss.requires_grad for loss in watch.losses)
    last = watch.losses[len(watch.losses) // 2 :]
    logged = model.history_["train_loss"].iloc[-1].item()
    # The host logs a mean over cells, SCTAB one over batches.
    np.testing.assert_allclose(torch.stack(last).mean(), logged, rtol=0.05)


@pytest.mark.parametrize("cls", [SCTAB, *PRETRAINED])
def test_a_checkpoint_of_the_host_loads_with_the_weights_of_its_epoch(cls, reference, tmp_path):
    model = make(cls, reference)
    callback = SaveCheckpoint(dirpath=str(tmp_path), monitor="validation_loss", save_top_k=-1)
    model.train(**STEPS, callbacks=[callback], train_size=1 - 1 / 8, check_val_every_n_epoch=1)
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert len(folders) == STEPS["max_epochs"]
    assert callback.best_model_path in map(str, folders)
    losses = model.history_["validation_loss"].to_numpy().ravel()
    assert str(min(losses))[:4] in callback.best_model_path
    loaded = cls.load(callback.best_model_path, reference)
    if cls is SCTAB:
        assert loaded.predict().shape == (reference.n_obs,)
    assert loaded.is_trained_


def test_checkpointing_is_enabled_by_its_flag(reference, tmp_path, monkeypatch):
    monkeypatch.setattr("scvi.settings.logging_dir", str(tmp_path))
    model = make(SCTAB, reference)
    model.train(**STEPS, enable_checkpointing=True)
    assert list(tmp_path.rglob("model.pt"))


@pytest.mark.parametrize("cls", [SCTAB, *PRETRAINED])
def test_torch_has_one_thread_while_a_model_trains_and_its_own_afterwards(cls, reference):
    model, watch = make(cls, reference), Watch()
    model.train(**STEPS, callbacks=[watch])
    assert watch.n_threads == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("cls", [SCTAB, MaskedAutoencoder])
def test_torch_has_its_threads_back_after_a_training_that_failed(cls, reference):
    model = make(cls, reference)
    with pytest.raises(RuntimeError, match="out of disk"):
        model.train(**STEPS, callbacks=[Watch(RuntimeError("out of disk"))])
    assert torch.get_num_threads() == 2


def test_torch_has_one_thread_while_cells_are_predicted_and_its_own_between(model, monkeypatch):
    found = set()
    forward = type(model.module).forward

    def look(*args, **kwargs):
        found.add(torch.get_num_threads())
        return forward(*args, **kwargs)

    monkeypatch.setattr(type(model.module), "forward", look)
    model.annotate()
    assert found == {1}
    assert torch.get_num_threads() == 2
    for _ in model._map_cells(lambda _: None, model._select(None, np.arange(10)), 5):
        assert torch.get_num_threads() == 2
