"""Models of pretexts and of proteins are independent of their files, and refuse damaged ones."""

import os

import numpy as np
import pandas as pd
import pytest
import torch

from scvi_sctab._constants import WEIGHTS_FILE
from scvi_sctab.base import read_checkpoint
from scvi_sctab.external import ProteinPredictor
from scvi_sctab.pretrain import BYOL, MaskedAutoencoder

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture(params=[MaskedAutoencoder, BYOL, ProteinPredictor], scope="module")
def _saved_model(request, _cuts):
    cells = _cuts[0][::4].copy()
    setup = ()
    if request.param is ProteinPredictor:
        counts = np.random.default_rng(0).poisson(5, (cells.n_obs, 2)).astype(float)
        cells.obsm["protein"] = pd.DataFrame(counts, cells.obs_names, ["CD3", "CD4"])
        setup = ("protein",)
    request.param.setup_anndata(cells, *setup)
    model = request.param(cells, widths=(16, 8))
    model.train(max_epochs=1, **QUIET)
    return model


@pytest.fixture
def saved_model(_saved_model):
    """A trained model, shared: do not train it further."""
    return _saved_model


def answers(model, query):
    if isinstance(model, ProteinPredictor):
        return model.predict_protein(query).to_numpy()
    return model.get_latent_representation(query)


def test_a_loaded_model_outlives_its_file(saved_model, query, tmp_path):
    saved_model.save(tmp_path / "model")
    loaded = type(saved_model).load(tmp_path / "model")
    assert loaded.digest == saved_model.digest
    os.truncate(tmp_path / "model" / WEIGHTS_FILE, 0)
    np.testing.assert_array_equal(answers(loaded, query), answers(saved_model, query))
    assert loaded.digest == saved_model.digest


def test_a_damaged_file_is_refused(saved_model, tmp_path):
    saved_model.save(tmp_path / "model")
    path = tmp_path / "model" / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    for position in np.random.default_rng(0).integers(0, len(content), 20):
        content[position] ^= 4
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            type(saved_model).load(tmp_path / "model")
        content[position] ^= 4


def test_genes_of_other_cells_are_brought_into_order(saved_model, tmp_path):
    saved_model.save(tmp_path / "model")
    cells = saved_model.adata.copy()
    mixed = cells[:, ::-1].copy()
    loaded = type(saved_model).load(tmp_path / "model", mixed)
    assert list(loaded.adata.var_names) == list(cells.var_names)
    np.testing.assert_array_equal(answers(loaded, cells), answers(saved_model, cells))
    loaded.train(max_epochs=1, **QUIET)
    assert loaded.digest != saved_model.digest


def test_a_published_encoder_outlives_its_file(query, tmp_path):
    genes = list(query.var_names)
    weights = {
        "encoder.0.weight": torch.randn(8, len(genes)),
        "encoder.0.bias": torch.randn(8),
        "encoder.3.weight": torch.randn(4, 8),
        "encoder.3.bias": torch.randn(4),
    }
    path = tmp_path / "run.ckpt"
    torch.save({"state_dict": weights}, path)
    model = MaskedAutoencoder.from_ssl_in_scg_checkpoint(path, genes)
    before = model.get_latent_representation(query)
    assert read_checkpoint(path)["state_dict"]["encoder.0.bias"].shape == (8,)
    os.truncate(path, 0)
    np.testing.assert_array_equal(model.get_latent_representation(query), before)
