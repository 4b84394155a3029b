"""A small screen and a model that is trained on it for some steps."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import scvi

from scvi_sctab.external import SpikeSlabVAE
from scvi_sctab.external.svae import PAPER_DESIGN, simulate_perturbations

DESIGN = replace(
    PAPER_DESIGN,
    n_perturbations=8,
    n_latent=3,
    n_genes=30,
    n_cells=24,
    n_control_cells=40,
    n_combinations=2,
    max_targets=2,
    n_batches=3,
)
TRAINER = {"accelerator": "cpu", "enable_progress_bar": False}
NETWORK = {"n_latent": 3, "n_hidden": 16, "n_layers": 1}
FEW = {"max_epochs": 2, "finetune_epochs": 1, "n_starts": 2, "batch_size": 64, **TRAINER}


def fit(cells, setup=None, training=None, **network):
    """Train a small model; few steps do not find modules, which the rotation warns about."""
    SpikeSlabVAE.setup_anndata(cells, **(setup or {"perturbation_key": "perturbation"}))
    model = SpikeSlabVAE(cells, **{**NETWORK, **network})
    arguments = {**FEW, **(training or {})}
    if model.module.prior != "spike_slab":
        del arguments["finetune_epochs"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Only .* of")
        model.train(**arguments)
    return model


@pytest.fixture(scope="session")
def whole():
    screen = simulate_perturbations(DESIGN, seed=0)
    screen.obs["age"] = np.random.default_rng(0).normal(50, 9, screen.n_obs)
    screen.obs["depth"] = screen.X.sum(axis=1)
    return screen


@pytest.fixture
def screen(whole):
    """Eight perturbations, two pairs of them, controls; three batches."""
    return whole.copy()


@pytest.fixture
def singles(whole):
    """The screen without pairs, and without the last perturbation and the last batch."""
    return reference_of(whole)


def reference_of(screen):
    names, batches = screen.obs["perturbation"].astype(str), screen.obs["batch"].astype(str)
    kept = ~names.str.contains("+", regex=False) & (names != "P007") & (batches != "batch_2")
    return screen[kept.to_numpy()].copy()


SETUP = {
    "perturbation_key": "perturbation",
    "control_category": "control",
    "separator": "+",
    "batch_key": "batch",
    "continuous_covariate_keys": ["age"],
    "size_factor_key": "depth",
}


@pytest.fixture(scope="session")
def _trained(whole):
    scvi.settings.seed = 0
    return fit(reference_of(whole), SETUP)


@pytest.fixture
def trained(_trained):
    """A trained model with a batch, a covariate and size factors; do not change it."""
    return _trained


@pytest.fixture
def held_out(whole):
    """Cells of the perturbation that the model does not know."""
    names, batches = whole.obs["perturbation"].astype(str), whole.obs["batch"].astype(str)
    return whole[((names == "P007") & (batches != "batch_2")).to_numpy()].copy()
