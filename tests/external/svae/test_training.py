"""Training in stages: what each stage changes, and what a failure leaves."""

from dataclasses import replace

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from tests.external.svae.conftest import FEW, NETWORK, SETUP, TRAINER, fit

from scvi_sctab._config import ROTATION, SHIFT_TRAIN
from scvi_sctab.external import SpikeSlabVAE
from scvi_sctab.external.svae import _training
from scvi_sctab.external.svae._shift_estimates import (
    half_included_shift,
    inclusions,
    sparsity_of,
    standard_errors,
)
from scvi_sctab.external.svae._training import rotation_labels, smallest_shift
from scvi_sctab.metrics import match_latents, mean_correlation_coefficient, target_scores


def build(cells, setup=SETUP, **network):
    SpikeSlabVAE.setup_anndata(cells, **setup)
    return SpikeSlabVAE(cells, **{**NETWORK, **network})


def weights(model):
    return {name: t.clone() for name, t in model.module.state_dict().items()}


def test_all_stages_are_run_and_recorded(trained):
    record = trained.rotation
    assert len(record.criteria) == 1
    assert record.criterion == record.criteria[0]
    assert [*record.effects.index] == trained.perturbations
    assert record.effects.shape == record.targets.shape == (7, 3)
    assert len(trained.history["train_loss"]) == FEW["max_epochs"] + FEW["finetune_epochs"]


def test_the_sparsity_follows_from_the_threshold_and_the_cells(trained):
    controls = (trained.adata.obs["perturbation"] == "control").sum()
    assert trained.n_controls_ == controls
    n_cells = float(np.median(trained.n_cells_))
    shift = SHIFT_TRAIN.threshold_share * trained.rotation.threshold
    floor = ROTATION.noise_floor * (1 / n_cells + 1 / controls) ** 0.5
    expected = 1 + n_cells * max(shift, floor) ** 2 / 4
    assert float(trained.module.sparsity) == pytest.approx(expected, rel=1e-5)


def test_the_sparsity_is_in_units_of_the_weight_of_the_divergence(singles):
    model = fit(singles, SETUP, {"finetune_epochs": 0}, beta=0.5)
    n_cells, expected = float(np.median(model.n_cells_)), model.rotation.threshold
    shift = half_included_shift(float(model.module.sparsity), n_cells, 0.5)
    assert shift == pytest.approx(expected, rel=1e-5)
    assert float(model.module.sparsity) == pytest.approx(1 + n_cells * expected**2 / 8, rel=1e-5)


@pytest.mark.parametrize("n_cells", [20, 250, 5000])
@pytest.mark.parametrize("n_controls", [0, 10, 5000])
def test_the_fine_tuning_includes_no_shift_within_the_noise(n_cells, n_controls):
    """Shifts of perturbations that do nothing: mean latents less those of the control."""
    errors = standard_errors(n_cells, n_controls)
    noise = np.random.default_rng(0).normal(size=10_000) * errors
    shift = smallest_shift(0.5 * ROTATION.noise_floor * errors, n_cells, n_controls)
    half = half_included_shift(sparsity_of(shift, n_cells, 1.0), n_cells, 1.0)
    assert (inclusions(noise[:, None], np.full(10_000, half)) < 0.5).all()


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (
            {"prior": "dense"},
            {"finetune_epochs": 3},
            "'dense' is trained in one stage.*ne_epochs=3",
        ),
        ({"prior": "none"}, {"n_init": 2}, "prior='none' is trained in one stage.*n_init=2"),
        ({"prior": "l1"}, {"n_init": 2, "finetune_epochs": 0}, "finetune_epochs=0 and n_init=2"),
        ({}, {"rotate": False, "finetune_epochs": 3}, "rotate=False .* finetune_epochs=3 would"),
    ],
)
def test_arguments_of_stages_that_are_not_run_are_refused(singles, network, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(singles, **network).train(**arguments)


def test_a_trained_model_needs_no_further_autoencoders(trained):
    with pytest.raises(ValueError, match="A trained model .* n_init=3 would have no effect"):
        trained.train(n_init=3)


@pytest.mark.parametrize(("n_epochs", "share"), [(0, 1), (1, SHIFT_TRAIN.threshold_share)])
def test_fixed_and_fine_tuned_masks_have_their_own_sparsity(singles, n_epochs, share):
    model = fit(singles, SETUP, {"finetune_epochs": 0})
    model.rotation = replace(model.rotation, threshold=5.0)
    model.train(finetune_epochs=n_epochs, batch_size=64, **TRAINER)
    n_cells = float(np.median(model.n_cells_))
    found = half_included_shift(float(model.module.sparsity), n_cells, 1.0)
    assert found == pytest.approx(5 * share, rel=1e-5)


def test_a_screen_of_one_drug_is_refused_before_training(singles):
    drug = singles[singles.obs["perturbation"].isin(["control", "P001"])].copy()
    model = build(drug)
    with pytest.raises(
        ValueError, match=r"has 'P001'. Train without it: `model.train\(rotate=Fal"
    ):
        model.train(**FEW)
    assert model.history is None
    model.train(1, rotate=False, **TRAINER)
    assert model.is_trained


def test_a_control_of_one_cell_is_no_baseline_of_the_rotation(singles):
    controls = np.flatnonzero(singles.obs["perturbation"] == "control")
    few = singles[np.setdiff1d(np.arange(singles.n_obs), controls[1:])].copy()
    model = fit(few, SETUP)
    assert [*model.rotation.effects.index] == model.perturbations


def test_cells_that_lack_perturbations_are_not_trained_on(trained, tmp_path, singles):
    trained.save(tmp_path / "model")
    some = singles[singles.obs["perturbation"] != "P003"].copy()
    loaded = SpikeSlabVAE.load(tmp_path / "model", some)
    for train in (loaded.train, loaded.stability):
        with pytest.raises(ValueError, match="none of 'P003', whose shifts training would lose"):
            train()


def test_further_training_takes_the_epochs_of_the_fine_tuning(singles):
    model = fit(singles, SETUP)
    n_before = len(model.history["train_loss"])
    model.train(finetune_epochs=3, batch_size=64, **TRAINER)
    assert len(model.history["train_loss"]) == n_before + 3


def test_a_given_sparsity_is_kept(singles):
    assert float(fit(singles, SETUP, sparsity=33.0).module.sparsity) == 33


def test_the_rotation_does_not_change_what_is_decoded(singles, monkeypatch):
    model = build(singles)
    decoded = []
    absorb = _training._absorb

    def compare(model, rotation):
        decoded.append(model.get_normalized_expression())
        decoded.append(rotation.transform(model.get_latent_representation()))
        absorb(model, rotation)
        decoded.append(model.get_normalized_expression())
        decoded.append(model.get_latent_representation())

    monkeypatch.setattr(_training, "_absorb", compare)
    with pytest.warns(UserWarning, match="Only .* of"):
        model.train(**FEW)
    np.testing.assert_allclose(decoded[0], decoded[2], rtol=1e-4)
    np.testing.assert_allclose(decoded[1], decoded[3], atol=1e-3)


def test_without_fine_tuning_masks_are_the_targets_of_the_rotation(singles):
    model = fit(singles, SETUP, {"finetune_epochs": 0})
    targets = model.get_intervention_targets() > 0.5
    assert (targets.to_numpy() == model.rotation.targets.to_numpy()).all()


def test_effects_before_fine_tuning_are_mean_latents(singles):
    model = fit(singles, SETUP, {"finetune_epochs": 0})
    latents = model.get_latent_representation()
    for name in model.perturbations[:2]:
        mean = latents[(singles.obs["perturbation"] == name).to_numpy()].mean(axis=0)
        row = model.module.shift[model.perturbations.index(name)].detach().numpy()
        np.testing.assert_allclose(row, mean, atol=1e-4)


def test_the_autoencoder_with_the_lowest_criterion_is_kept(singles):
    record = fit(singles, SETUP, {"n_init": 2}).rotation
    assert len(record.criteria) == 2
    assert record.criteria[0] != record.criteria[1]
    assert record.criterion == min(record.criteria)


@pytest.mark.parametrize("prior", ["dense", "l1", "none"])
@pytest.mark.parametrize("rotate", [True, False])
def test_other_priors_are_trained_without_rotation(singles, prior, rotate):
    model = build(singles, prior=prior)
    model.train(1, rotate=rotate, **TRAINER)
    targets = model.get_intervention_targets().to_numpy()
    assert model.rotation is None
    assert {"dense": (targets == 1).all(), "none": (targets == 0).all(), "l1": True}[prior]


def test_the_published_schedule_samples_masks(singles):
    model = build(singles)
    model.train(1, rotate=False, **TRAINER)
    assert model.rotation is None
    assert float(model.module.sparsity) > 1
    assert ((model.get_intervention_targets() - 0.993).abs() < 0.05).all(axis=None)


def test_a_trained_model_is_trained_further(singles):
    model = fit(singles, SETUP)
    n_before, before = len(model.history["train_loss"]), weights(model)
    model.train(2, batch_size=64, **TRAINER)
    assert len(model.history["train_loss"]) == n_before + 2
    assert not torch.equal(model.module.shift, before["shift"])


def test_the_published_schedule_is_continued(singles):
    model = build(singles, sparsity=9.0)
    for _ in range(2):
        model.train(1, rotate=False, **TRAINER)
    assert len(model.history["train_loss"]) == 2
    assert float(model.module.sparsity) == 9


def test_the_same_seed_gives_the_same_model(singles):
    latents = []
    for _ in range(2):
        scvi.settings.seed = 1
        latents.append(fit(singles.copy(), SETUP).get_latent_representation())
    np.testing.assert_allclose(*latents, atol=1e-5)


@pytest.mark.parametrize("stage", ["_rotate", "finetune"])
def test_a_failure_leaves_the_model_as_it_was(singles, monkeypatch, stage):
    model = build(singles)
    before = weights(model)

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(_training, stage, fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit_again(model)
    assert not model.is_trained_
    assert model.history is None
    assert model.rotation is None
    assert all(torch.equal(before[name], t) for name, t in weights(model).items())


def fit_again(model):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(**FEW)


class Interrupt(Callback):
    """Callback that raises Ctrl-C in the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def test_an_interrupted_autoencoder_is_rotated_and_not_fine_tuned(singles):
    model = fit(singles, SETUP, {"max_epochs": 5, "n_init": 3, "callbacks": [Interrupt()]})
    assert len(model.rotation.criteria) == 1
    assert len(model.history["train_loss"]) == 1
    targets = model.get_intervention_targets() > 0.5
    assert (targets.to_numpy() == model.rotation.targets.to_numpy()).all()


def test_stability_ends_when_its_fine_tuning_is_interrupted(singles):
    arguments = {**FEW, "max_epochs": 1, "finetune_epochs": 3}
    with pytest.warns(UserWarning, match="Only .* of"), pytest.raises(KeyboardInterrupt):
        build(singles).stability(**arguments, callbacks=[Interrupt()])


def test_early_stopping_holds_cells_out(singles):
    model = build(singles)
    with pytest.warns(UserWarning, match="Only .* of"):
        model.train(**FEW, early_stopping=True)
    assert len(model.validation_indices) == singles.n_obs - len(model.train_indices) > 0
    assert "validation_loss" in model.history


def test_all_cells_are_trained_on_by_default(trained):
    assert sorted(trained.train_indices) == [*range(trained.adata.n_obs)]


def test_combinations_are_no_groups_of_the_rotation():
    labels, control = rotation_labels([["A"], ["A", "B"], []], None)
    assert labels.tolist() == ["A", None, "control"]
    assert control == "control"


def test_a_screen_without_controls_has_no_control_in_the_rotation():
    assert rotation_labels([["A"], ["B"]], None)[1] is None


def test_pairs_are_trained_on_with_singles(screen):
    setup = {"perturbation_key": "perturbation", "control_category": "control", "separator": "+"}
    model = fit(screen, setup)
    assert len(model.perturbations) == 8
    pairs = screen.obs["perturbation"].astype(str).str.contains("+", regex=False).sum()
    controls = (screen.obs["perturbation"] == "control").sum()
    assert model.n_cells_.sum() == screen.n_obs - controls + pairs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_init": 0}, "n_init=0: give a whole number of at least 1"),
        ({"finetune_epochs": -1}, "finetune_epochs=-1"),
        ({"n_starts": 1.5}, "n_starts=1.5"),
        ({"max_epochs": 0}, "at least one epoch"),
        ({"train_size": 1.5}, "train_size=1.5"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_wrong_arguments_are_refused(singles, arguments, message):
    model = build(singles)
    with pytest.raises(ValueError, match=message):
        model.train(**{**FEW, **arguments})


def test_an_argument_that_does_not_exist_is_refused(singles):
    with pytest.raises(TypeError, match=r"train\(\) has no argument 'epochs': `max_epochs=`"):
        build(singles).train(epochs=3)


@pytest.mark.slow("training to the end, to see that modules and their targets are found")
def test_modules_and_targets_of_a_simulated_screen_are_found():
    from scvi_sctab.external.svae import PAPER_DESIGN, simulate_perturbations

    design = replace(PAPER_DESIGN, n_perturbations=24, n_latent=5, n_genes=60, n_cells=150)
    cells = simulate_perturbations(design, seed=0)
    SpikeSlabVAE.setup_anndata(cells, "perturbation")
    model = SpikeSlabVAE(cells, n_latent=5)
    model.train(160, batch_size=256, **TRAINER)
    truth, found = cells.obsm["latent"], model.get_latent_representation()
    targets = cells.uns["targets"].loc[model.perturbations].to_numpy()
    masks = model.get_intervention_targets().to_numpy() > 0.5
    assert mean_correlation_coefficient(truth, found) > 0.85
    assert target_scores(targets, masks, match_latents(truth, found)).f1 > 0.9
