"""One way to train, whatever ends it."""

import os
import signal

import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback

from scvi_sctab._config import SELF_SUPERVISED_PLAN
from scvi_sctab.base import fit, seed, watch_validation
from scvi_sctab.data import UnlabeledDataSplitter
from scvi_sctab.pretrain import MaskedAutoencoder
from scvi_sctab.train import RestoreBestWeights, SelfSupervisedTrainingPlan

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


class Do(Callback):
    """Do something at the start of an epoch."""

    def __init__(self, epoch, action):
        self.epoch, self.action = epoch, action

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.action()


def interrupt():
    # A job in the background of a shell inherits a signal that is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)


def fail():
    raise RuntimeError("out of memory")


@pytest.fixture
def model(unlabelled):
    cells = unlabelled[::4].copy()
    MaskedAutoencoder.setup_anndata(cells)
    return MaskedAutoencoder(cells, widths=(16, 8))


def run(model, max_epochs=3, **arguments):
    splitter = UnlabeledDataSplitter(model.adata_manager, train_size=0.9, batch_size=64)
    plan = SelfSupervisedTrainingPlan(
        model.module, **SELF_SUPERVISED_PLAN.to_kwargs(), lr_decay_every=1
    )
    return fit(model, plan, splitter, max_epochs, **QUIET, **arguments)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def test_a_training_that_ends_was_not_interrupted(model):
    model.module.eval()
    before = weights(model)
    assert run(model) is False
    assert model.is_trained
    assert not model.module.training
    assert len(model.history_["train_loss"]) == 3
    assert any(not torch.equal(t, before[name]) for name, t in weights(model).items())


def test_dropout_is_on_while_a_model_trains(model):
    model.module.eval()
    modes = []
    run(model, callbacks=[Do(1, lambda: modes.append(model.module.training))])
    assert modes == [True]


def test_ctrl_c_keeps_what_was_learnt_and_says_so(model, capsys):
    assert run(model, callbacks=[Do(1, interrupt)]) is True
    assert model.is_trained
    assert not model.module.training
    assert "stopped by Ctrl-C in epoch 2 of 3" in capsys.readouterr().err
    assert len(model.train_indices_) + len(model.validation_indices_) == model.adata.n_obs


@pytest.mark.parametrize(
    ("action", "error"), [(interrupt, KeyboardInterrupt), (fail, RuntimeError)]
)
def test_a_training_without_a_whole_epoch_leaves_a_model_as_it_was(model, action, error):
    before = weights(model)
    with pytest.raises(error):
        run(model, callbacks=[Do(0, action)])
    assert not model.is_trained
    assert model.history_ is None
    for name, tensor in weights(model).items():
        assert torch.equal(tensor, before[name]), name


def test_a_second_training_adds_to_the_history_and_one_of_an_import_begins_it(model):
    model.is_trained_ = True  # as of an imported encoder
    run(model, 2)
    assert len(model.history_["train_loss"]) == 2
    run(model, 2)
    assert len(model.history_["train_loss"]) == 4


def test_what_is_given_wins_over_what_validation_asks_for():
    mine = Callback()
    given = {"callbacks": [mine], "early_stopping_patience": 7, "precision": 32}
    arguments = watch_validation(
        given, "loss", "min", early_stopping=True, patience=3, keep_best_from=5
    )
    assert arguments["early_stopping_patience"] == 7
    assert arguments["early_stopping_monitor"] == "loss"
    assert arguments["precision"] == 32
    first, best = arguments["callbacks"]
    assert first is mine
    assert isinstance(best, RestoreBestWeights)
    assert (best.monitor, best.sign, best.from_epoch) == ("loss", -1, 5)
    assert given["callbacks"] == [mine]
    last = watch_validation(
        given, "loss", "min", early_stopping=False, patience=3, keep_best=False
    )
    assert last["callbacks"] == [mine]


@pytest.mark.parametrize("value", [None, 0, 7])
def test_the_seed_is_that_of_scvi_tools(value, monkeypatch):
    monkeypatch.setattr(type(scvi.settings), "seed", value)
    assert seed() == (value or 0)
