"""New perturbations get shifts, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.external.svae.conftest import SETUP, fit, reference_of

from scvi_sctab.external import SpikeSlabVAE
from scvi_sctab.external.svae import UnknownPerturbationError
from scvi_sctab.external.svae._adapt import _half_included_shifts


def test_only_shifts_of_new_perturbations_are_learnt(trained, held_out):
    adapted = trained.adapt(held_out)
    assert adapted.perturbations == [*trained.perturbations, "P007"]
    old, new = trained.module.state_dict(), adapted.module.state_dict()
    for name, tensor in old.items():
        assert torch.equal(new[name][: len(tensor)] if tensor.ndim else new[name], tensor), name
    assert "P007" not in trained.perturbations
    assert trained.adata.n_obs != adapted.adata.n_obs


def test_a_shift_is_the_mean_of_training_cells(trained, held_out):
    adapted = trained.adapt(held_out, train_size=0.5)
    latents = adapted.get_latent_representation(indices=adapted.train_indices)
    np.testing.assert_allclose(adapted.module.shift[-1].detach(), latents.mean(axis=0), atol=1e-4)
    assert adapted.n_cells_[-1] == len(adapted.train_indices)


def test_training_and_held_out_cells_are_disjoint(trained, held_out):
    adapted = trained.adapt(held_out, train_size=0.75)
    train, validation = set(adapted.train_indices), set(adapted.validation_indices)
    assert not train & validation
    assert len(train | validation) == held_out.n_obs
    assert len(train) == np.ceil(0.75 * held_out.n_obs)
    adapted.get_marginal_ll(indices=adapted.validation_indices, n_samples=2)


def test_the_shift_is_optimal_for_the_bound(trained, held_out):
    adapted = trained.adapt(held_out, train_size=1.0)
    module = adapted.module
    with torch.no_grad():
        module.inclusion_logit[-1] = 30
    latents = torch.from_numpy(adapted.get_latent_representation())
    codes = torch.full((len(latents), 1), 7)

    def divergence():
        return (latents - module.prior_mean(codes, "expected")[0]).square().sum()

    divergence().backward()
    assert module.shift.grad[-1].abs().max() < 0.01
    assert module.shift.grad[:-1].abs().max() == 0


def test_a_new_part_of_a_pair_is_what_the_known_one_leaves(whole, trained):
    names = whole.obs["perturbation"].astype(str)
    cells = whole[((names == "P007") & (whole.obs["batch"] != "batch_2")).to_numpy()].copy()
    cells.obs["perturbation"] = "P007+P000"
    adapted = trained.adapt(cells, train_size=1.0)
    known, _ = trained.module.prior_mean(torch.tensor([[0]]), "expected")
    mean = adapted.get_latent_representation().mean(axis=0)
    np.testing.assert_allclose(
        adapted.module.shift[-1].detach(), mean - known[0].detach().numpy(), atol=1e-4
    )


def test_few_cells_need_a_larger_shift_than_many(trained, held_out):
    few = trained.adapt(held_out[:3].copy(), train_size=1.0)
    with torch.no_grad():
        shift = few.module.shift[-1].abs()
    included = few.get_intervention_targets().to_numpy()[-1] > 0.5
    assert not included[shift.numpy() < 4.5 * np.sqrt(1 / 3 + 1 / trained.n_controls_)].any()


def test_the_threshold_is_that_of_the_training_however_often_a_model_is_adapted(trained, held_out):
    without_noise = np.array([10**9])
    n_cells, excess = np.median(trained.n_cells_), float(trained.module.sparsity) - 1
    expected = pytest.approx(2 * np.sqrt(excess / n_cells), rel=1e-5)
    adapted, few = trained, held_out[:3].copy()
    for i in range(9):
        few.obs["perturbation"] = f"few {i}"
        adapted = adapted.adapt(few, train_size=1.0)
    assert np.median(adapted.n_cells_) == 3
    assert _half_included_shifts(adapted, without_noise) == expected


def test_without_fine_tuning_the_threshold_is_that_of_the_rotation(whole, held_out):
    model = fit(reference_of(whole), SETUP, {"finetune_epochs": 0})
    model.rotation = replace(model.rotation, threshold=5.0)
    model.train(finetune_epochs=0)
    found = _half_included_shifts(model.adapt(held_out), np.array([10**9]))
    assert found == pytest.approx(5, rel=1e-5)


def test_the_noise_of_the_control_is_in_the_threshold(trained):
    controls = (trained.adata.obs["perturbation"] == "control").sum()
    found = _half_included_shifts(trained, np.array([2]))
    assert found == pytest.approx(4.5 * np.sqrt(1 / 2 + 1 / controls))


def test_an_adapted_model_predicts_and_is_saved(trained, held_out, tmp_path):
    adapted = trained.adapt(held_out)
    cells = trained.adata[trained.adata.obs["perturbation"] == "control"].copy()
    expected = adapted.predict_perturbation("P007+P001", cells, n_samples=2)
    adapted.save(tmp_path / "adapted")
    loaded = SpikeSlabVAE.load(tmp_path / "adapted", held_out)
    found = loaded.predict_perturbation("P007+P001", cells, n_samples=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_dense_shifts_have_no_masks(whole, held_out):
    model = fit(reference_of(whole), SETUP, prior="dense")
    adapted = model.adapt(held_out)
    assert (adapted.get_intervention_targets() == 1).all(axis=None)


@pytest.mark.parametrize("train_size", [0, 1.2])
def test_wrong_sizes_are_refused(trained, held_out, train_size):
    with pytest.raises(ValueError, match=f"train_size={train_size}"):
        trained.adapt(held_out, train_size=train_size)


def test_cells_without_new_perturbations_are_refused(trained):
    with pytest.raises(ValueError, match="no perturbation that the model does not know"):
        trained.adapt(trained.adata)


def test_a_single_cell_is_refused(trained, held_out):
    with pytest.raises(ValueError, match="'P007' have fewer than 2 cells"):
        trained.adapt(held_out[:1].copy())


def test_unknown_batches_are_refused(trained, held_out):
    held_out.obs["batch"] = "batch_9"
    with pytest.raises(ValueError, match="batch_9"):
        trained.adapt(held_out)


def test_a_model_without_shifts_does_not_adapt(whole, held_out):
    model = fit(reference_of(whole), SETUP, prior="none")
    with pytest.raises(ValueError, match="prior='none' has no shifts"):
        model.adapt(held_out)


def test_loading_with_new_perturbations_is_refused(trained, held_out, tmp_path):
    trained.save(tmp_path / "model")
    with pytest.raises(UnknownPerturbationError, match="'P007'.*adapt"):
        SpikeSlabVAE.load(tmp_path / "model", held_out)
