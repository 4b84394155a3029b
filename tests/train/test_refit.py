"""The refit of linear layers finds the minimum that scikit-learn finds."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from scvi_sctab._config import RefitConfig
from scvi_sctab.nn import GeneLinear, weighted_cross_entropy
from scvi_sctab.sparse import CSR
from scvi_sctab.train import refit_layer

PRECISE = RefitConfig(penalty=0.02, max_iterations=500, tolerance=1e-12)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    x = rng.poisson(1.0, (200, 12)).astype(np.float32)
    return x, (x[:, :3] + rng.normal(size=(200, 3))).argmax(axis=1)


@pytest.mark.parametrize("is_sparse", [True, False])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_the_minimum_is_that_of_scikit_learn_from_any_start(cells, is_sparse, start):
    x, labels = cells
    layer = GeneLinear(12, 3)
    torch.nn.init.constant_(layer.weight, start)
    weights = torch.tensor([1.0, 2.0, 0.5])
    rows = CSR.from_scipy(sparse.csr_matrix(x)) if is_sparse else torch.from_numpy(x)
    refit_layer(
        layer,
        rows,
        lambda logits: weighted_cross_entropy(logits, torch.from_numpy(labels), weights, "mean"),
        PRECISE,
    )
    peer = LogisticRegression(C=1 / (200 * 0.02), tol=1e-10, max_iter=10_000)
    peer.fit(x, labels, sample_weight=weights.numpy()[labels])
    weight = layer.weight.detach().numpy()
    # Logits are only defined up to a constant; the penalty makes the weights' mean zero.
    np.testing.assert_allclose(weight, peer.coef_, atol=2e-3)
    bias = layer.bias.detach().numpy()
    np.testing.assert_allclose(bias - bias.mean(), peer.intercept_, atol=5e-3)
    assert layer.weight.requires_grad
    assert layer.weight.grad is None


def test_a_layer_without_bias_is_refitted(cells):
    x, labels = cells
    layer = torch.nn.Linear(12, 3, bias=False)

    def loss(logits):
        return weighted_cross_entropy(logits, torch.from_numpy(labels), None, "mean")

    refit_layer(layer, torch.from_numpy(x), loss, PRECISE)
    peer = LogisticRegression(C=1 / (200 * 0.02), tol=1e-10, max_iter=10_000, fit_intercept=False)
    np.testing.assert_allclose(layer.weight.detach().numpy(), peer.fit(x, labels).coef_, atol=2e-3)
