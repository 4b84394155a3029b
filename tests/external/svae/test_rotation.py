"""Sparse rotation of latents: recovery of known axes, and invariance to how latents are given."""

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from scvi_sctab._config import ROTATION
from scvi_sctab.external.svae import (
    PerturbationDesign,
    SpikeSlabVAE,
    simulate_perturbations,
    sparse_rotation,
)
from scvi_sctab.external.svae._rotation import otsu_threshold
from scvi_sctab.metrics import match_latents, mean_correlation_coefficient, target_scores

N_LATENT = 5
DESIGN = PerturbationDesign(
    n_perturbations=20, n_latent=N_LATENT, n_genes=60, n_cells=60, max_targets=2
)


@pytest.fixture(scope="module")
def screen():
    return simulate_perturbations(DESIGN, seed=3)


@pytest.fixture(scope="module")
def found(screen):
    mixing = np.random.default_rng(0).normal(size=(N_LATENT, N_LATENT))
    latents = screen.obsm["latent"] @ mixing + 3
    return latents, sparse_rotation(latents, screen.obs["perturbation"], n_starts=8)


def test_axes_and_targets_of_mixed_latents_are_found(screen, found):
    latents, rotation = found
    modules, truth = rotation.transform(latents), screen.obsm["latent"]
    assert mean_correlation_coefficient(truth, latents) < 0.8
    assert mean_correlation_coefficient(truth, modules) > 0.98
    matching, targets = match_latents(truth, modules), screen.uns["targets"]
    assert target_scores(targets, rotation.targets.loc[targets.index], matching).f1 == 1
    # Sizes of the effects too: residuals of the simulation have a standard deviation of 1.
    estimated = rotation.effects.loc[targets.index].to_numpy()[:, matching.second]
    signed = estimated * np.sign(matching.correlation)
    np.testing.assert_allclose(signed, screen.uns["effects"], atol=0.8)
    assert rotation.n_active == N_LATENT
    assert rotation.share_of_starts > ROTATION.min_share_of_starts


def test_effects_are_the_mean_modules_of_cells_and_residuals_are_independent(screen, found):
    latents, rotation = found
    labels = screen.obs["perturbation"].astype(str).to_numpy()
    modules = rotation.transform(latents)
    means = pd.DataFrame(modules).groupby(labels).mean()
    np.testing.assert_allclose(means, rotation.effects.loc[means.index], atol=1e-9)
    residuals = modules - means.loc[labels].to_numpy()
    covariance = residuals.T @ residuals / (len(labels) - len(means))
    np.testing.assert_allclose(covariance, np.eye(N_LATENT), atol=1e-9)


def test_another_mixing_of_the_latents_and_other_names_give_the_same_targets(screen, found):
    latents, rotation = found
    turned = latents @ np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0] * 10 - 4
    names = "gene " + screen.obs["perturbation"].astype(str)
    other = sparse_rotation(turned, names, n_starts=8, seed=5)
    assert other.criterion == pytest.approx(rotation.criterion, rel=1e-3)
    np.testing.assert_allclose(other.effects, rotation.effects, atol=0.05)
    np.testing.assert_array_equal(other.targets, rotation.targets)


def test_a_seed_decides_all_and_the_order_of_cells_nothing(screen, found):
    latents, rotation = found
    labels = screen.obs["perturbation"].to_numpy()
    again = sparse_rotation(latents, labels, n_starts=8)
    np.testing.assert_array_equal(again.matrix, rotation.matrix)
    order = np.random.default_rng(2).permutation(len(labels))
    shuffled = sparse_rotation(latents[order], labels[order], n_starts=8)
    np.testing.assert_allclose(shuffled.matrix, rotation.matrix, atol=1e-6)


def test_the_criterion_is_that_of_geman_and_mcclure_and_lower_than_at_random_axes(found):
    _, rotation = found
    u = rotation.effects.to_numpy()
    assert rotation.criterion == pytest.approx((u**2 / (u**2 + 1)).sum())
    rng = np.random.default_rng(0)
    for _ in range(20):
        v = u @ np.linalg.qr(rng.normal(size=(N_LATENT, N_LATENT)))[0]
        assert (v**2 / (v**2 + 1)).sum() > rotation.criterion


def test_the_mean_of_the_control_is_the_offset():
    design = PerturbationDesign(20, N_LATENT, 60, 60, n_control_cells=200, max_targets=2)
    screen = simulate_perturbations(design, seed=1)
    latents = screen.obsm["latent"] - 2
    rotation = sparse_rotation(latents, screen.obs["perturbation"], "control", n_starts=8)
    controls = latents[screen.obs["perturbation"] == "control"]
    np.testing.assert_allclose(rotation.transform(controls).mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(rotation.effects.loc["control"], 0, atol=1e-9)
    assert not rotation.targets.loc["control"].any()
    matching = match_latents(screen.obsm["latent"], rotation.transform(latents))
    targets = screen.uns["targets"]
    assert target_scores(targets, rotation.targets.loc[targets.index], matching).f1 == 1


def test_permuted_labels_have_almost_no_targets(screen, found):
    latents, _ = found
    for seed in range(3):
        labels = np.random.default_rng(seed).permutation(screen.obs["perturbation"].to_numpy())
        with pytest.warns(UserWarning, match="of 5 latents are a target of a perturbation"):
            rotation = sparse_rotation(latents, labels, n_starts=4)
        assert rotation.targets.to_numpy().mean() <= 0.02


def test_principal_components_suffice_on_an_easy_screen():
    design = PerturbationDesign(n_perturbations=40, n_latent=6, n_genes=80, n_cells=100)
    screen = simulate_perturbations(design, seed=0)
    components = PCA(6, random_state=0).fit_transform(np.log1p(screen.X))
    rotation = sparse_rotation(components, screen.obs["perturbation"], n_starts=8)
    truth, modules = screen.obsm["latent"], rotation.transform(components)
    assert mean_correlation_coefficient(truth, components) < 0.65
    assert mean_correlation_coefficient(truth, modules) > 0.75
    targets = rotation.targets.loc[screen.uns["targets"].index]
    matching = match_latents(truth, modules)
    assert target_scores(screen.uns["targets"], targets, matching).f1 > 0.8


def test_posterior_variances_widen_the_unit_of_effects(screen, found):
    latents, _ = found
    labels = screen.obs["perturbation"]
    residual = latents - pd.DataFrame(latents).groupby(labels.to_numpy()).transform("mean")
    # As much as the residuals of cells: effects shrink by the square root of two in one dimension.
    one = latents[:, :1]
    variance = residual.to_numpy()[:, 0].var() * np.ones_like(one)
    plain = sparse_rotation(one, labels, n_starts=1)
    for given in (variance, variance[0]):
        wide = sparse_rotation(one, labels, variances=given, n_starts=1)
        ratio = plain.matrix[0, 0] / wide.matrix[0, 0]
        assert abs(ratio) == pytest.approx(np.sqrt(2), rel=0.02)


def test_the_threshold_depends_on_the_number_of_cells_of_a_perturbation(screen):
    # Few cells of one perturbation: its effects have to be larger.
    labels = screen.obs["perturbation"].astype(str).to_numpy()
    kept = np.ones(len(labels), dtype=bool)
    kept[np.flatnonzero(labels == "P000")[3:]] = False
    rotation = sparse_rotation(screen.obsm["latent"][kept], labels[kept], n_starts=4)
    threshold = pd.Series(rotation.threshold, rotation.effects.index)
    assert threshold["P000"] == pytest.approx(ROTATION.noise_floor / np.sqrt(3), rel=0.02)
    assert (threshold.drop("P000") < threshold["P000"]).all()


def test_the_split_has_the_largest_variance_between_groups():
    values = np.r_[np.linspace(0, 1, 30), 5, 5, 6.5]

    def between(threshold):
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    found = otsu_threshold(values)
    grid = np.linspace(0.01, 6.4, 500)
    assert between(found) == pytest.approx(max(map(between, grid)))
    assert otsu_threshold(np.full(4, 2.0)) == 2


def two_groups(n=20):
    latents = np.random.default_rng(0).normal(size=(3 * n, 1))
    return latents, np.repeat(["A", "B", "control"], n)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": np.ones(60)}, r"`latents` has the shape \(60,\); pass a table"),
        ({"latents": np.full((60, 1), np.nan)}, "`latents` has 60 missing or infinite values"),
        ({"labels": ["A"] * 59}, "`labels` has 59 entries and `latents` 60 rows"),
        (
            {"labels": [None] * 5 + ["A"] * 55},
            "`labels` is missing for 5 cells, the first at posi",
        ),
        ({"labels": [np.nan] + ["A"] * 59}, "`labels` is missing for 1 cells"),
        ({"labels": ["A"] * 60}, "at least two perturbations; `labels` has 'A'"),
        ({"labels": ["A"] * 30 + ["B"] * 29 + ["C"]}, "1 perturbations have a single cell: 'C'"),
        ({"control": "Control"}, r"No cell has the control 'Control' \(near 'control'\)"),
        (
            {"labels": ["control"] * 60, "control": "control"},
            "besides the control 'control'; `labels` has none",
        ),
        (
            {"labels": ["control"] * 30 + ["A"] * 30, "control": "control"},
            "besides the control 'control'; `labels` has 'A'",
        ),
        ({"variances": np.ones(2)}, r"`variances` has the shape \(2,\); pass \(60, 1\)"),
        ({"variances": -np.ones(1)}, "`variances` has negative values; pass variances"),
        ({"variances": np.full(1, np.inf)}, "`variances` has 1 missing or infinite"),
        ({"n_starts": 0}, "`n_starts` is 0; at least one start"),
        ({"latents": np.ones((60, 1))}, "1 latents vary in 0 directions"),
        ({"latents": np.repeat(np.arange(60.0)[:, None], 2, 1)}, "2 latents vary in 1 directions"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*at least 2 perturbations per latent")
def test_cells_that_cannot_be_rotated_are_refused(change, message):
    latents, labels = two_groups()
    given = {"latents": latents, "labels": labels} | change
    with pytest.raises(ValueError, match=message):
        sparse_rotation(given.pop("latents"), given.pop("labels"), **given)


def test_few_perturbations_are_warned_about():
    latents = np.random.default_rng(0).normal(size=(60, 2))
    with (
        pytest.warns(UserWarning, match="3 perturbations for 2 latents.*reliable with at least 2"),
        pytest.warns(UserWarning, match="0 of 2 latents are a target"),
    ):
        sparse_rotation(latents, two_groups()[1], n_starts=2)


def test_an_optimum_that_few_starts_find_is_warned_about(screen):
    # Dense effects have many rotations that are nearly as sparse.
    rng = np.random.default_rng(0)
    labels = np.repeat([f"P{i}" for i in range(24)], 40)
    effects = np.repeat(rng.normal(0, 5, size=(24, 8)), 40, axis=0)
    latents = effects + rng.normal(size=effects.shape)
    with (
        pytest.warns(UserWarning, match=r"Only \d+% of the starts found the best rotation"),
    ):
        rotation = sparse_rotation(latents, labels, n_starts=16)
    assert rotation.share_of_starts < ROTATION.min_share_of_starts


def test_latents_of_another_model_are_refused(found):
    latents, rotation = found
    with pytest.raises(ValueError, match="has 4 columns; the rotation is of 5 latents"):
        rotation.transform(latents[:, :4])


@pytest.mark.filterwarnings("ignore:.*latents are a target")
def test_the_sparsity_of_permuted_labels_excludes_what_is_noise(screen):
    cells = screen.copy()
    rng = np.random.default_rng(0)
    cells.obs["perturbation"] = rng.permutation(cells.obs["perturbation"].to_numpy())
    SpikeSlabVAE.setup_anndata(cells, "perturbation")
    model = SpikeSlabVAE(cells, n_latent=N_LATENT)
    options = {"accelerator": "cpu", "enable_progress_bar": False}
    model.train(3, finetune_epochs=1, n_starts=2, **options)
    # The shift whose inclusion is one half.
    half = 2 * np.sqrt((float(model.module.sparsity) - 1) / DESIGN.n_cells)
    assert half >= ROTATION.noise_floor / np.sqrt(DESIGN.n_cells) * 0.999
