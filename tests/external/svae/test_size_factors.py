"""Size factors of a whole transcriptome serve a panel of its genes."""

import numpy as np
import pytest
import scvi

from scvi_sctab.external.svae import PerturbationDesign, SpikeSlabVAE, simulate_perturbations

pytestmark = pytest.mark.filterwarnings("ignore:.*latents are a target", "ignore:.*per latent")


def fit(factor):
    cells = simulate_perturbations(PerturbationDesign(8, 3, 20, 25))
    key = None
    if factor is not None:
        key, cells.obs["size"] = "size", cells.X.sum(axis=1) * factor
    SpikeSlabVAE.setup_anndata(cells, "perturbation", size_factor_key=key)
    scvi.settings.seed = 0
    model = SpikeSlabVAE(cells, n_latent=3)
    model.train(2, finetune_epochs=1, n_starts=2, accelerator="cpu", enable_progress_bar=False)
    return model


def test_the_unit_of_size_factors_has_no_effect():
    plain = fit(None).get_latent_representation()
    for factor in (1.0, 300.0):
        found = fit(factor).get_latent_representation()
        np.testing.assert_allclose(found, plain, rtol=1e-2, atol=1e-2)


def test_a_saved_model_keeps_the_unit(tmp_path):
    model = fit(50.0)
    assert float(model.module.size_factor_unit) == pytest.approx(1 / 50, rel=1e-4)
    model.save(str(tmp_path / "model"), save_anndata=True)
    loaded = SpikeSlabVAE.load(str(tmp_path / "model"), accelerator="cpu")
    assert float(loaded.module.size_factor_unit) == float(model.module.size_factor_unit)
