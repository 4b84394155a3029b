"""Simulated screens have the shifts, noise and counts of their design."""

from dataclasses import replace

import numpy as np
import pytest
from anndata import read_h5ad

from scvi_sctab.external.svae import (
    PAPER_DESIGN,
    REALISTIC_DESIGN,
    PerturbationDesign,
    simulate_perturbations,
)

SMALL = PerturbationDesign(n_perturbations=30, n_latent=6, n_genes=40, n_cells=80)


def test_the_published_design_has_a_mean_count_of_forty_in_every_gene():
    screen = simulate_perturbations(PAPER_DESIGN)
    assert screen.shape == (25_000, 100)
    np.testing.assert_allclose(screen.X.mean(axis=0), 40, rtol=0.02)
    assert (screen.X == 0).mean() < 0.01
    assert 1 / 15 < screen.uns["targets"].to_numpy().mean() < 3 / 15
    sizes = np.abs(screen.uns["effects"].to_numpy()[screen.uns["targets"].to_numpy()])
    assert sizes.mean() == pytest.approx(5, abs=0.15)
    assert sizes.std() == pytest.approx(0.5, abs=0.1)


def test_the_realistic_design_has_library_sizes_and_zeros():
    screen = simulate_perturbations(replace(REALISTIC_DESIGN, n_perturbations=10))
    sizes = screen.X.sum(axis=1)
    assert sizes.mean() == pytest.approx(2000, rel=0.03)
    assert np.log(sizes).std() == pytest.approx(0.4, rel=0.1)
    assert 0.3 < (screen.X == 0).mean() < 0.5


def test_latents_have_the_shift_of_their_perturbation_and_unit_variance():
    screen = simulate_perturbations(replace(SMALL, n_cells=400))
    shifts = screen.uns["effects"].loc[screen.obs["perturbation"]].to_numpy()
    residuals = screen.obsm["latent"] - shifts
    np.testing.assert_allclose(residuals.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(residuals.T), np.eye(6), atol=0.05)
    targets = screen.uns["targets"]
    assert (screen.uns["effects"].to_numpy() != 0).tolist() == targets.to_numpy().tolist()
    assert set(targets.sum(axis=1)) == {1, 2, 3}


def test_a_seed_gives_the_same_screen_and_noise_leaves_the_truth_alone():
    screen = simulate_perturbations(SMALL, seed=4)
    np.testing.assert_array_equal(screen.X, simulate_perturbations(SMALL, seed=4).X)
    assert (screen.X != simulate_perturbations(SMALL, seed=5).X).any()
    noisy = replace(SMALL, n_cells=20, depth=500, overdispersion=0.5, n_batches=2, batch_sd=1)
    other = simulate_perturbations(noisy, seed=4)
    np.testing.assert_array_equal(other.uns["effects"], screen.uns["effects"])


def test_a_combination_takes_the_sum_of_shifts_and_all_targets_of_its_parts():
    screen = simulate_perturbations(replace(SMALL, n_combinations=50, n_control_cells=33))
    effects, targets = screen.uns["effects"], screen.uns["targets"]
    pairs = [name for name in effects.index if "+" in name]
    assert len(pairs) == len(set(pairs)) == 50
    for pair in pairs:
        left, right = pair.split("+")
        assert left != right
        np.testing.assert_allclose(effects.loc[pair], effects.loc[left] + effects.loc[right])
        assert (targets.loc[pair] == (targets.loc[left] | targets.loc[right])).all()
    assert screen.obs["perturbation"].value_counts()["control"] == 33
    assert not effects.loc["control"].any()
    assert not targets.loc["control"].any()


def test_hard_cases_change_what_they_name():
    def effects(**changes):
        screen = simulate_perturbations(replace(SMALL, **changes))
        return screen.uns["effects"].to_numpy(), screen.uns["targets"].to_numpy()

    plain, targets = effects()
    background, same = effects(background_sd=0.3)
    np.testing.assert_array_equal(targets, same)
    assert background[~same].std() == pytest.approx(0.3, rel=0.2)
    tailed, _ = effects(shift_tail=2)
    assert np.abs(tailed[targets]).std() > 2 * np.abs(plain[targets]).std()
    _, partners = effects(partner_rate=1)
    assert (partners[:, ::2] == partners[:, 1::2]).all()
    counts = simulate_perturbations(replace(SMALL, n_cells_spread=1)).obs["perturbation"]
    assert counts.value_counts().max() > 4 * counts.value_counts().min()
    wide = simulate_perturbations(replace(SMALL, anisotropy=1, n_cells=400))
    residuals = wide.obsm["latent"] - wide.uns["effects"].loc[wide.obs["perturbation"]].to_numpy()
    eigenvalues = np.linalg.eigvalsh(np.cov(residuals.T))
    assert eigenvalues[-1] > 4 * eigenvalues[0]


def test_an_odd_number_of_latents_leaves_the_last_without_a_partner():
    screen = simulate_perturbations(replace(SMALL, n_latent=5, partner_rate=1))
    targets = screen.uns["targets"].to_numpy()
    assert (targets[:, [0, 2]] == targets[:, [1, 3]]).all()
    assert 0 < targets[:, 4].mean() < 1


def test_noise_of_counts_is_that_of_the_design():
    plain = simulate_perturbations(SMALL).X
    variable = simulate_perturbations(replace(SMALL, overdispersion=1.0)).X
    assert variable.mean() == pytest.approx(plain.mean(), rel=0.05)
    assert variable.var() > 1.5 * plain.var()
    lost = simulate_perturbations(replace(SMALL, dropout=0.25)).X
    assert lost.mean() == pytest.approx(0.75 * plain.mean(), rel=0.05)


def test_batches_differ_in_genes_and_not_in_latents():
    screen = simulate_perturbations(
        replace(SMALL, n_batches=2, batch_sd=1.0, normalization="cell")
    )
    first = (screen.obs["batch"] == "batch_0").to_numpy()
    assert 0.45 < first.mean() < 0.55
    ratio = np.log(screen.X[first].mean(axis=0) / screen.X[~first].mean(axis=0))
    assert ratio.std() > 0.5
    latent = screen.obsm["latent"]
    np.testing.assert_allclose(latent[first].mean(0), latent[~first].mean(0), atol=0.2)


def test_a_screen_can_be_written_and_read(tmp_path):
    screen = simulate_perturbations(replace(SMALL, n_cells=3, n_combinations=2))
    screen.write_h5ad(tmp_path / "screen.h5ad")
    read = read_h5ad(tmp_path / "screen.h5ad")
    np.testing.assert_array_equal(read.uns["targets"], screen.uns["targets"])
    assert read.uns["targets"].index.tolist() == screen.uns["targets"].index.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_perturbations": 0}, "n_perturbations=0: give a whole number of at least 1"),
        ({"n_cells": 1}, "n_cells=1: give a whole number of at least 2"),
        ({"n_cells": 2.5}, "n_cells=2.5: give a whole number"),
        ({"background_sd": -0.1}, "background_sd=-0.1 must be at least 0"),
        ({"shift_tail": 0}, "shift_tail=0 must be more than 0"),
        ({"depth": 0.0}, "depth=0.0 must be more than 0"),
        ({"depth": float("nan")}, "depth=nan must be more than 0"),
        ({"dropout": 1.5}, "dropout=1.5 must be at least 0 and at most 1"),
        ({"partner_rate": float("nan")}, "partner_rate=nan must be at least 0"),
        ({"n_combinations": 436}, "n_combinations=436 must be at least 0 and at most 435"),
        ({"normalization": "library"}, "normalization='library' is unknown; choose 'gene' or"),
    ],
)
def test_designs_that_no_screen_has_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
