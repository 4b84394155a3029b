"""Saving loses nothing; loading executes nothing."""

import json
import os
import pickle

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from safetensors.torch import load_file, save_file

from scvi_sctab import SCTAB
from scvi_sctab.base import (
    NotPortableError,
    decode,
    encode,
    read_checked,
    write_checked,
)


def assert_same(model, other, query):
    pd.testing.assert_frame_equal(
        model.predict(query, soft=True), other.predict(query, soft=True), check_exact=True
    )
    np.testing.assert_array_equal(model.labels, other.labels)
    np.testing.assert_array_equal(model.gene_names, other.gene_names)
    np.testing.assert_array_equal(model.train_indices, other.train_indices)
    assert model.preset_ == other.preset_
    for name, frame in model.history.items():
        np.testing.assert_allclose(
            other.history[name].to_numpy(dtype=float), frame.to_numpy(dtype=float)
        )


def test_a_loaded_model_predicts_the_same_without_any_anndata(model, query, tmp_path):
    model.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model")
    assert loaded.adata is None
    assert_same(model, loaded, query)
    with pytest.raises(ValueError, match="no AnnData of its own"):
        loaded.predict()
    with pytest.raises(ValueError, match="no AnnData to train on"):
        loaded.train()


def test_a_model_loaded_with_its_reference_trains_on(model, reference, query, tmp_path):
    model.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model", reference)
    assert_same(model, loaded, query)
    before = loaded.predict(query, soft=True)
    loaded.train(max_epochs=1, enable_progress_bar=False)
    assert not before.equals(loaded.predict(query, soft=True))


def test_the_anndata_travels_with_the_model_where_asked(model, query, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    loaded = SCTAB.load(tmp_path / "model")
    assert loaded.adata.shape == model.adata.shape
    assert_same(model, loaded, query)
    assert SCTAB.load(tmp_path / "model", adata=False).adata is None


def test_unlabelled_cells_can_be_loaded_with(model, reference, tmp_path):
    model.save(tmp_path / "model")
    del reference.obs["cell_type"]
    assert SCTAB.load(tmp_path / "model", reference).predict().shape == (reference.n_obs,)
    assert "cell_type" not in reference.obs


def test_later_defaults_do_not_change_a_saved_model(model, query, tmp_path, monkeypatch):
    model.save(tmp_path / "model")
    from scvi_sctab import _config

    changed = _config.PRESETS["paper"]
    monkeypatch.setitem(_config.PRESETS, "small", changed)
    assert_same(model, SCTAB.load(tmp_path / "model"), query)


def test_genes_are_brought_into_order_but_never_invented(model, reference, query, tmp_path):
    model.save(tmp_path / "model")
    mixed = reference[:, ::-1].copy()
    mixed.obsm["umap"] = np.zeros((mixed.n_obs, 2))
    loaded = SCTAB.load(tmp_path / "model", mixed)
    assert list(loaded.adata.var_names) == list(model.gene_names)
    assert (loaded.adata.X != reference.X).nnz == 0
    assert "umap" in loaded.adata.obsm
    assert "_scvi_labels" not in mixed.obs
    expected = SCTAB.load(tmp_path / "model", reference)
    for each in (loaded, expected):
        scvi.settings.seed = 0
        each.train(max_epochs=1, enable_progress_bar=False)
    assert_same(expected, loaded, query)
    with pytest.raises(
        ValueError, match=r"lacks 1 of the model's 300 genes, e\.g\. .*adata=False"
    ):
        SCTAB.load(tmp_path / "model", reference[:, 1:].copy())


def test_the_hosts_own_tools_read_the_files(model, tmp_path):
    model.save(tmp_path / "model")
    registry = scvi.model.base.BaseModelClass.load_registry(str(tmp_path / "model"))
    assert registry["model_name"] == "SCTAB"
    assert registry["setup_args"]["labels_key"] == "cell_type"


def test_an_existing_directory_is_left_as_it_is(model, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="already exists and was left as it is.*overwrite=True"):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path / "model") == ["notes.txt"]
    model.save(tmp_path / "model", overwrite=True)
    assert sorted(os.listdir(tmp_path / "model")) == [
        "model.pt",
        "model.safetensors",
        "notes.txt",
    ]
    assert os.listdir(tmp_path) == ["model"]


def test_a_failed_save_keeps_the_old_model_and_leaves_nothing_behind(
    model, query, tmp_path, monkeypatch
):
    model.save(tmp_path / "model")

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scvi_sctab.base._digest.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        model.save(tmp_path / "model", overwrite=True)
    with pytest.raises(OSError, match="No space left"):
        model.save(tmp_path / "other")
    assert os.listdir(tmp_path) == ["model"]
    assert_same(model, SCTAB.load(tmp_path / "model"), query)


def test_a_file_in_place_of_the_directory_is_not_replaced(model, tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(ValueError, match="already exists"):
        model.save(tmp_path / "model", overwrite=True)
    assert (tmp_path / "model").read_text() == "mine"


def test_models_with_a_prefix_share_a_directory(model, query, tmp_path):
    model.save(tmp_path / "models", prefix="a_")
    model.save(tmp_path / "models", prefix="b_", overwrite=True)
    assert_same(model, SCTAB.load(tmp_path / "models", prefix="a_"), query)
    with pytest.raises(FileNotFoundError, match="no model in"):
        SCTAB.load(tmp_path / "models")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path):
    directory, trace = tmp_path / "model", tmp_path / "executed"
    directory.mkdir()
    (directory / "model.pt").write_bytes(pickle.dumps(Malicious(str(trace))))
    with pytest.raises(ValueError, match="runs code when loaded.*allow_pickle=True"):
        SCTAB.load(directory)
    assert not trace.exists()


def test_a_malicious_pickle_beside_the_safe_form_is_not_read(model, query, tmp_path):
    model.save(tmp_path / "model")
    trace = tmp_path / "executed"
    (tmp_path / "model" / "model.pt").write_bytes(pickle.dumps(Malicious(str(trace))))
    assert_same(model, SCTAB.load(tmp_path / "model"), query)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:Save path contains no saved anndata")
def test_a_trusted_pickle_loads_where_asked(model, query, tmp_path):
    model.save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    loaded = SCTAB.load(tmp_path / "model", adata=False, allow_pickle=True)
    pd.testing.assert_frame_equal(
        model.predict(query, soft=True), loaded.predict(query, soft=True), check_exact=True
    )


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_told(model, tmp_path, share):
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="is not a model or is damaged"):
        SCTAB.load(tmp_path / "model")


def test_other_files_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither model.safetensors nor model.pt"):
        SCTAB.load(tmp_path)
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(ValueError, match="not a model of this package"):
        SCTAB.load(tmp_path)


def test_shared_weights_are_written_once(model, tmp_path):
    model.save(tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    shared = [name for name in tensors if "shared_layers.0" in name or "glu_layers.0.fc" in name]
    names = model.module.state_dict()
    assert sum("shared" in name and name.endswith("weight") for name in shared) == 1
    assert sum("shared_layers.0" in name for name in names) == 2


def test_every_kind_of_value_survives_the_round_trip():
    value = {
        "a": [1, 2.5, None, True, "x", float("inf")],
        1: (np.int64(3), np.float32(0.5)),
        "numbers": np.arange(6).reshape(2, 3),
        "strings": np.array(["u", "v"], dtype=object),
        "frame": pd.DataFrame({"loss": [1.0, np.nan]}, index=pd.Index([0, 1], name="epoch")),
    }
    arrays = {}
    back = decode(encode(value, arrays), arrays)
    assert back["a"] == value["a"]
    assert back[1] == (3, 0.5)
    np.testing.assert_array_equal(back["numbers"], value["numbers"])
    np.testing.assert_array_equal(back["strings"], value["strings"])
    pd.testing.assert_frame_equal(back["frame"], value["frame"])
    with pytest.raises(NotPortableError, match="A set cannot be written without pickle"):
        encode({1, 2}, {})


@pytest.mark.parametrize(
    "array",
    [
        np.array([0, 2**63, 2**64 - 1], np.uint64),
        np.array([-(2**63), 2**63 - 1], np.int64),
        np.array([[255, 0]], np.uint8),
        np.array([2**32 - 1], np.uint32),
        np.array([True, False]),
        np.array([0.1, np.nan, -np.inf], np.float16),
        np.array([0.1, 1e-300]),
        np.array([1, 2], ">i4"),
        np.arange(6.0).reshape(2, 3).T,
        np.zeros((0, 3), np.uint64),
        np.array(7, np.uint64),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_survive_a_file_to_the_last_bit(array, tmp_path):
    arrays = {}
    value = encode({"split": {"cells": array}}, arrays)
    tensors = {name: torch.from_numpy(a) for name, a in arrays.items()}
    write_checked(tmp_path / "file", tensors, {"format": "new", "value": json.dumps(value)})
    tensors, metadata = read_checked(tmp_path / "file", "a file", "new", "old")
    back = decode(json.loads(metadata["value"]), {k: t.numpy() for k, t in tensors.items()})
    found = back["split"]["cells"]
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)
    found[...] = 0  # memory of its own, which may be written to


def test_strings_keep_their_shape_and_long_doubles_are_refused():
    names = np.array([["a", "b"], ["c", "d"], ["e", "f"]], dtype=object)
    np.testing.assert_array_equal(decode(encode(names, {}), {}), names)
    pairs = np.fromiter([("a", 1), ("b", 2)], object, 2)
    assert list(decode(encode(pairs, {}), {})) == [("a", 1), ("b", 2)]
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(NotPortableError, match="cannot be written without pickle"):
            encode(np.ones(2, np.longdouble), {})


def test_a_model_without_cells_cannot_save_them(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"no AnnData to save: leave out `save_anndata=True`"):
        loaded.save(tmp_path / "other", save_anndata=True)
    assert os.listdir(tmp_path) == ["model"]


def test_cells_of_an_earlier_model_are_neither_taken_nor_lost(model, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    model.save(tmp_path / "model", overwrite=True)
    assert SCTAB.load(tmp_path / "model").adata is None
    assert (tmp_path / "model" / "adata.h5ad").exists()


def test_the_anndata_may_be_a_path_and_other_things_are_refused(model, reference, tmp_path):
    model.save(tmp_path / "model")
    reference.write_h5ad(tmp_path / "cells.h5ad")
    loaded = SCTAB.load(tmp_path / "model", tmp_path / "cells.h5ad")
    assert loaded.adata.n_obs == reference.n_obs
    with pytest.raises(TypeError, match="must be an AnnData, a path, None or False, not True"):
        SCTAB.load(tmp_path / "model", adata=True)
    with pytest.raises(TypeError, match=r"no arguments \['nonsense'\]"):
        SCTAB.load(tmp_path / "model", nonsense=3)


def test_a_loaded_model_trains_on_new_donors(model, reference, tmp_path):
    model.save(tmp_path / "model")
    reference.obs["donor_id"] = reference.obs["donor_id"].astype(str) + "b"
    loaded = SCTAB.load(tmp_path / "model", reference)
    loaded.train(max_epochs=1, enable_progress_bar=False)
    assert loaded.evaluate().loc["accuracy", "f1"] > 0.5


def test_both_files_have_the_same_permissions(model, tmp_path):
    model.save(tmp_path / "model")
    modes = {file.stat().st_mode for file in (tmp_path / "model").iterdir()}
    assert len(modes) == 1
