"""The objective is that of the model: formulas against sampling, and what reads perturbations."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import beta
from scvi import REGISTRY_KEYS
from torch.distributions import Normal, kl_divergence

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.data import to_tensor
from scvi_sctab.external.svae import SpikeSlabModule
from scvi_sctab.external.svae._field import PERTURBATIONS_KEY
from scvi_sctab.external.svae._likelihood import lower_bounds, marginal_log_likelihoods
from scvi_sctab.external.svae._module import fast_nb_loss

N_CELLS, N_GENES, N_LATENT = 32, 12, 3


def make(**changes):
    arguments = {
        "n_latent": N_LATENT,
        "n_hidden": 8,
        "n_layers": 1,
        "dropout_rate": 0.0,
        "gene_likelihood": "nb",
        "prior": "spike_slab",
        "sparsity": 20.0,
        "beta": 1.0,
        "n_categories": [3],
        "n_covariates": 1,
    }
    torch.manual_seed(0)
    module = SpikeSlabModule(N_GENES, 4, **{**arguments, **changes})
    torch.nn.init.normal_(module.inclusion_logit)
    return module.eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    codes = torch.tensor([[0, -1], [1, 2], [-1, -1], [3, -1]]).repeat(N_CELLS // 4, 1)
    return {
        REGISTRY_KEYS.X_KEY: torch.poisson(torch.full((N_CELLS, N_GENES), 4.0), generator),
        PERTURBATIONS_KEY: codes,
        CONDITIONS_KEY: torch.arange(N_CELLS)[:, None] % 3,
        REGISTRY_KEYS.CONT_COVS_KEY: torch.randn(N_CELLS, 1, generator=generator),
    }


def test_the_expected_divergence_is_the_mean_over_masks(batch):
    module = make()
    codes = batch[PERTURBATIONS_KEY]
    q = Normal(torch.randn(N_CELLS, N_LATENT), torch.rand(N_CELLS, N_LATENT) + 0.5)
    many = module.sample_shifts(codes.repeat(4000, 1)).reshape(4000, N_CELLS, N_LATENT)
    sampled = kl_divergence(q, Normal(many, 1.0)).mean(dim=0)
    centre, spread = module.prior_mean(codes, "expected")
    exact = kl_divergence(q, Normal(centre, 1.0)) + spread / 2
    torch.testing.assert_close(sampled, exact, rtol=0.05, atol=0.05)


def test_sampled_masks_are_straight_through(batch):
    module = make()
    centre, spread = module.prior_mean(batch[PERTURBATIONS_KEY], "sampled")
    single = batch[PERTURBATIONS_KEY][:, 1] < 0
    shifts = module.shift[batch[PERTURBATIONS_KEY][single, 0]]
    perturbed = batch[PERTURBATIONS_KEY][single, 0] >= 0
    ratio = (centre[single] / shifts)[perturbed].detach()
    assert set(ratio.round(decimals=4).unique().tolist()) == {0.0, 1.0}
    assert not spread.any()
    centre.sum().backward()
    assert module.inclusion_logit.grad.abs().min() > 0


def test_a_combination_has_the_sum_of_the_shifts_of_its_parts():
    module = make(prior="dense")
    both, _ = module.prior_mean(torch.tensor([[1, 2]]), "expected")
    torch.testing.assert_close(both[0], module.shift[1] + module.shift[2])


def test_unperturbed_cells_are_at_zero():
    centre, spread = make().prior_mean(torch.tensor([[-1, -1]]), "expected")
    assert not centre.any()
    assert not spread.any()


def test_the_penalty_is_the_log_density_of_the_beta_distribution():
    module, n_obs = make(sparsity=7.0), 50
    p = module.inclusion().detach().double().numpy()
    differences = []
    for values in (p, np.full_like(p, 0.5)):
        with torch.no_grad():
            module.inclusion_logit.copy_(torch.from_numpy(values).logit())
        expected = -beta(1, 7).logpdf(values).sum() / n_obs
        differences.append(float(module.penalty(n_obs).detach()) - expected)
    # A constant, which has no gradient.
    assert differences[0] == pytest.approx(differences[1], abs=1e-5)


def test_without_sparsity_there_is_no_penalty():
    penalty = make(sparsity=1.0).penalty(10)
    assert penalty.detach() == 0


def test_neither_encoder_nor_decoder_reads_perturbations(batch):
    module = make()
    other = {**batch, PERTURBATIONS_KEY: batch[PERTURBATIONS_KEY].flip(0)}
    results = []
    for tensors in (batch, other):
        torch.manual_seed(0)
        inference, generative, _ = module(tensors)
        results.append([inference["qz"].loc, inference["qz"].scale, generative["rate"]])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_the_standard_objective_leaves_shifts_alone(batch):
    module = make()
    module(batch, loss_kwargs={"objective": "standard"})[2].loss.backward()
    assert module.shift.grad is None or not module.shift.grad.any()


def test_each_parameter_of_the_model_gets_a_gradient(batch):
    module = make()
    module(batch, loss_kwargs={"n_obs": N_CELLS})[2].loss.backward()
    # Heads of the host's decoder that a negative binomial per gene does not use.
    unused = ("decoder.px_r_decoder", "decoder.px_dropout_decoder")
    for name, parameter in module.named_parameters():
        if not name.startswith(unused):
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_counts_may_be_sparse(batch, layout):
    module, x = make(), batch[REGISTRY_KEYS.X_KEY]
    stored = x if layout == "dense" else to_tensor(sparse.csr_matrix(x.numpy()))
    expected = module.inference(x)["qz"].loc
    found = module.embed({**batch, REGISTRY_KEYS.X_KEY: stored})[:, :N_LATENT]
    torch.testing.assert_close(found, expected)


def test_unknown_categories_are_averaged_over():
    module = make(n_covariates=0)
    z, library = torch.randn(1, N_LATENT), torch.ones(1, 1)
    layer, layers = module.decoder_layer, module.decoder
    hidden = [layer(torch.cat([z, torch.eye(3)[[code]]], dim=1)) for code in range(3)]
    rest = layers.px_decoder.fc_layers[0][1:]
    average = torch.stack(hidden).mean(dim=0)
    for step in rest:
        average = average if step is None else step(average)
    expected = layers.px_scale_decoder(average)
    torch.testing.assert_close(module.generative(z, library)["scale"], expected)


def test_many_samples_are_decoded_as_one_after_the_other(batch):
    module = make()
    inputs = {
        "library": torch.full((N_CELLS, 1), 9.0),
        "conditions": batch[CONDITIONS_KEY],
        "covariates": batch[REGISTRY_KEYS.CONT_COVS_KEY],
    }
    z = torch.randn(2, N_CELLS, N_LATENT)
    together = module.generative(z, **inputs)["rate"]
    torch.testing.assert_close(together[1], module.generative(z[1], **inputs)["rate"])


def test_the_fast_loss_of_all_cells_is_the_exact_one(batch):
    module = make()
    x = batch[REGISTRY_KEYS.X_KEY]
    mean = torch.rand(N_CELLS, N_GENES) * 5 + 0.1
    exact = -module.likelihood({"rate": mean}).log_prob(x).sum(dim=1)
    fast = fast_nb_loss(x, mean, module.px_r.exp(), n_cells=N_CELLS)
    torch.testing.assert_close(fast.mean(), exact.mean())


def test_the_gradient_of_means_in_the_fast_loss_is_exact_for_few_cells(batch):
    module, x = make(), batch[REGISTRY_KEYS.X_KEY]
    mean = (torch.rand(N_CELLS, N_GENES) * 5 + 0.1).requires_grad_()
    exact = -module.likelihood({"rate": mean}).log_prob(x).sum()
    fast = fast_nb_loss(x, mean, module.px_r.exp(), n_cells=4).sum()
    gradients = [torch.autograd.grad(loss, mean, retain_graph=True)[0] for loss in (exact, fast)]
    torch.testing.assert_close(*gradients)


def test_more_importance_samples_are_above_the_bound(batch):
    module = make()
    torch.manual_seed(0)
    bound = lower_bounds(module, batch).mean()
    few = torch.stack([marginal_log_likelihoods(module, batch, 1).mean() for _ in range(30)])
    many = torch.stack([marginal_log_likelihoods(module, batch, 200).mean() for _ in range(5)])
    assert many.mean() > few.mean()
    assert many.mean() > bound


def test_importance_weights_give_the_likelihood_where_it_is_known(batch):
    module = make(n_categories=[], n_covariates=0, prior="none")
    with torch.no_grad():
        # A decoder that does not read latents: the likelihood is that of its only output.
        module.decoder_layer.weight.zero_()
    tensors = {name: batch[name] for name in (REGISTRY_KEYS.X_KEY, PERTURBATIONS_KEY)}
    tensors[CONDITIONS_KEY] = batch[CONDITIONS_KEY][:, :0]
    outputs = module(tensors, compute_loss=False)[1]
    expected = module.likelihood(outputs).log_prob(tensors[REGISTRY_KEYS.X_KEY]).sum(dim=1)
    found = marginal_log_likelihoods(module, tensors, 4000)
    torch.testing.assert_close(found, expected, atol=0.3, rtol=0)
