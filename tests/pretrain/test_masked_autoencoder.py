"""A masked autoencoder: what it learns from, what it says, and what it leaves alone."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import nbinom
from scvi import REGISTRY_KEYS

from scvi_sctab.nn import HiddenGenes, normalize_counts
from scvi_sctab.pretrain import MaskedAutoencoder

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"widths": (32, 24, 8)}


def build(adata, **arguments):
    MaskedAutoencoder.setup_anndata(adata)
    # Widths are those of SELU alone.
    small = SMALL if arguments.get("encoder", "selu") == "selu" else {}
    return MaskedAutoencoder(adata, **{**small, **arguments})


def batch(adata, n_cells=20):
    return {REGISTRY_KEYS.X_KEY: torch.tensor(adata.X[:n_cells].toarray(), dtype=torch.float32)}


def log_normalised(adata):
    counts = adata.X.toarray()
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def programmes(adata):
    names = list(adata.var_names)
    return {"first": names[:40], "second": names[30:90], "third": names[200:230]}


def test_it_learns_from_cells_without_labels_to_beat_the_mean_of_each_gene(autoencoder):
    adata = autoencoder.adata
    assert "cell_type" not in adata.obs
    history = autoencoder.history["validation_loss"].to_numpy().ravel()
    x = log_normalised(adata)
    of_the_mean = ((x - x.mean(axis=0)) ** 2).mean()
    error = autoencoder.get_reconstruction_error()
    assert error.mean() < 0.9 * of_the_mean
    assert history[-1] < history[0]


def test_the_weights_of_the_best_epoch_are_kept(unlabelled):
    model = build(unlabelled)
    # It gets worse from the first epoch on.
    model.train(max_epochs=4, plan_kwargs={"lr": 3.0}, early_stopping=False, **QUIET)
    losses = model.history["validation_loss"].to_numpy().ravel().astype(float)
    validation = model.trainer.validate(
        model.trainer.lightning_module, datamodule=model.trainer.datamodule, verbose=False
    )
    assert validation[0]["validation_loss"] == pytest.approx(losses.min(), rel=1e-5)
    assert losses.min() < losses[-1]


def test_held_out_cells_are_masked_alike_in_every_epoch(unlabelled):
    model = build(unlabelled)
    model.train(max_epochs=3, plan_kwargs={"lr": 0.0}, early_stopping=False, **QUIET)
    losses = model.history["validation_loss"].to_numpy().ravel().astype(float)
    assert len(losses) == 3
    np.testing.assert_array_equal(losses, losses[0])
    assert model.history["train_loss"].nunique().item() > 1


def test_the_loss_is_the_mean_over_hidden_entries_and_ignores_all_others(unlabelled):
    module = build(unlabelled).module
    tensors = batch(unlabelled)
    generator = torch.Generator().manual_seed(3)
    inputs = module._get_inference_input(tensors, generator)
    hidden = inputs["hidden"]
    output = torch.randn(hidden.values.shape, requires_grad=True)
    loss = module.loss(tensors, {"hidden": hidden}, {"output": output}).loss
    entries = hidden.entries.numpy()
    x = normalize_counts(tensors[REGISTRY_KEYS.X_KEY]).numpy()[:, hidden.genes.numpy()]
    naive = np.mean(
        [
            (output[i, g].item() - x[i, g]) ** 2
            for i, g in np.ndindex(*entries.shape)
            if entries[i, g]
        ]
    )
    assert loss.item() == pytest.approx(naive, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, output)
    assert (gradient[~hidden.entries] == 0).all()
    assert (gradient[hidden.entries] != 0).all()


def test_what_is_hidden_does_not_reach_the_encoder(unlabelled):
    module = build(unlabelled).module.eval()
    x = normalize_counts(batch(unlabelled)[REGISTRY_KEYS.X_KEY])
    visible, hidden = module.mask(x, torch.Generator().manual_seed(0))
    changed = x + 5 * hidden.entries
    again, _ = module.mask(changed, torch.Generator().manual_seed(0))
    torch.testing.assert_close(visible, again)


@pytest.mark.parametrize("likelihood", ["gaussian", "nb"])
@pytest.mark.parametrize("encoder", ["selu", "tabnet", "mlp"])
def test_every_parameter_of_the_encoder_gets_a_gradient(unlabelled, encoder, likelihood):
    module = build(unlabelled, encoder=encoder, likelihood=likelihood).module.train()
    # The output starts near its bias, through which no gradient reaches the encoder.
    torch.nn.init.normal_(module.decoder.final_mapping.weight)
    *_, output = module(batch(unlabelled, 128))
    output.loss.backward()
    still = [n for n, p in module.encoder.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []


def test_the_likelihood_of_counts_is_that_of_a_negative_binomial(unlabelled):
    module = build(unlabelled, likelihood="nb").module
    torch.nn.init.normal_(module.likelihood.log_dispersion)
    counts = batch(unlabelled, 6)[REGISTRY_KEYS.X_KEY]
    genes = torch.tensor([0, 5, 17])
    asked = torch.rand(6, 3) < 0.5
    output = torch.randn(counts.shape)
    hidden = HiddenGenes(genes, torch.zeros(6, 3), asked)
    error, _ = module.error({REGISTRY_KEYS.X_KEY: counts}, {"hidden": hidden}, {"output": output})
    share = np.exp(output.numpy()) / np.exp(output.numpy()).sum(axis=1, keepdims=True)
    mean = (counts.sum(dim=1, keepdim=True).numpy() * share)[:, genes]
    theta = module.likelihood.log_dispersion.exp().detach().numpy()[genes]
    expected = -nbinom.logpmf(counts[:, genes].numpy(), theta, theta / (theta + mean))
    np.testing.assert_allclose(error.detach(), np.where(asked, expected, 0), rtol=1e-3)


def test_before_training_every_cell_is_taken_for_the_mean_cell(unlabelled):
    for likelihood in ("gaussian", "nb"):
        model = build(unlabelled, likelihood=likelihood)
        torch.nn.init.zeros_(model.module.decoder.final_mapping.weight)
        model._start(np.arange(unlabelled.n_obs))
        model.is_trained_ = True
        expected = log_normalised(unlabelled).mean(axis=0)
        if likelihood == "nb":
            total = np.asarray(unlabelled.X.sum(axis=0)).ravel()
            expected = np.log1p(1e4 * total / total.sum())
        np.testing.assert_allclose(model.reconstruct()[0], expected, rtol=2e-3, atol=2e-3)


def test_shares_of_genes_add_up_to_one_in_what_counts_are_reconstructed_as(unlabelled):
    model = build(unlabelled, likelihood="nb")
    model.train(max_epochs=2, **QUIET)
    total = np.expm1(model.reconstruct(indices=range(7)).astype(float)).sum(axis=1)
    np.testing.assert_allclose(total, 1e4, rtol=1e-3)


def test_genes_are_matched_by_name(autoencoder, reference):
    latent = autoencoder.get_latent_representation(reference)
    order = np.random.default_rng(0).permutation(reference.n_vars)
    np.testing.assert_array_equal(
        autoencoder.get_latent_representation(reference[:, order].copy()), latent
    )
    with pytest.raises(ValueError, match="genes"):
        autoencoder.get_latent_representation(reference[:, :20].copy())


def test_unusual_cells_have_a_large_reconstruction_error(autoencoder, reference):
    usual = autoencoder.get_reconstruction_error(reference)
    shuffled = reference.copy()
    rng = np.random.default_rng(0)
    dense = shuffled.X.toarray()
    shuffled.X = sparse.csr_matrix(rng.permuted(dense, axis=1))
    unusual = autoencoder.get_reconstruction_error(shuffled)
    assert np.median(unusual) > 1.5 * np.median(usual)
    np.testing.assert_array_equal(usual, autoencoder.get_reconstruction_error(reference))
    assert (usual != autoencoder.get_reconstruction_error(reference, seed=1)).any()


def test_cells_are_scored_on_all_hidden_genes_however_few_a_step_asks_for(
    autoencoder, reference, monkeypatch
):
    scores = autoencoder.get_reconstruction_error(reference)
    monkeypatch.setattr(autoencoder.module.mask, "n_targets", None)
    np.testing.assert_array_equal(autoencoder.get_reconstruction_error(reference), scores)
    monkeypatch.setattr(autoencoder.module.mask, "n_targets", 20)
    np.testing.assert_array_equal(autoencoder.get_reconstruction_error(reference), scores)
    assert autoencoder.module.mask.n_targets == 20


@pytest.mark.parametrize("mask", ["gene_programme", "programme_to_programme"])
def test_programmes_are_masked_saved_and_loaded(unlabelled, mask, tmp_path):
    model = build(unlabelled, mask=mask, programmes=programmes(unlabelled))
    model.train(max_epochs=2, **QUIET)
    model.save(tmp_path / "model")
    loaded = MaskedAutoencoder.load(tmp_path / "model", adata=False)
    assert torch.equal(loaded.module.mask.programmes, model.module.mask.programmes)
    assert model.module.mask.programmes.sum(dim=1).tolist() == [40, 60, 30]
    np.testing.assert_array_equal(
        loaded.get_reconstruction_error(unlabelled), model.get_reconstruction_error()
    )


def test_a_programme_asks_for_the_gene_that_it_is_named_by(unlabelled, tmp_path):
    names = list(unlabelled.var_names)
    by_regulator = {names[7]: names[:30], f"{names[250]}_TARGETS": names[40:80], "?": names[90:99]}
    model = build(unlabelled, mask="programme_to_gene", programmes=by_regulator)
    assert model.module.mask.genes.tolist() == [7, 250]
    model.train(max_epochs=2, **QUIET)
    model.save(tmp_path / "model")
    loaded = MaskedAutoencoder.load(tmp_path / "model", adata=False)
    assert loaded.module.mask.genes.tolist() == [7, 250]


def test_regulators_with_underscores_are_found_again_when_loaded(unlabelled, tmp_path):
    symbols = list(unlabelled.var_names)
    unlabelled.var["symbol"] = symbols
    unlabelled.var_names = [f"GRCh38_{symbol}" for symbol in symbols]
    by_regulator = {symbols[7]: symbols[:30], f"{symbols[250]}_TARGETS": symbols[40:80]}
    model = build(unlabelled, mask="programme_to_gene", programmes=by_regulator)
    model.train(max_epochs=1, **QUIET)
    model.save(tmp_path / "model")
    loaded = MaskedAutoencoder.load(tmp_path / "model", adata=False)
    assert loaded.module.mask.genes.tolist() == [7, 250]


def test_regulators_are_found_among_symbols_where_genes_are_named_by_identifiers(unlabelled):
    symbols = list(unlabelled.var_names)
    unlabelled.var["feature_name"] = symbols
    unlabelled.var_names = [f"ENSG{i:011d}.2" for i in range(unlabelled.n_vars)]
    by_regulator = {symbols[7]: symbols[:30], symbols[250]: symbols[40:80]}
    model = build(unlabelled, mask="programme_to_gene", programmes=by_regulator)
    assert model.module.mask.genes.tolist() == [7, 250]
    arguments = model.init_params_["kwargs"] | model.init_params_["non_kwargs"]
    again = MaskedAutoencoder(
        registry=model.registry,
        mask="programme_to_gene",
        programmes=arguments["programmes"],
        **SMALL,
    )
    assert torch.equal(again.module.mask.programmes, model.module.mask.programmes)
    assert torch.equal(again.module.mask.genes, model.module.mask.genes)


WRONG = {
    "an_unknown_mask": ({"mask": "gene"}, ValueError, "mask='gene' is none of 'random'"),
    "programmes_that_are_missing": (
        {"mask": "gene_programme"},
        ValueError,
        "needs gene programmes",
    ),
    "programmes_that_are_not_hidden": (
        {"programmes": {"a": ["b"]}},
        ValueError,
        "hides no programmes",
    ),
    "a_rate_that_is_not_used": ({"mask": "none", "mask_rate": 0.5}, ValueError, "has no rate"),
    "an_unknown_likelihood": ({"likelihood": "poisson"}, ValueError, "likelihood='poisson'"),
    "an_unknown_hyperparameter": (
        {"width": 3},
        TypeError,
        r"MaskedAutoencoder has no hyperparameters \['width'\]",
    ),
    "what_only_classifiers_have": ({"freeze_encoder": True}, TypeError, "freeze_encoder"),
    "no_layers": ({"widths": ()}, ValueError, r"widths=\(\) are not those of layers"),
    "one_number_as_widths": ({"widths": 64}, ValueError, "widths=64 are not"),
    "a_layer_without_units": ({"widths": (0, 8)}, ValueError, "positive integers"),
    "a_layer_of_half_a_unit": ({"widths": (2.5, 8)}, ValueError, "positive integers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_not_built_with(name, unlabelled):
    arguments, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        build(unlabelled, **arguments)


def test_a_programme_named_by_no_gene_has_nothing_to_ask_for(unlabelled):
    with pytest.raises(ValueError, match="none of 'first', 'second', 'third' is a gene"):
        build(unlabelled, mask="programme_to_gene", programmes=programmes(unlabelled))
    one = {**programmes(unlabelled), unlabelled.var_names[7]: list(unlabelled.var_names[:30])}
    with pytest.raises(ValueError, match="1 of .* is a gene of these cells, at least 2 are"):
        build(unlabelled, mask="programme_to_gene", programmes=one)


def test_what_is_not_counts_is_refused(unlabelled):
    unlabelled.X = unlabelled.X.log1p()
    with pytest.raises(ValueError, match="counts"):
        MaskedAutoencoder.setup_anndata(unlabelled)
    with pytest.raises(ValueError, match="view of another AnnData"):
        MaskedAutoencoder.setup_anndata(unlabelled[:50])
