"""Cells without labels, and small models of them; tests change copies."""

import pytest
import scvi

from scvi_sctab.pretrain import MaskedAutoencoder

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"widths": (32, 24, 8)}


@pytest.fixture
def unlabelled(_cuts):
    cells = _cuts[0].copy()
    cells.obs = cells.obs[["donor_id"]].copy()
    return cells


@pytest.fixture(scope="session")
def _autoencoder(_cuts):
    scvi.settings.seed = 0
    cells = _cuts[0].copy()
    cells.obs = cells.obs[["donor_id"]].copy()
    MaskedAutoencoder.setup_anndata(cells)
    model = MaskedAutoencoder(cells, **SMALL)
    model.train(max_epochs=30, batch_size=128, **QUIET)
    return model


@pytest.fixture
def autoencoder(_autoencoder):
    """A trained model, shared: do not train it further."""
    return _autoencoder
