"""A training that was killed continues as if it had not been."""

from errno import ENOSPC

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.base import write_checked

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
TRAIN = {"max_epochs": 4, "batch_size": 64, "checkpoint_every_n_steps": 2, **QUIET}


class Stop(Callback):
    """Fail in an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == self.epoch and not trainer.is_last_batch:
            raise RuntimeError("no memory")


@pytest.fixture
def cells(reference):
    return reference[::3].copy()


def build(cells, seed=0, **arguments):
    torch.manual_seed(seed)
    SCTAB.setup_anndata(cells, labels_key="cell_type", donor_key="donor_id")
    return SCTAB(cells, preset="small", **{"encoder": "linear", "linear_skip": True, **arguments})


def weights(model):
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture
def broken(cells, tmp_path):
    """A folder of a training that failed in its second epoch."""
    with pytest.raises(RuntimeError, match="no memory"):
        build(cells).train(checkpoint_dir=tmp_path / "run", callbacks=[Stop(1)], **TRAIN)
    return tmp_path / "run"


def test_a_training_that_has_ended_ends_again(cells, broken):
    models = [build(cells, seed) for seed in (1, 2)]
    for model in models:
        model.train(checkpoint_dir=broken, resume=True, **TRAIN)
        assert model.history_["train_loss"].index.tolist() == [0, 1, 2, 3]
    assert same(*map(weights, models))
    for name, table in models[0].history_.items():
        np.testing.assert_array_equal(models[1].history_[name].to_numpy(), table.to_numpy())


def test_without_a_state_a_training_starts(cells, tmp_path, capsys):
    model = build(cells)
    model.train(checkpoint_dir=tmp_path / "new" / "run", resume=True, **TRAIN)
    assert "There is no state in" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "new" / "run").iterdir()] == ["training.safetensors"]


def test_early_stopping_and_best_weights_are_part_of_the_state(cells, tmp_path):
    arguments = {
        **TRAIN,
        "max_epochs": 12,
        "early_stopping": True,
        "early_stopping_patience": 3,
        "early_stopping_min_delta": 1.0,  # no epoch improves after the first
    }
    whole = build(cells)
    whole.train(checkpoint_dir=tmp_path / "whole", **arguments)
    with pytest.raises(RuntimeError, match="no memory"):
        build(cells).train(checkpoint_dir=tmp_path / "broken", callbacks=[Stop(2)], **arguments)
    model = build(cells, 1)
    model.train(checkpoint_dir=tmp_path / "broken", resume=True, **arguments)
    assert same(weights(model), weights(whole))
    assert len(model.history_["train_loss"]) == len(whole.history_["train_loss"]) < 12


def test_pretraining_continues_as_well(cells, tmp_path):
    arguments = {**TRAIN, "max_epochs": 2}
    results = []
    for folder, callbacks in (("whole", []), ("broken", [Stop(1)])):
        model = build(cells, encoder="tabnet", n_steps=1)
        try:
            model.pretrain(checkpoint_dir=tmp_path / folder, callbacks=callbacks, **arguments)
        except RuntimeError:
            model = build(cells, 1, encoder="tabnet", n_steps=1)
            model.pretrain(checkpoint_dir=tmp_path / folder, resume=True, **arguments)
        results.append(weights(model))
    assert same(*results)


def test_members_of_an_ensemble_have_folders_of_their_own(cells, tmp_path):
    SCTABEnsemble.setup_anndata(cells, labels_key="cell_type", donor_key="donor_id")
    ensemble = SCTABEnsemble(cells, preset="small", encoder="linear", n_members=2)
    arguments = {**TRAIN, "max_epochs": 2, "checkpoint_dir": tmp_path / "run"}
    ensemble.train(**arguments)
    before = [weights(member) for member in ensemble.members]
    again = SCTABEnsemble(cells, preset="small", encoder="linear", n_members=2)
    again.train(**arguments, resume=True)
    assert all(same(*pair) for pair in zip(before, map(weights, again.members), strict=True))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["member1", "member2"]


def test_a_state_is_not_overwritten_by_another_training(cells, broken):
    with pytest.raises(FileExistsError, match="Pass `resume=True` to continue it"):
        build(cells).train(checkpoint_dir=broken, **TRAIN)


def test_resuming_needs_a_folder(cells):
    with pytest.raises(ValueError, match="resume=True continues a training from its folder"):
        build(cells).train(resume=True, **TRAIN)


@pytest.mark.parametrize("number", [0, 1.5, -1])
def test_states_are_some_steps_apart(cells, tmp_path, number):
    with pytest.raises(ValueError, match="give a whole number of at least 1"):
        build(cells).train(checkpoint_dir=tmp_path, checkpoint_every_n_steps=number, **QUIET)


@pytest.mark.parametrize(
    ("network", "training", "named"),
    [
        ({}, {"plan_kwargs": {"lr": 0.5}}, r"lr \(0.01 then, 0.5 now\)"),
        ({}, {"max_epochs": 9}, r"max_epochs \(4 then, 9 now\)"),
        ({}, {"batch_size": 32}, r"batch_size \(64 then, 32 now\)"),
        ({}, {"train_size": 0.5}, "cells to train on"),
        ({"n_d": 3}, {}, "n_d .*, network"),
        ({"encoder_weight": 0.1}, {}, r"encoder_weight \(0.5 then, 0.1 now\)"),
    ],
)
def test_another_training_is_not_continued(cells, broken, network, training, named):
    model = build(cells, **network)
    before = weights(model)
    with pytest.raises(ValueError, match=f"state of another training, which differs in.*{named}"):
        model.train(checkpoint_dir=broken, resume=True, **{**TRAIN, **training})
    assert same(weights(model), before)
    assert not model.is_trained


def test_other_counts_are_not_continued_on(cells, broken):
    cells.X = cells.X * 2
    with pytest.raises(ValueError, match="differs in: counts"):
        build(cells).train(checkpoint_dir=broken, resume=True, **TRAIN)


def test_other_genes_and_labels_are_not_continued_on(cells, broken):
    cells.var_names = cells.var_names[::-1]
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.rename_categories(lambda name: f"{name}s")
    with pytest.raises(ValueError, match="differs in: genes, labels"):
        build(cells).train(checkpoint_dir=broken, resume=True, **TRAIN)


def test_a_trained_model_does_not_continue_its_own_training(cells, broken):
    model = build(cells)
    model.train(checkpoint_dir=broken, resume=True, **TRAIN)
    with pytest.raises(ValueError, match=r"training before \(False then, True now\)"):
        model.train(checkpoint_dir=broken, resume=True, **TRAIN)


@pytest.mark.parametrize("damage", ["flipped", "cut", "other"])
def test_a_damaged_state_is_refused(cells, broken, damage):
    file = broken / "training.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-10] ^= 1
    file.write_bytes(
        b"nothing" if damage == "other" else content[: -1 if damage == "cut" else None]
    )
    with pytest.raises(
        ValueError, match="damaged.*Or remove this file to train from the beginning"
    ):
        build(cells).train(checkpoint_dir=broken, resume=True, **TRAIN)


def test_a_disk_that_is_full_leaves_the_last_state(cells, tmp_path, monkeypatch):
    written = []

    def write(path, *content):
        written.append(path)
        if len(written) == 3:
            path.write_bytes(b"a part")
            raise OSError(ENOSPC, "No space left on device")
        write_checked(path, *content)

    monkeypatch.setattr("scvi_sctab.base._training_state.write_checked", write)
    with pytest.raises(OSError, match="No space left"):
        build(cells).train(checkpoint_dir=tmp_path, **TRAIN)
    assert [file.name for file in tmp_path.iterdir()] == ["training.safetensors"]
    model = build(cells)
    model.train(checkpoint_dir=tmp_path, resume=True, **TRAIN)
    assert len(model.history_["train_loss"]) == TRAIN["max_epochs"]


def test_a_query_model_has_no_state_to_continue_from(model, query, tmp_path):
    mapped = SCTAB.load_query_data(query, model, policy="head")
    with pytest.raises(ValueError, match="query model is short and has no state"):
        mapped.train(checkpoint_dir=tmp_path)
