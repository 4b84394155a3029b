"""Weights are float32, and answers the same, whatever the program around has set."""

from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from lightning.pytorch.plugins import HalfPrecision

from scvi_sctab import SCTAB
from scvi_sctab.external import ProteinPredictor
from scvi_sctab.nn import single_precision
from scvi_sctab.pretrain import BYOL, BarlowTwins, MaskedAutoencoder

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@contextmanager
def float64_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def half_precision():
    return torch.autocast("cpu", dtype=torch.bfloat16)


around = pytest.mark.parametrize("program", [float64_default, half_precision])


def toy(n_cells=150, seed=0, batches=("a", "b")):
    """Cells of three types, each with genes and a protein of its own."""
    rng = np.random.default_rng(seed)
    types = rng.integers(3, size=n_cells)
    own = np.kron(np.eye(3), np.ones(6))
    obs = pd.DataFrame(
        {"cell_type": [f"type {t}" for t in types], "run": rng.choice(batches, n_cells)},
        [f"{seed}-{i}" for i in range(n_cells)],
    )
    genes = pd.DataFrame(index=[f"G{i}" for i in range(18)])
    cells = AnnData(rng.poisson(1 + own[types]).astype("float32"), obs, genes)
    proteins = rng.poisson(5 + 20 * np.eye(3)[types]).astype(float)
    cells.obsm["protein"] = pd.DataFrame(proteins, cells.obs_names, ["CD3", "CD4", "CD8"])
    return cells


def sctab(**overrides):
    cells = toy()
    SCTAB.setup_anndata(cells, labels_key="cell_type", batch_key="run")
    # The width of attention is one of TabNet alone.
    small = {"n_d": 4, "n_a": 4} if overrides.get("encoder", "tabnet") == "tabnet" else {"n_d": 4}
    return SCTAB(cells, **small, **overrides)


def pretext(cls, *setup):
    cells = toy()
    cls.setup_anndata(cells, *setup)
    return cls(cells, encoder="selu", widths=(16, 8))


MODELS = {
    "small": sctab,
    "paper": lambda: sctab(preset="paper"),
    "mlp": lambda: sctab(encoder="mlp"),
    "reconstruction": lambda: sctab(reconstruction_weight=1.0),
    "MaskedAutoencoder": lambda: pretext(MaskedAutoencoder),
    "BYOL": lambda: pretext(BYOL),
    "BarlowTwins": lambda: pretext(BarlowTwins),
    "ProteinPredictor": lambda: pretext(ProteinPredictor, "protein"),
}


def trained(name):
    scvi.settings.seed = 0
    model = MODELS[name]()
    model.train(max_epochs=2, batch_size=32, **QUIET)
    return model


def answers(model):
    """Answers about other cells."""
    query = toy(40, seed=1)
    if isinstance(model, SCTAB):
        return model.annotate(query)
    if isinstance(model, ProteinPredictor):
        return model.predict_protein(query)
    return pd.DataFrame(model.get_latent_representation(query))


@pytest.fixture(scope="module")
def usual():
    """Models and answers of a program that has set nothing."""
    models = {name: trained(name) for name in MODELS}
    return {name: (model, answers(model)) for name, model in models.items()}


@around
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_the_same_whatever_the_program_has_set(usual, name, program, tmp_path):
    model, expected = usual[name]
    model.save(tmp_path / "model")
    with program():
        pd.testing.assert_frame_equal(answers(model), expected, check_exact=True)
        loaded = type(model).load(tmp_path / "model")
        pd.testing.assert_frame_equal(answers(loaded), expected, check_exact=True)


@around
@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_same_whatever_the_program_has_set(usual, name, program):
    with program():
        model = trained(name)
        found = answers(model)
    assert torch.float64 not in {t.dtype for t in model.module.state_dict().values()}
    pd.testing.assert_frame_equal(found, usual[name][1], check_exact=True)


@around
@pytest.mark.usefixtures("unguarded")
def test_a_query_is_adapted_to_as_ever(usual, program):
    reference, _ = usual["small"]
    query = toy(60, seed=2, batches=("new",))

    def adapted():
        scvi.settings.seed = 0
        model = SCTAB.load_query_data(query, reference)
        model.train(**QUIET)
        return model.annotate()

    expected = adapted()
    with program():
        pd.testing.assert_frame_equal(adapted(), expected, check_exact=True)


def test_what_the_program_has_set_stays(usual):
    with float64_default():
        answers(usual["small"][0])
        assert torch.get_default_dtype() == torch.float64
        with single_precision():
            assert torch.get_default_dtype() == torch.float32
        with pytest.raises(KeyError, match="nothing"), single_precision():
            raise KeyError("nothing")
        assert torch.get_default_dtype() == torch.float64
    with half_precision():
        answers(usual["small"][0])
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["64-true", 64, "16-true", "bf16-true", "nonsense"])
@pytest.mark.parametrize("name", ["small", "MaskedAutoencoder"])
def test_weights_of_another_type_are_refused_with_the_cure(name, precision):
    model = MODELS[name]()
    with pytest.raises(TypeError, match=r"weights are float32, .* Train with `precision=32`"):
        model.train(max_epochs=1, precision=precision, **QUIET)


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_half_precision_is_refused_because_it_rounds_counts(precision):
    with pytest.raises(TypeError, match=r"would round counts, such as 257 to 256\. Train with"):
        sctab().train(max_epochs=1, precision=precision, **QUIET)


@pytest.mark.parametrize("precision", ["16-mixed", 16])
@pytest.mark.parametrize("name", ["small", "MaskedAutoencoder", "ProteinPredictor"])
def test_scaled_gradients_are_refused_because_they_would_be_clipped(name, precision):
    with pytest.raises(TypeError, match=r"scaled gradients\. .*`precision='bf16-mixed'`"):
        MODELS[name]().train(max_epochs=1, precision=precision, **QUIET)


@pytest.mark.parametrize(
    "place",
    [{"trainer_config": {"precision": "bf16-true"}}, {"plugins": [HalfPrecision("bf16-true")]}],
    ids=["config", "plugin"],
)
def test_precision_is_checked_wherever_it_is_set(place):
    with pytest.raises(TypeError, match="would round counts"):
        sctab().train(max_epochs=1, **place, **QUIET)


@pytest.mark.parametrize("precision", [32, "32-true", "bf16-mixed", "bf16"])
def test_mixed_precision_trains_weights_of_float32(precision):
    model = sctab()
    model.train(max_epochs=1, precision=precision, **QUIET)
    assert torch.bfloat16 not in {t.dtype for t in model.module.state_dict().values()}
    assert answers(model)["probability"].between(0, 1).all()
