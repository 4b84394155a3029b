"""Predictions are what the decoder says of shifted latents."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from tests.external.svae.conftest import SETUP, fit, reference_of

from scvi_sctab._config import ROTATION
from scvi_sctab.external.svae import UnknownPerturbationError
from scvi_sctab.external.svae._guides import Guides
from scvi_sctab.external.svae._prediction import (
    resolve_combination,
    sample_shifts,
    summarize_difference,
    summarize_prediction,
)

GUIDES = Guides("guide", None, "ctrl", "_")


@pytest.fixture(scope="module")
def planted(whole):
    """A model with large shifts and certain masks."""

    model = fit(reference_of(whole), SETUP, {"finetune_epochs": 0})
    with torch.no_grad():
        model.module.shift.normal_(0, 3)
        model.module.inclusion_logit.fill_(20)
        model.module.inclusion_logit[:, 2] = -20
        model.module.shift[:, 2] = 0
    model.n_cells_, model.n_controls_ = np.full(7, 10_000_000), 10_000_000
    return model


@pytest.mark.parametrize(
    ("combination", "expected"),
    [("A", [0]), ("A_B", [0, 1]), (["B", "A"], [1, 0]), ("ctrl", []), ((), []), ("A_ctrl", [0])],
)
def test_combinations_are_looked_up(combination, expected):
    assert resolve_combination(combination, ["A", "B"], GUIDES) == expected


def test_perturbations_may_be_numbered():
    assert resolve_combination(2, ["1", "2"], GUIDES) == [1]
    with pytest.raises(UnknownPerturbationError, match="does not know the perturbation '3'"):
        resolve_combination(3, ["1", "2"], GUIDES)


def test_a_name_with_the_separator_is_itself_where_it_is_known():
    assert resolve_combination("A_B", ["A", "A_B"], GUIDES) == [1]


def test_pairs_are_written_with_a_plus_without_a_separator():
    assert resolve_combination("A+B", ["A", "B"], Guides("guide", None, None, None)) == [0, 1]


@pytest.mark.parametrize("combination", ["C", "A_C", ["A", "C"]])
def test_an_unknown_part_is_named(combination):
    with pytest.raises(UnknownPerturbationError, match="does not know the perturbation 'C'"):
        resolve_combination(combination, ["A", "B"], GUIDES)


def test_the_prediction_is_the_decoded_shift(planted):
    controls = planted.adata[planted.adata.obs["perturbation"] == "control"].copy()
    table = planted.predict_perturbation("P001", n_samples=200, library_size=1)
    module = planted.module
    latents = torch.from_numpy(planted.get_latent_representation(controls))
    shift = module.shift[1] * torch.tensor([1.0, 1.0, 0.0])
    # Posterior variances of cells are small beside the shift, but not 0.
    with torch.no_grad():
        std = torch.from_numpy(planted._posterior(planted._select(controls))[1]).sqrt()
        noise = torch.randn(200, *latents.shape)
        codes = torch.from_numpy(
            controls.obs["batch"].astype(str).str[-1].astype(int).to_numpy(copy=True)
        )
        age = torch.from_numpy(controls.obs[["age"]].to_numpy(np.float32, copy=True))
        scale = module.generative(
            latents + std * noise + shift, torch.ones(len(latents), 1), codes[:, None], age
        )["scale"]
    expected = scale.mean(dim=(0, 1)).numpy()
    np.testing.assert_allclose(table["mean"], expected, rtol=0.02)


def test_the_control_is_predicted_as_itself(planted):
    table = planted.predict_perturbation("control", n_samples=3)
    np.testing.assert_allclose(table["mean"], table["baseline"])
    assert not table["log2_fold_change"].any()


def test_a_pair_that_was_never_seen_has_the_sum_of_shifts(planted):
    samples = sample_shifts(planted, [[0], [1], [0, 1]], 4)
    np.testing.assert_allclose(samples[0] + samples[1], samples[2], atol=0.02)
    pair = planted.predict_perturbation("P000+P001", n_samples=3)
    same = planted.predict_perturbation(["P001", "P000"], n_samples=3)
    np.testing.assert_allclose(pair["mean"], same["mean"], rtol=0.02)


def test_intervals_hold_the_mean_and_widen_with_fewer_cells(planted):
    narrow = planted.predict_perturbation("P001")
    counts = planted.n_cells_
    try:
        planted.n_cells_ = np.full(7, 3)
        wide = planted.predict_perturbation("P001")
    finally:
        planted.n_cells_ = counts
    assert ((narrow["lower"] <= narrow["mean"]) & (narrow["mean"] <= narrow["upper"])).all()
    # Those of 10 million cells are samples of the latents of cells.
    assert (wide["upper"] - wide["lower"]).sum() > 1.5 * (narrow["upper"] - narrow["lower"]).sum()


def test_predictions_are_reproducible(planted):
    pd.testing.assert_frame_equal(
        planted.predict_perturbation("P002"), planted.predict_perturbation("P002")
    )


def test_expression_sums_to_the_library_size(planted):
    table = planted.predict_perturbation("P002", library_size=5000)
    assert table["mean"].sum() == pytest.approx(5000, rel=1e-4)


def test_a_difference_is_that_of_the_predictions(planted):
    first, second = (planted.predict_perturbation(name) for name in ("P001", "P002"))
    table = planted.differential_expression("P001", "P002").loc[first.index]
    expected = np.log2(first["mean"] / second["mean"])
    np.testing.assert_allclose(table["log2_fold_change"], expected, atol=0.02)
    swapped = planted.differential_expression("P002", "P001").loc[first.index]
    np.testing.assert_allclose(swapped["log2_fold_change"], -table["log2_fold_change"], atol=0.02)


def test_a_difference_without_a_second_is_from_the_control(planted):
    change = planted.differential_expression("P001")["log2_fold_change"]
    expected = planted.predict_perturbation("P001")["log2_fold_change"]
    np.testing.assert_allclose(change[expected.index], expected, atol=0.02)


def test_what_two_combinations_share_cancels_in_their_difference(planted):
    planted = fit_few_cells(planted)
    pair, single, other = sample_shifts(planted, [[0, 1], [0], [1]], 20)
    np.testing.assert_allclose(pair - single, other, atol=1e-5)
    assert other.std(axis=0).max() > 0.1


def fit_few_cells(model, n_controls=4):
    """The same model, with uncertain shifts."""
    uncertain = copy.copy(model)
    uncertain.n_cells_, uncertain.n_controls_ = np.full(7, 4), n_controls
    return uncertain


def test_the_error_of_the_control_is_in_shifts_and_cancels_between_them(planted):
    """Shifts are distances of means of 4 cells, and the mean of the control is the same."""
    uncertain = fit_few_cells(planted, n_controls=16)
    first, second = sample_shifts(uncertain, [[0], [1]], 20_000)[:, :, :2]
    assert first.var(axis=0) == pytest.approx(np.full(2, 1 / 4 + 1 / 16), rel=0.05)
    assert (first - second).var(axis=0) == pytest.approx(np.full(2, 1 / 4 + 1 / 4), rel=0.05)


def test_a_gene_may_be_given_as_a_string(planted):
    genes = planted.gene_names
    assert [*planted.get_normalized_expression(gene_list=str(genes[3]))] == [genes[3]]
    with pytest.raises(KeyError, match="no genes 'nonsense'"):
        planted.get_normalized_expression(gene_list="nonsense")


def test_a_model_without_cells_asks_for_unperturbed_ones(planted, tmp_path, singles):
    planted.save(tmp_path / "model")
    loaded = type(planted).load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match="no cells of 'control' of its own: pass unperturbed"):
        loaded.predict_perturbation("P001")
    controls = singles[singles.obs["perturbation"] == "control"].copy()
    pd.testing.assert_frame_equal(
        loaded.predict_perturbation("P001", controls), planted.predict_perturbation("P001")
    )


def test_perturbed_cells_are_not_shifted_a_second_time(planted, singles):
    n = (singles.obs["perturbation"] != "control").sum()
    with pytest.raises(ValueError, match=f"{n} of {singles.n_obs} cells are perturbed by .adata"):
        planted.predict_perturbation("P001", singles)
    unnamed = singles.copy()
    del unnamed.obs["perturbation"]
    assert planted.predict_perturbation("P001", unnamed)["mean"].notna().all()


def test_a_model_without_a_prior_does_not_predict(singles):
    model = fit(singles, SETUP, prior="none")
    with pytest.raises(ValueError, match="prior='none' has no shifts"):
        model.predict_perturbation("P001")


def test_cells_that_are_not_asked_about_need_not_be_known(planted, whole):
    known = ~whole.obs["perturbation"].astype(str).str.contains("P007")
    known &= whole.obs["batch"] != "batch_2"
    cells = np.flatnonzero(known)[:20]
    assert planted.get_elbo(whole, indices=cells) == pytest.approx(
        planted.get_elbo(whole[cells].copy()), abs=3
    )
    assert planted.get_perturbation_ll(whole, indices=cells, n_samples=2)["n_cells"].sum() == 20


def test_a_perturbation_does_not_differ_from_itself(planted):
    table = planted.differential_expression("P001", "P001")
    np.testing.assert_allclose(table["log2_fold_change"], 0, atol=0.01)
    assert (table["probability"] == 0).all()


def test_genes_of_a_latent_are_sorted_and_change_sign_with_it(planted):
    table = planted.get_latent_genes(1, step=2.0)
    sizes = table["log2_fold_change"].abs().to_numpy()
    assert (np.diff(sizes) <= 0).all()
    assert table[["plus", "minus"]].sum().to_numpy() == pytest.approx([1, 1], rel=1e-4)
    with torch.no_grad():
        point = torch.tensor([[0.0, 2.0, 0.0]])
        scale = planted.module.generative(point, torch.ones(1, 1))["scale"]
    order = [*planted.gene_names].index(table.index[0])
    assert table["plus"].iloc[0] == pytest.approx(float(scale[0, order]), rel=1e-4)


def test_the_step_is_the_median_shift(planted):
    shifts = planted.module.shift[:, 1].detach().abs().numpy()
    pd.testing.assert_frame_equal(
        planted.get_latent_genes(1), planted.get_latent_genes(1, step=float(np.median(shifts)))
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "latent=3: the model has latents 0 to 2"),
        ((-1,), "latent=-1"),
        ((0, 0), "step=0"),
    ],
)
def test_wrong_latents_are_refused(planted, arguments, message):
    latent, *step = arguments
    with pytest.raises(ValueError, match=message):
        planted.get_latent_genes(latent, **({"step": step[0]} if step else {}))


@pytest.mark.parametrize("verb", ["predict_perturbation", "differential_expression"])
def test_a_wrong_level_is_refused_before_sampling(planted, monkeypatch, verb):
    monkeypatch.setattr(type(planted), "_sample_expression", None)
    with pytest.raises(ValueError, match="level=95"):
        getattr(planted, verb)("P001", level=95)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, "n_samples=0"),
        ({"level": 95}, "level=95"),
        ({"indices": []}, "no"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_wrong_arguments_are_refused(planted, arguments, message):
    with pytest.raises(ValueError, match=message):
        planted.predict_perturbation("P001", **arguments)


def test_unknown_genes_and_batches_are_named(planted):
    with pytest.raises(KeyError, match="'gene_x'"):
        planted.get_normalized_expression(gene_list=["gene_x"])
    with pytest.raises(ValueError, match="transform_batch='batch_7'"):
        planted.get_normalized_expression(transform_batch="batch_7")


def test_summaries_are_quantiles_of_samples():
    samples = np.stack([np.full((101, 1), 2.0), np.arange(101.0)[:, None] + 1])
    row = summarize_prediction(samples, ["g"], 0.9).loc["g"]
    assert row[["lower", "mean", "upper"]].tolist() == pytest.approx([6, 51, 96])
    assert row["log2_fold_change"] == pytest.approx(np.log2(51 / 2))
    row = summarize_difference(samples, ["g"], 0.9, delta=1).loc["g"]
    assert row["probability"] == pytest.approx((np.abs(np.log2(samples[1] / 2)) > 1).mean())


def test_shifts_off_target_count_where_they_exceed_noise(planted):
    logits, cells = planted.module.inclusion_logit.detach().clone(), planted.n_cells_
    on_target = sample_shifts(planted, [[1]], 3)
    try:
        with torch.no_grad():
            planted.module.inclusion_logit.fill_(-20)
        off_target = sample_shifts(planted, [[1]], 3)
        # The standard error of a single cell is 1.
        planted.n_cells_ = np.full(7, 1)
        within_noise = sample_shifts(planted, [[1]], 3)[0]
    finally:
        planted.n_cells_ = cells
        with torch.no_grad():
            planted.module.inclusion_logit.copy_(logits)
    np.testing.assert_array_equal(off_target, on_target)
    assert np.abs(off_target).max() > 1
    small = planted.module.shift[1].abs().detach().numpy() < ROTATION.noise_floor
    assert not within_noise[:, small].any()
