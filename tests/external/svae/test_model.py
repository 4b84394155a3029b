"""The model in the grammar of scvi-tools: set-up, verbs, files, and what is refused."""

from dataclasses import asdict
from inspect import signature

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse
from tests.external.svae.conftest import FEW, NETWORK, SETUP, TRAINER, fit

from scvi_sctab._config import SHIFT_NETWORK
from scvi_sctab.external import SpikeSlabVAE
from scvi_sctab.external.svae import UnknownPerturbationError


@pytest.fixture
def small(singles):
    return singles[:60].copy()


def test_defaults_are_those_of_the_configuration():
    shown = {name: p.default for name, p in signature(SpikeSlabVAE.__init__).parameters.items()}
    for name, value in asdict(SHIFT_NETWORK).items():
        assert name == "l1_penalty" or shown[name] == value


def test_tables_have_a_row_per_perturbation_without_the_control(trained):
    targets, effects = trained.get_intervention_targets(), trained.get_intervention_effects()
    assert [*targets.index] == [*effects.index] == [f"P00{i}" for i in range(7)]
    assert targets.shape == (7, 3)
    assert ((targets >= 0) & (targets <= 1)).all(axis=None)
    shift = trained.module.shift.detach().numpy()
    np.testing.assert_allclose(effects, targets * shift, rtol=1e-5)


def test_latents_need_neither_perturbations_nor_batches(trained, small):
    expected = trained.get_latent_representation(small)
    small.obs = small.obs[[]]
    np.testing.assert_allclose(trained.get_latent_representation(small), expected)


def test_genes_are_matched_by_name(trained, small):
    shuffled = small[:, np.random.default_rng(0).permutation(small.n_vars)].copy()
    np.testing.assert_allclose(
        trained.get_latent_representation(shuffled),
        trained.get_latent_representation(small),
        atol=1e-5,
    )
    assert trained.get_marginal_ll(shuffled, n_samples=50) == pytest.approx(
        trained.get_marginal_ll(small, n_samples=50), abs=1
    )


@pytest.mark.parametrize("convert", [sparse.csr_matrix, sparse.csc_matrix])
def test_sparse_counts_are_the_same(trained, small, convert):
    expected = trained.get_latent_representation(small)
    small.X = convert(small.X)
    np.testing.assert_allclose(trained.get_latent_representation(small), expected, atol=1e-5)


def test_results_do_not_depend_on_the_batch_size(trained, small):
    np.testing.assert_allclose(
        trained.get_normalized_expression(small, batch_size=7),
        trained.get_normalized_expression(small),
        rtol=1e-4,
    )


def test_the_likelihood_of_perturbations_averages_to_that_of_all_cells(trained):
    table = trained.get_perturbation_ll(n_samples=30)
    mean = np.average(table["marginal_ll"], weights=table["n_cells"])
    assert mean == pytest.approx(trained.get_marginal_ll(n_samples=30), abs=0.2)
    assert table["n_cells"].sum() == trained.adata.n_obs
    assert "control" in table.index


def test_the_bound_is_below_the_likelihood(trained):
    assert trained.get_elbo() < trained.get_marginal_ll(n_samples=100) + 0.1


def test_expression_of_a_cell_sums_to_the_library_size(trained, small):
    values = trained.get_normalized_expression(small, library_size=1e4)
    np.testing.assert_allclose(values.sum(axis=1), 1e4, rtol=1e-4)
    one = trained.get_normalized_expression(
        small, gene_list=[small.var_names[4]], library_size=1e4
    )
    pd.testing.assert_frame_equal(one, values[[small.var_names[4]]])


def test_expression_in_another_batch_is_that_of_the_cells_moved_there(trained, small):
    moved = trained.get_normalized_expression(small, transform_batch="batch_1")
    small.obs["batch"] = "batch_1"
    pd.testing.assert_frame_equal(moved, trained.get_normalized_expression(small))


@pytest.mark.parametrize("safe", [True, False])
def test_a_saved_model_is_the_same(trained, tmp_path, safe):
    trained.save(tmp_path / "model")
    if not safe:
        (tmp_path / "model" / "model.safetensors").unlink()
    cells = trained.adata.copy()
    loaded = SpikeSlabVAE.load(tmp_path / "model", cells, allow_pickle=not safe)
    np.testing.assert_allclose(
        loaded.get_latent_representation(), trained.get_latent_representation(), atol=1e-6
    )
    pd.testing.assert_frame_equal(
        loaded.get_intervention_targets(), trained.get_intervention_targets()
    )
    pd.testing.assert_frame_equal(loaded.rotation.effects, trained.rotation.effects)
    assert loaded.rotation.criteria == trained.rotation.criteria
    pd.testing.assert_frame_equal(
        loaded.predict_perturbation("P001", n_samples=2),
        trained.predict_perturbation("P001", n_samples=2),
    )


def test_a_model_is_loaded_without_cells(trained, tmp_path, small):
    trained.save(tmp_path / "model")
    loaded = SpikeSlabVAE.load(tmp_path / "model", adata=False)
    pd.testing.assert_frame_equal(loaded.get_latent_genes(0), trained.get_latent_genes(0))
    np.testing.assert_allclose(
        loaded.get_latent_representation(small), trained.get_latent_representation(small)
    )
    with pytest.raises(ValueError, match="no AnnData to train on"):
        loaded.train()


def test_a_boolean_matrix_is_the_same_as_names(screen, tmp_path):
    names = screen.obs["perturbation"].astype(str)
    screen.obsm["guides"] = names.str.get_dummies(sep="+").astype(bool)
    training = {"finetune_epochs": 0}
    import scvi

    found = []
    for setup in (
        {"perturbation_key": "perturbation", "separator": "+"},
        {"perturbation_obsm_key": "guides"},
    ):
        scvi.settings.seed = 0
        model = fit(screen.copy(), {**setup, "control_category": "control"}, training)
        found.append(model.get_intervention_effects())
    pd.testing.assert_frame_equal(*found, atol=1e-4)
    model.save(tmp_path / "model")
    loaded = SpikeSlabVAE.load(tmp_path / "model", screen.copy())
    assert loaded.perturbations == model.perturbations


def setup(cells, **changes):
    SpikeSlabVAE.setup_anndata(cells, **{**SETUP, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"control_category": "ctrl"}, ValueError, "control_category='ctrl' is not in"),
        ({"control_category": 0}, TypeError, "control_category=0 is no string.*category='0'"),
        ({"separator": ""}, ValueError, "separator='': give the text between"),
        ({"perturbation_key": "guide"}, KeyError, "perturbation_key='guide'"),
        ({"perturbation_key": None}, ValueError, "Name the column of perturbations"),
        ({"perturbation_obsm_key": "guides"}, ValueError, "not both"),
        ({"batch_key": "lane"}, KeyError, "batch_key='lane'"),
        ({"batch_key": ["batch"]}, TypeError, "batch_key is a list"),
        ({"continuous_covariate_keys": ["batch"]}, ValueError, "continuous_covariate_keys"),
        ({"size_factor_key": "age"}, ValueError, "not positive"),
        ({"layer": "counts"}, KeyError, "no layer 'counts'"),
        ({"guide": "x"}, TypeError, "did you mean `perturbation_key=`"),
    ],
)
def test_wrong_set_ups_are_refused(singles, changes, error, message):
    singles.obs["age"] -= 60
    with pytest.raises(error, match=message):
        setup(singles, **changes)


def test_only_controls_are_refused(singles):
    controls = singles[singles.obs["perturbation"] == "control"].copy()
    with pytest.raises(ValueError, match="cells are controls"):
        setup(controls)


def test_a_perturbation_with_one_cell_is_refused(singles):
    names = singles.obs["perturbation"].astype(str).to_numpy()
    names[3] = "alone"
    singles.obs["perturbation"] = names
    with pytest.raises(ValueError, match="'alone' have fewer than 2 cells"):
        setup(singles)


def test_missing_perturbations_are_refused(singles):
    singles.obs["perturbation"] = singles.obs["perturbation"].astype(object)
    singles.obs.iloc[2, singles.obs.columns.get_loc("perturbation")] = None
    with pytest.raises(ValueError, match="perturbation_key='perturbation' has 1 missing values"):
        setup(singles)


def test_counts_that_are_not_raw_are_refused(singles):
    singles.X = np.log1p(singles.X)
    with pytest.raises(ValueError, match="count"):
        setup(singles)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_latent": 0}, "n_latent=0"),
        ({"prior": "horseshoe"}, "prior='horseshoe' is none of 'spike_slab'"),
        ({"gene_likelihood": "poisson"}, "gene_likelihood='poisson' is none of"),
        ({"sparsity": 0.5}, "sparsity=0.5: give a number of at least 1"),
        ({"sparsity": float("nan")}, "sparsity=nan"),
        ({"sparsity": float("inf")}, "sparsity=inf"),
        ({"beta": -1}, "beta=-1"),
        ({"beta": float("inf")}, "beta=inf"),
        ({"dropout_rate": 1.0}, "dropout_rate=1.0"),
    ],
)
def test_wrong_hyperparameters_are_refused(singles, changes, message):
    setup(singles)
    with pytest.raises(ValueError, match=message):
        SpikeSlabVAE(singles, **changes)


def test_an_untrained_model_says_so(singles):
    setup(singles)
    model = SpikeSlabVAE(singles, **NETWORK)
    for verb in (
        model.get_latent_representation,
        model.get_intervention_targets,
        model.get_intervention_effects,
        model.get_elbo,
        model.get_normalized_expression,
        lambda: model.predict_perturbation("P001"),
        lambda: model.get_latent_genes(0),
        lambda: model.adapt(singles),
    ):
        with pytest.raises(RuntimeError, match=r"call `model.train\(\)` first"):
            verb()


def test_unknown_perturbations_of_cells_are_refused_where_they_matter(trained, held_out):
    with pytest.raises(UnknownPerturbationError, match="'P007'"):
        trained.get_elbo(held_out)
    trained.get_normalized_expression(held_out)


def test_unknown_batches_are_refused_where_they_matter(trained, small):
    small.obs["batch"] = "batch_9"
    with pytest.raises(ValueError, match="'batch_9'.*load_query_data"):
        trained.get_normalized_expression(small)


def test_covariates_are_standardised(trained):
    age = trained.adata.obs["age"].to_numpy()
    assert float(trained.module.covariate_mean) == pytest.approx(age.mean(), rel=1e-5)
    assert float(trained.module.covariate_std) == pytest.approx(age.std(), rel=1e-5)


def test_size_factors_scale_the_expected_counts(trained, small):
    before = trained.get_marginal_ll(small, n_samples=20)
    small.obs["depth"] *= 3
    assert trained.get_marginal_ll(small, n_samples=20) < before - 1


def test_memory_of_training_does_not_hold_dense_counts_of_all_cells(singles):
    singles.X = sparse.csr_matrix(singles.X)
    model = fit(singles, SETUP)
    loader = model._splitter(train_size=1.0, batch_size=16).train_dataloader()
    batch = next(iter(loader))
    assert batch["X"].layout == torch.strided
    assert batch["X"].shape == (16, singles.n_vars)
    assert sparse.issparse(model.adata.X)


def test_cells_may_stay_on_disk(singles, tmp_path):
    import anndata

    training = {"finetune_epochs": 0}
    expected = fit(singles.copy(), SETUP, training).get_latent_representation()
    singles.X = sparse.csr_matrix(singles.X)
    singles.write_h5ad(tmp_path / "screen.h5ad")
    backed = anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    scvi.settings.seed = 0
    model = fit(backed, SETUP, training)
    np.testing.assert_allclose(model.get_latent_representation(), expected, atol=1e-3)
    backed.file.close()


def test_zero_inflated_counts_are_a_choice(singles):
    model = fit(singles, SETUP, gene_likelihood="zinb")
    assert np.isfinite(model.get_elbo())


def test_predictions_need_no_covariates(singles):
    model = fit(singles, {"perturbation_key": "perturbation"}, {"finetune_epochs": 0})
    assert model.control is None
    assert "control" in model.perturbations
    assert len(model.predict_perturbation("P001", n_samples=2)) == singles.n_vars


def test_stability_compares_seeds_and_leaves_the_model_alone(singles):
    model = fit(singles, SETUP, sparsity=70.0)
    before = model.get_latent_representation()
    arguments = {k: v for k, v in FEW.items() if k not in TRAINER}
    with pytest.warns(UserWarning, match="Only .* of"):
        table = model.stability([None, 50.0], n_seeds=2, **arguments, **TRAINER)
    assert table.index[1] == 50
    # None is the rule, also of a model with a given K.
    assert table.index[0] != 70
    assert [*table] == ["agreement", "agreement_sd", "mask_rate", "n_active"]
    np.testing.assert_array_equal(model.get_latent_representation(), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_seeds": 1}, "n_seeds=1"),
        ({"sparsity": []}, "sparsity=.*give a list"),
        ({"sparsity": [0.1]}, "sparsity=.*give a list"),
        ({"sparsity": 100}, "sparsity=100: give a list"),
        ({"sparsity": [None, 9.0], "finetune_epochs": 0}, "no effect with finetune_epochs=0"),
    ],
)
def test_wrong_arguments_of_stability_are_refused(trained, arguments, message):
    with pytest.raises(ValueError, match=message):
        trained.stability(**arguments)
