"""Small cuts of the bundled data; tests change copies."""

import os

import numpy as np
import pytest
import scvi

from scvi_sctab import SCTAB, datasets
from scvi_sctab._config import GuardConfig
from scvi_sctab.pretrain import MaskedAutoencoder

N_GENES = 300
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
STEPS = {"max_epochs": 25, **QUIET}
SMALL = {"widths": (32, 24, 8)}


@pytest.fixture(autouse=True)
def seed():
    """Seed each test; scvi-tools appends a flag each time, until no process can be started."""
    flags = os.environ.get("XLA_FLAGS")
    scvi.settings.seed = 0
    yield
    os.environ.pop("XLA_FLAGS", None)
    if flags is not None:
        os.environ["XLA_FLAGS"] = flags


@pytest.fixture
def unguarded(monkeypatch):
    """Adapt to every query, also by models that were trained for an epoch on a few cells."""
    for place in ("_query_guard", "_query_training"):
        monkeypatch.setattr(
            f"scvi_sctab.model.{place}.GUARD",
            GuardConfig(
                -1.0,
                min_cells=1,
                strength=1.0,
                min_share=0.0,
                min_diversity=0.0,
                min_probability=0.0,
            ),
        )


@pytest.fixture(scope="session")
def _cuts():
    reference, query = datasets.pbmc_kang18(), datasets.pbmc3k()
    shared = reference.var_names.intersection(query.var_names)
    reference, query = reference[:, shared].copy(), query[:, shared].copy()
    top = np.sort(np.argsort(-np.asarray(reference.X.sum(axis=0)).ravel())[:N_GENES])
    reference = reference[::3, top].copy()
    reference = reference[~reference.obs["cell_type"].isin(["Eryth", "pDC"])].copy()
    reference.obs["cell_type"] = reference.obs["cell_type"].cat.remove_unused_categories()
    return reference, query[::5, top].copy()


@pytest.fixture
def reference(_cuts):
    return _cuts[0].copy()


@pytest.fixture
def query(_cuts):
    return _cuts[1].copy()


@pytest.fixture(scope="session")
def _trained(_cuts):
    scvi.settings.seed = 0
    reference = _cuts[0].copy()
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference)
    model.train(**STEPS)
    return model


@pytest.fixture
def model(_trained):
    """A trained model, shared: do not train it further."""
    return _trained


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
