"""A rotation within the weights of a model changes its latents and nothing that it decodes."""

from dataclasses import replace

import numpy as np
import pytest
import scvi
import torch
from scvi.model import SCANVI, SCVI, LinearSCVI
from torch import nn

from scvi_sctab.external.svae import (
    PerturbationDesign,
    rotate_decoder,
    rotate_encoder,
    rotate_scvi,
    simulate_perturbations,
    sparse_rotation,
)

DESIGN = PerturbationDesign(
    n_perturbations=12, n_latent=4, n_genes=30, n_cells=30, n_control_cells=40,
    n_batches=2, batch_sd=0.3, max_targets=2,
)  # fmt: skip
# A model of two epochs has no targets yet.
pytestmark = pytest.mark.filterwarnings("ignore:.*latents are a target")


@pytest.fixture(scope="module")
def screen():
    return simulate_perturbations(DESIGN)


@pytest.fixture
def rotation(screen):
    latents = screen.obsm["latent"] @ np.random.default_rng(0).normal(size=(4, 4)) + 1
    return sparse_rotation(latents, screen.obs["perturbation"], "control", n_starts=2)


def train(model):
    scvi.settings.seed = 0
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False, logger=False)
    return model


def scvi_model(adata, cls=SCVI, **changes):
    adata = adata.copy()
    cls.setup_anndata(adata, batch_key="batch")
    return train(cls(adata, n_latent=4, n_hidden=16, **changes))


def scanvi_model(adata, **changes):
    adata = adata.copy()
    SCANVI.setup_anndata(
        adata, labels_key="perturbation", unlabeled_category="?", batch_key="batch"
    )
    return train(SCANVI(adata, n_latent=4, n_hidden=16, **changes))


def decode(model, latents):
    """Mean counts of given latents, by the generative part."""
    batch = model.adata_manager.get_from_registry("batch").astype(np.int64)
    z = torch.as_tensor(latents, dtype=torch.float32)
    with torch.no_grad():
        decoded = model.module.generative(z, torch.ones(len(z), 1), torch.as_tensor(batch))
    return decoded["px"].mean.numpy()


def test_layers_absorb_a_rotation(rotation):
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(7, 4), nn.Linear(4 + 3, 9)
    hidden, covariates = torch.randn(20, 7), torch.randn(20, 3)
    with torch.no_grad():
        latents = encoder(hidden)
        read = decoder(torch.cat([latents, covariates], dim=1))
        rotate_encoder(encoder, rotation)
        rotate_decoder(decoder, rotation)
        modules = encoder(hidden)
        np.testing.assert_allclose(modules, rotation.transform(latents), atol=1e-5)
        assert not np.allclose(modules, latents, atol=0.1)
        again = decoder(torch.cat([modules, covariates], dim=1))
    np.testing.assert_allclose(again, read, atol=1e-5)


def test_layers_that_do_not_fit_are_refused(rotation):
    for rotate, layer in (
        (rotate_encoder, nn.Linear(7, 5)),
        (rotate_encoder, nn.Linear(4, 3)),
        (rotate_decoder, nn.Linear(3, 4)),
    ):
        with pytest.raises(ValueError, match="rotation is of 4 latents.*another number of"):
            rotate(layer, rotation)
    for rotate in (rotate_encoder, rotate_decoder):
        with pytest.raises(ValueError, match="has no bias, which the offset of the rotation"):
            rotate(nn.Linear(4, 4, bias=False), rotation)


@pytest.mark.parametrize("changes", [{}, {"deeply_inject_covariates": False, "n_layers": 2}])
@pytest.mark.parametrize("build", [scvi_model, scanvi_model])
def test_a_rotated_model_decodes_and_predicts_the_same(screen, build, changes):
    model = build(screen, **changes)
    latents, variances = model.get_latent_representation(return_dist=True)
    before = decode(model, latents)
    probabilities = model.predict(soft=True) if build is scanvi_model else None
    rotation = rotate_scvi(model, "perturbation", "control", n_starts=2)
    modules, variances_of_modules = model.get_latent_representation(return_dist=True)
    np.testing.assert_allclose(modules, rotation.transform(latents), atol=1e-4)
    assert not np.allclose(modules, latents, atol=0.1)
    np.testing.assert_allclose(decode(model, modules), before, rtol=1e-4, atol=1e-5)
    # The diagonal of the covariance after the change of coordinates.
    covariance = rotation.matrix.T @ np.diag(variances.mean(axis=0)) @ rotation.matrix
    assert np.ptp(variances_of_modules, axis=0).max() < 1e-6
    np.testing.assert_allclose(variances_of_modules[0], np.diag(covariance), rtol=1e-3)
    if probabilities is not None:
        np.testing.assert_allclose(model.predict(soft=True), probabilities, atol=1e-5)


def test_the_latents_of_scanvi_between_its_networks_stay_the_same(screen):
    model = scanvi_model(screen)
    module = model.module
    z = torch.as_tensor(model.get_latent_representation())
    labels = torch.zeros(len(z), 1, dtype=torch.long)

    def inner(z1):
        with torch.no_grad():
            return module.encoder_z2_z1(z1, labels)[0].loc.numpy()

    def outer(z2):
        with torch.no_grad():
            return module.decoder_z1_z2(z2, labels)[0].numpy()

    before, prior = inner(z), outer(z)
    rotation = rotate_scvi(model, "perturbation", n_starts=2)
    np.testing.assert_allclose(
        inner(torch.as_tensor(model.get_latent_representation())), before, atol=1e-4
    )
    np.testing.assert_allclose(outer(z), rotation.transform(prior), atol=1e-4)


def test_a_rotated_model_keeps_its_rotation_when_saved(screen, tmp_path):
    model = scvi_model(screen)
    rotate_scvi(model, screen.obs["perturbation"], n_starts=2)
    modules = model.get_latent_representation()
    model.save(str(tmp_path / "model"), save_anndata=True)
    loaded = SCVI.load(str(tmp_path / "model"), accelerator="cpu")
    np.testing.assert_allclose(loaded.get_latent_representation(), modules, atol=1e-6)


def test_a_series_of_labels_is_aligned_with_the_cells(screen):
    labels = screen.obs["perturbation"].astype(str)
    effects = []
    for given in (labels, labels[::-1]):
        scvi.settings.seed = 0
        effects.append(rotate_scvi(scvi_model(screen), given, "control", n_starts=2).effects)
    np.testing.assert_allclose(*effects, atol=1e-5)
    with pytest.raises(ValueError, match="labels are named by cell, but 1 of 400"):
        rotate_scvi(scvi_model(screen), labels[1:])


def test_a_second_rotation_changes_nothing(screen):
    model = scvi_model(screen)
    first = rotate_scvi(model, "perturbation", "control", n_starts=4)
    # Latents have unit variance within perturbations, and their axes are sparse.
    second = rotate_scvi(model, "perturbation", "control", n_starts=4)
    assert second.criterion == pytest.approx(first.criterion, rel=1e-3)


def test_models_that_cannot_be_rotated_are_refused(screen):
    with pytest.raises(TypeError, match="takes an scvi.model.SCVI or SCANVI, not LinearSCVI"):
        rotate_scvi(scvi_model(screen, LinearSCVI), "perturbation")
    with pytest.raises(TypeError, match="not ndarray. Find the rotation by `sparse_rotation"):
        rotate_scvi(screen.X, "perturbation")
    untrained = screen.copy()
    SCVI.setup_anndata(untrained)
    with pytest.raises(RuntimeError, match="This SCVI is not trained: call `model.train"):
        rotate_scvi(SCVI(untrained), "perturbation")
    simplex = scvi_model(screen, latent_distribution="ln")
    with pytest.raises(ValueError, match="latent_distribution='ln', whose latents are positive"):
        rotate_scvi(simplex, "perturbation")
    softplus = scvi_model(screen, var_activation=nn.functional.softplus)
    with pytest.raises(ValueError, match="another `var_activation` than the exponential"):
        rotate_scvi(softplus, "perturbation")
    minified = scvi_model(screen)
    means, variances = minified.get_latent_representation(return_dist=True)
    minified.adata.obsm["X_latent_qzm"], minified.adata.obsm["X_latent_qzv"] = means, variances
    minified.minify_adata()
    with pytest.raises(ValueError, match="is minified: `adata` holds its latents"):
        rotate_scvi(minified, "perturbation")


def test_labels_that_the_cells_lack_are_refused(screen):
    model = scvi_model(screen)
    with pytest.raises(ValueError, match=r"no column 'Perturbation' \(near 'perturbation'\)"):
        rotate_scvi(model, "Perturbation")
    before = model.get_latent_representation()
    with pytest.raises(ValueError, match="No cell has the control 'non-targeting'"):
        rotate_scvi(model, "perturbation", "non-targeting")
    with pytest.raises(ValueError, match="`labels` has 3 entries and `latents` 400 rows"):
        rotate_scvi(model, ["A", "B", "B"])
    np.testing.assert_array_equal(model.get_latent_representation(), before)


def test_a_design_without_batches_has_no_covariates_in_the_decoder(screen):
    adata = simulate_perturbations(replace(DESIGN, n_batches=1))
    SCVI.setup_anndata(adata)
    model = train(SCVI(adata, n_latent=4, n_hidden=16))
    latents = model.get_latent_representation()
    before = decode(model, latents)
    rotate_scvi(model, "perturbation", n_starts=2)
    after = decode(model, model.get_latent_representation())
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
