"""Checkpoints laid out as scTab published them, small."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.model._published import find_checkpoint
from scvi_sctab.nn import TabNet, normalize_counts

N_GENES, N_LABELS = 40, 6
GENES = [f"ENSG{i:011d}" for i in range(N_GENES)]
LABELS = ["B cell", "T cell", "macrophage", "monocyte", "natural killer cell", "neuron"]
SHAPE = {"n_d": 8, "n_a": 4, "n_steps": 2, "n_shared": 2, "n_independent": 3}
RECORDED = {
    "gamma": 1.7,
    "epsilon": 1e-12,
    "virtual_batch_size": 64,
    "momentum": 0.05,
    "mask_type": "sparsemax",
}


def make_network(seed):
    torch.manual_seed(seed)
    network = TabNet(N_GENES, N_LABELS, **SHAPE, **RECORDED)
    network(torch.rand(64, N_GENES) * 3)
    return network.eval()


def write_checkpoint(path, network, **changes):
    """Write what Lightning wrote: weights with a prefix, buffers, classes among the settings."""
    state = {f"classifier.{name}": tensor for name, tensor in network.state_dict().items()}
    state["class_weights"] = torch.ones(N_LABELS)
    state["child_lookup"] = torch.eye(N_LABELS, dtype=torch.int64)
    state["augmentations"] = torch.randn(50, N_GENES)
    checkpoint = {
        "epoch": 41,
        "global_step": 305_000,
        "pytorch-lightning_version": "1.9.4",
        "state_dict": state,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "lr_schedulers": [{"gamma": 0.9, "step_size": 1}],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            **SHAPE,
            **RECORDED,
            "optimizer": torch.optim.AdamW,
            "lr_scheduler": torch.optim.lr_scheduler.StepLR,
            "lr_scheduler_kwargs": {"step_size": 1, "gamma": 0.9, "verbose": True},
        },
        **changes,
    }
    torch.save(checkpoint, path)


@pytest.fixture
def archive(tmp_path):
    """``scTab/run1..5``, each with the checkpoints and settings that scTab kept."""
    for run in range(1, 6):
        directory = tmp_path / "scTab" / f"run{run}"
        directory.mkdir(parents=True)
        best = "val_f1_macro_epoch=41_val_f1_macro=0.847.ckpt"
        write_checkpoint(directory / best, make_network(run))
        worse = "val_f1_macro_epoch=40_val_f1_macro=0.846.ckpt"
        write_checkpoint(directory / worse, make_network(100 + run))
        (directory / "hparams.yaml").write_text(
            "optimizer: !!python/name:torch.optim.adamw.AdamW ''\n"
        )
    return tmp_path / "scTab"


@pytest.fixture
def cells():
    counts = np.random.default_rng(0).poisson(1.5, (30, N_GENES)).astype(np.float32)
    return AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=GENES))


def expected(network, cells):
    x = normalize_counts(torch.from_numpy(cells.X.toarray()))
    with torch.no_grad():
        return network(x)[0].softmax(dim=1).numpy()


def test_five_runs_are_imported_with_one_call_and_predict_as_the_originals(archive, cells):
    models = SCTAB.from_sctab_checkpoints(archive, GENES, LABELS)
    assert len(models) == 5
    for run, model in enumerate(models, start=1):
        probabilities = model.predict(cells, soft=True)
        assert list(probabilities.columns) == LABELS
        np.testing.assert_allclose(probabilities, expected(make_network(run), cells), atol=1e-6)


def test_the_five_runs_are_one_ensemble(archive, cells, tmp_path):
    ensemble = SCTABEnsemble.from_sctab_checkpoints(archive, GENES, LABELS)
    mean = np.mean([expected(make_network(run), cells) for run in range(1, 6)], axis=0)
    np.testing.assert_allclose(ensemble.predict(cells, soft=True), mean, atol=1e-5)
    assert ensemble.calibration is None
    ensemble.save(tmp_path / "ensemble")
    again = SCTABEnsemble.load(tmp_path / "ensemble", adata=False)
    pd.testing.assert_frame_equal(again.annotate(cells), ensemble.annotate(cells))


def test_hyperparameters_come_from_shapes_and_from_the_record(archive):
    model = SCTAB.from_sctab_checkpoint(archive / "run3", GENES, LABELS)
    config = model.network_config.to_kwargs()
    assert {key: config[key] for key in {**SHAPE, **RECORDED}} == {**SHAPE, **RECORDED}
    assert not config["linear_skip"]
    assert model.is_trained


def test_permuted_genes_give_identical_probabilities(archive, cells):
    model = SCTAB.from_sctab_checkpoint(archive / "run1", GENES, LABELS)
    order = np.random.default_rng(1).permutation(N_GENES)
    permuted = cells[:, order].copy()
    permuted.var_names = [f"{name}.4" for name in permuted.var_names]
    pd.testing.assert_frame_equal(
        model.predict(permuted, soft=True), model.predict(cells, soft=True), check_exact=True
    )


def test_labels_in_another_order_keep_their_logits(archive, cells):
    shuffled = ["neuron", "unknown type", "B cell", "T cell", "monocyte", "macrophage"]
    model = SCTAB.from_sctab_checkpoint(archive / "run1", GENES, shuffled)
    probabilities = model.predict(cells, soft=True)[shuffled]
    np.testing.assert_allclose(probabilities, expected(make_network(1), cells), atol=1e-6)


def test_an_imported_model_is_saved_and_loaded(archive, cells, tmp_path):
    model = SCTAB.from_sctab_checkpoint(archive / "run2", GENES, LABELS)
    model.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model")
    pd.testing.assert_frame_equal(
        loaded.predict(cells, soft=True), model.predict(cells, soft=True), check_exact=True
    )
    assert loaded.get_attention(cells).shape == (30, N_GENES)


def test_the_best_checkpoint_of_a_run_is_taken_and_the_first_of_equals(tmp_path):
    for name in ("epoch=45_val_f1_macro=0.847", "epoch=41_val_f1_macro=0.847",
                 "epoch=47_val_f1_macro=0.84"):  # fmt: skip
        (tmp_path / f"val_f1_macro_{name}.ckpt").touch()
    assert find_checkpoint(tmp_path).name == "val_f1_macro_epoch=41_val_f1_macro=0.847.ckpt"


def test_shared_weights_that_differ_are_refused(tmp_path):
    network = make_network(0)
    state = {f"classifier.{k}": v.clone() for k, v in network.state_dict().items()}
    state["classifier.encoder.feat_transformers.1.shared.glu_layers.1.fc.weight"] += 1
    write_checkpoint(tmp_path / "a.ckpt", network, state_dict=state)
    with pytest.raises(ValueError, match=r"shared weights differ at encoder.feat_transformers.1"):
        SCTAB.from_sctab_checkpoint(tmp_path / "a.ckpt", GENES, LABELS)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_pickled_code_in_a_checkpoint_is_refused_and_not_executed(tmp_path):
    trace = tmp_path / "executed"
    write_checkpoint(tmp_path / "a.ckpt", make_network(0), extra=Malicious(str(trace)))
    with pytest.raises(ValueError, match="cannot be read without running code"):
        SCTAB.from_sctab_checkpoint(tmp_path / "a.ckpt", GENES, LABELS)
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Malicious(str(trace))))
    with pytest.raises(ValueError, match="not a checkpoint or is damaged"):
        SCTAB.from_sctab_checkpoint(tmp_path / "b.ckpt", GENES, LABELS)
    assert not trace.exists()


def test_genes_and_labels_that_do_not_fit_are_counted(archive):
    with pytest.raises(ValueError, match="40 genes and 6 labels, but 39 var_names and 6 labels"):
        SCTAB.from_sctab_checkpoint(archive / "run1", GENES[:-1], LABELS)
    with pytest.raises(ValueError, match=r"Labels are duplicated: \['B cell'\]"):
        SCTAB.from_sctab_checkpoint(archive / "run1", GENES, ["B cell", *LABELS[:-1]])


def test_other_models_of_the_archive_and_other_files_are_told(tmp_path):
    linear = {"state_dict": {"classifier.weight": torch.zeros(6, 40)}}
    torch.save(linear, tmp_path / "linear.ckpt")
    with pytest.raises(
        ValueError, match=r"not a checkpoint of scTab's TabNet: it has \['weight'\]"
    ):
        SCTAB.from_sctab_checkpoint(tmp_path / "linear.ckpt", GENES, LABELS)
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match="has no state_dict"):
        SCTAB.from_sctab_checkpoint(tmp_path / "list.ckpt", GENES, LABELS)
    (tmp_path / "text.ckpt").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="not a checkpoint or is damaged"):
        SCTAB.from_sctab_checkpoint(tmp_path / "text.ckpt", GENES, LABELS)
    write_checkpoint(tmp_path / "whole.ckpt", make_network(0))
    content = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a checkpoint or is damaged"):
        SCTAB.from_sctab_checkpoint(tmp_path / "half.ckpt", GENES, LABELS)
    with pytest.raises(FileNotFoundError, match="no file or directory"):
        SCTAB.from_sctab_checkpoint(tmp_path / "nothing.ckpt", GENES, LABELS)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        SCTAB.from_sctab_checkpoint(tmp_path, GENES, LABELS)
    with pytest.raises(FileNotFoundError, match="no run1"):
        SCTAB.from_sctab_checkpoints(tmp_path, GENES, LABELS)


def test_what_a_checkpoint_does_not_record_is_warned_about(tmp_path):
    write_checkpoint(tmp_path / "a.ckpt", make_network(0), hyper_parameters={"gamma": 1.7})
    with pytest.warns(UserWarning, match=r"does not record \['epsilon', .*'mask_type'\]"):
        SCTAB.from_sctab_checkpoint(tmp_path / "a.ckpt", GENES, LABELS)


def test_a_type_named_as_unlabelled_cells_are_is_kept(archive, cells):
    labels = [*LABELS[:-1], "unknown"]
    model = SCTAB.from_sctab_checkpoint(archive / "run1", GENES, labels)
    assert list(model.labels) == labels
    probabilities = model.predict(cells, soft=True)
    np.testing.assert_allclose(probabilities, expected(make_network(1), cells), atol=1e-6)
