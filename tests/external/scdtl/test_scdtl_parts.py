"""Parts of the architecture of scDTL: order of genes, discrepancy, U-Net, attention, module."""

import numpy as np
import pytest
import torch
from scipy import sparse

from scvi_sctab._config import ScDTLNetworkConfig
from scvi_sctab.external.scdtl._attention import CrossChannelAttention
from scvi_sctab.external.scdtl._discrepancy import maximum_mean_discrepancy
from scvi_sctab.external.scdtl._order import order_genes
from scvi_sctab.external.scdtl._scdtl_module import ScDTLModule
from scvi_sctab.external.scdtl._scdtl_start import positions_in_order, summarize
from scvi_sctab.external.scdtl._transfer import add_noise, profile_divergence
from scvi_sctab.external.scdtl._unet import GeneUNet
from scvi_sctab.sparse import to_tensor

N_CELLS, N_GENES, N_TYPES = 40, 60, 3
CONFIG = ScDTLNetworkConfig(n_latent=4, n_hidden=8, widths=(4, 8), bulk_steps=60)


def modular(n_modules=8, size=16, n_samples=50, seed=0):
    """Log expression of modules of correlated genes, shuffled; and the module of each gene."""
    generator = np.random.default_rng(seed)
    module = generator.permutation(np.repeat(np.arange(n_modules), size))
    factors = generator.normal(size=(n_samples, n_modules))
    return factors[:, module] + 0.3 * generator.normal(size=(n_samples, len(module))), module


def neighbour_correlation(x, order):
    x = x[:, order] - x.mean(axis=0)[order]
    x = x / np.linalg.norm(x, axis=0)
    return float((x[:, 1:] * x[:, :-1]).sum(axis=0).mean())


def test_genes_of_a_module_are_neighbours():
    x, module = modular()
    order = order_genes(x)
    assert sorted(order.tolist()) == list(range(len(module)))
    assert neighbour_correlation(x, order) > 0.75
    assert neighbour_correlation(x, np.arange(len(module))) < 0.3


def test_the_order_follows_genes_that_are_permuted():
    x, module = modular()
    permutation = np.random.default_rng(1).permutation(len(module))
    ours, theirs = order_genes(x), permutation[order_genes(x[:, permutation])]
    # Signs of eigenvectors depend on the order of sums, so that groups may be turned as a whole.
    assert neighbour_correlation(x, theirs) == pytest.approx(
        neighbour_correlation(x, ours), abs=0.05
    )


def test_the_order_does_not_depend_on_the_level_or_the_scale_of_genes():
    x, module = modular()
    scale = np.random.default_rng(1).uniform(1, 3)
    assert np.array_equal(order_genes(x * scale + np.arange(len(module))), order_genes(x))


def test_samples_with_more_rows_do_not_outweigh_the_others():
    first, module = modular(seed=0)
    second = np.random.default_rng(1).normal(size=(500, len(module)))
    order = order_genes(first, second)
    assert neighbour_correlation(first, order) > 0.4


def test_constant_genes_are_ordered_too():
    order = order_genes(np.ones((5, 30)))
    assert sorted(order.tolist()) == list(range(30))
    assert order_genes(np.ones((5, 1))).tolist() == [0]


def test_the_discrepancy_is_that_of_a_double_loop():
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (5, 4))
    points = torch.cat([source, target])
    pairs = [(points[i] - points[j]).square().sum() for i in range(9) for j in range(9) if i != j]
    median = torch.stack(pairs).median()

    def kernel(a, b):
        squared = (a - b).square().sum()
        return np.mean(
            [float(torch.exp(-squared / (2 * w * median))) for w in (0.25, 0.5, 1, 2, 4)]
        )

    def mean(a, b):
        return np.mean([kernel(x, y) for x in a for y in b])

    expected = mean(source, source) + mean(target, target) - 2 * mean(source, target)
    assert float(maximum_mean_discrepancy(source, target)) == pytest.approx(expected, rel=1e-9)


def test_the_discrepancy_sees_more_than_means_whatever_the_scale():
    generator = torch.Generator().manual_seed(0)
    narrow = 0.1 * torch.randn(100, 4, generator=generator)
    wide = torch.randn(100, 4, generator=generator)
    wide = wide - wide.mean(dim=0) + narrow.mean(dim=0)
    found = [float(maximum_mean_discrepancy(s * narrow, s * wide)) for s in (1.0, 1000.0)]
    assert found[0] > 0.05
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_the_discrepancy_of_the_same_points_is_nothing_and_has_a_finite_gradient():
    points = torch.randn(6, 2).requires_grad_()
    value = maximum_mean_discrepancy(points, points)
    value.backward()
    assert abs(float(value.detach())) < 1e-6
    assert points.grad.isfinite().all()
    same = torch.zeros(4, 2, requires_grad=True)
    maximum_mean_discrepancy(same, same[:1]).backward()
    assert same.grad.isfinite().all()


def test_descent_on_the_discrepancy_brings_both_sides_together():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(30, 2, generator=generator).requires_grad_()
    target = (torch.randn(30, 2, generator=generator) + 2).requires_grad_()
    before = float(maximum_mean_discrepancy(source, target).detach())
    optimizer = torch.optim.Adam([source, target], lr=0.1)
    for _ in range(50):
        value = maximum_mean_discrepancy(source, target)
        optimizer.zero_grad()
        value.backward()
        assert min(float(p.grad.abs().max()) for p in (source, target)) > 0
        optimizer.step()
    assert float(value.detach()) < before / 4


@pytest.mark.parametrize("n_genes", [1, 31, 32, 33, 200])
def test_a_unet_reads_any_number_of_genes(n_genes):
    assert GeneUNet(2, (4, 8))(torch.rand(3, 2, n_genes)).shape == (3, n_genes)


def test_coarse_levels_of_a_unet_see_distant_genes():
    torch.manual_seed(0)
    network = GeneUNet(1, (4, 8, 8)).double()
    x = torch.rand(1, 1, 256, dtype=torch.float64, requires_grad=True)
    network(x)[0, 100].backward()
    assert x.grad[0, 0, 60:140].abs().min() > 0


def test_each_cell_passes_a_unet_alone():
    network, x = GeneUNet(1, (4, 8)), torch.rand(5, 1, 64)
    assert torch.allclose(network(x)[2:3], network(x[2:3]), atol=1e-6)


def test_attention_depends_on_cells_genes_and_both_channels():
    torch.manual_seed(0)
    attention = CrossChannelAttention(2, 50)
    channels, depth = torch.randn(6, 2, 50), torch.full((6,), 8.0)
    weights = attention(channels, depth)
    assert weights.shape == (6, 2, 50)
    assert weights.std(dim=0).min() > 0
    assert weights.std(dim=2).min() > 0
    other = channels.clone()
    other[:, 1] += torch.randn(6, 50)
    assert (attention(other, depth)[:, 0] - weights[:, 0]).abs().max() > 1e-4
    assert (attention(channels, depth + 1) - weights).abs().max() > 1e-4


def test_all_parts_of_attention_have_gradients():
    attention = CrossChannelAttention(2, 20)
    channels = torch.randn(4, 2, 20)
    (attention(channels, torch.ones(4)) * torch.randn(4, 2, 20)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in attention.parameters())


def test_noise_hides_the_share_of_genes_and_keeps_the_mean():
    noisy = add_noise(torch.ones(200, 500), 0.4, torch.Generator().manual_seed(0))
    assert float((noisy == 0).float().mean()) == pytest.approx(0.4, abs=0.01)
    assert float(noisy.mean()) == pytest.approx(1, abs=0.02)


def test_the_divergence_is_that_of_kullback_and_leibler():
    shares = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    level = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64).log()
    none = torch.zeros(1, 3, dtype=torch.float64)
    assert float(profile_divergence(shares, level, none)) == pytest.approx(np.log(2))
    exact = (shares.clamp_min(1e-12) / level.exp()).log()
    assert abs(float(profile_divergence(shares, level, exact))) < 1e-9


def draw(seed=0):
    """Counts of cells of three types, and bulk of the same types."""
    generator = np.random.default_rng(seed)
    shares = generator.gamma(0.5, 1, (N_TYPES, N_GENES)) + 0.02
    shares /= shares.sum(axis=1, keepdims=True)
    types = generator.integers(0, N_TYPES, N_CELLS)
    counts = generator.poisson(300 * shares[types]).astype(np.float32)
    return counts, shares


@pytest.fixture
def module():
    torch.manual_seed(0)
    counts, shares = draw()
    module = ScDTLModule(torch.arange(N_GENES), CONFIG)
    module.start_from(summarize(counts, counts.sum(axis=0).astype(float), shares))
    return module


@pytest.fixture
def cells():
    return {"X": torch.from_numpy(draw()[0])}


def test_the_autoencoder_of_bulk_learns_from_noisy_input(module):
    losses = module.train_on_bulk(torch.Generator().manual_seed(0))
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:3])
    assert len({round(value, 6) for value in losses[-10:]}) == 10, "each step has its own noise"


def test_the_encoder_of_cells_starts_from_that_of_bulk(module):
    module.train_on_bulk(torch.Generator().manual_seed(0))
    theirs = module.bulk_encoder.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in module.encoder.state_dict().items())


def test_every_parameter_has_a_gradient(module, cells):
    module.train_on_bulk(torch.Generator().manual_seed(0))
    module.train()
    *_, output = module(cells)
    module.zero_grad()
    output.loss.backward()
    idle = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_each_loss_has_a_gradient_where_it_should(module, cells):
    module.train_on_bulk(torch.Generator().manual_seed(0))
    module.train()
    reaches = {}
    for name in ("bulk", "discrepancy", "own", "transferred"):
        *_, output = module(cells)
        module.zero_grad()
        output.extra_metrics[name].backward()
        reaches[name] = {
            part
            for part in ("bulk_encoder", "encoder", "decoder", "unet")
            if any(p.grad is not None and p.grad.any() for p in getattr(module, part).parameters())
        }
    assert reaches == {
        "bulk": {"bulk_encoder", "decoder"},
        "discrepancy": {"bulk_encoder", "encoder"},
        "own": {"unet"},
        "transferred": {"encoder", "decoder"},
    }


def test_hidden_and_visible_molecules_are_those_of_the_cell(module, cells):
    given = module._get_inference_input(cells, torch.Generator().manual_seed(0))
    assert torch.equal(given["visible"] + given["hidden"], cells["X"])
    share = given["hidden"].sum(dim=1) / cells["X"].sum(dim=1)
    assert float(share.min()) > 0.02
    assert float(share.max()) < 0.85
    assert not module._get_inference_input(cells, hide=False)["hidden"].any()


def test_predicted_shares_add_up_and_do_not_depend_on_other_cells(module, cells):
    module.eval()
    shares = module.predict(cells)
    assert torch.allclose(shares.sum(dim=1), torch.ones(N_CELLS), atol=1e-5)
    assert torch.allclose(module.predict({"X": cells["X"][:3]}), shares[:3], atol=1e-6)


def test_sparse_counts_give_the_same(module, cells):
    module.eval()
    stored = {"X": to_tensor(sparse.csr_matrix(cells["X"].numpy()))}
    assert torch.allclose(module.predict(stored), module.predict(cells), atol=1e-7)


def test_a_cell_without_counts_has_finite_shares(module):
    module.eval()
    assert module.predict({"X": torch.zeros(2, N_GENES)}).isfinite().all()


def test_genes_outside_the_model_have_no_effect(cells):
    torch.manual_seed(0)
    counts, shares = draw()
    kept = np.arange(0, N_GENES, 2)
    module = ScDTLModule(torch.from_numpy(kept), CONFIG)
    of_kept = shares[:, kept] / shares[:, kept].sum(axis=1, keepdims=True)
    totals = counts[:, kept].sum(axis=0).astype(float)
    module.start_from(summarize(counts[:, kept].copy(), totals, of_kept))
    module.eval()
    other = cells["X"].clone()
    other[:, 1::2] = 7
    assert torch.equal(module.predict({"X": other}), module.predict(cells))


def test_the_first_prediction_has_the_level_of_genes(module):
    counts, _ = draw()
    level = module.log_level.exp().numpy()
    assert level.sum() == pytest.approx(1, abs=1e-4)
    assert np.corrcoef(level, counts.sum(axis=0))[0, 1] > 0.95


def test_a_given_order_is_used_by_name():
    genes = np.array(["a", "b", "c"])
    assert positions_in_order(genes, ["c", "x", "a", "b"]).tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="`gene_order` lacks 1 genes of the model: 'b'"):
        positions_in_order(genes, ["a", "c"])
    with pytest.raises(ValueError, match="has genes of the model more than once"):
        positions_in_order(genes, ["a", "c", "b", "a"])


def test_sampling_is_refused(module):
    with pytest.raises(NotImplementedError, match="does not generate cells"):
        module.sample()
