"""Likelihoods of hidden genes against scipy."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from scvi_sctab.module._likelihoods import GaussianLikelihood, NegativeBinomialLikelihood
from scvi_sctab.module._one_vs_rest import OneVsRestClassifier
from scvi_sctab.nn import HiddenGenes


@pytest.fixture
def hidden():
    genes, values = torch.tensor([3, 0]), torch.tensor([[0.5, 1.0], [2.0, 0.0]])
    return HiddenGenes(genes, values, torch.ones_like(values))


def test_the_error_of_counts_is_that_of_scipy(hidden):
    torch.manual_seed(0)
    likelihood = NegativeBinomialLikelihood(5)
    with torch.no_grad():
        likelihood.log_dispersion.copy_(torch.randn(5))
    output, counts = torch.randn(2, 5), torch.tensor([[1.0, 0, 4, 2, 0], [0, 7, 1, 3, 2]])
    mean = counts.sum(dim=1, keepdim=True).numpy() * output.softmax(dim=1).numpy()
    size = likelihood.log_dispersion.exp().detach().numpy()
    expected = -nbinom.logpmf(counts.numpy(), size, size / (size + mean))[:, [3, 0]]
    found = likelihood.error(output, hidden, counts).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_decoders_start_at_the_mean_cell_and_give_log_normalised_expression():
    expression, share = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([0.7, 0.0, 0.3])
    counts = NegativeBinomialLikelihood(3)
    start = counts.start(expression, share)
    assert torch.isfinite(start).all()
    torch.testing.assert_close(start.softmax(dim=0), share, atol=1e-4, rtol=1e-4)
    of_cell = counts.expression(start[None])[0]
    torch.testing.assert_close(of_cell.expm1().sum(), torch.tensor(10_000.0))
    assert of_cell[0] > of_cell[2] > of_cell[1]
    gaussian = GaussianLikelihood(3)
    assert torch.equal(gaussian.start(expression, share), expression)
    assert torch.equal(gaussian.expression(expression), expression)


def test_the_error_of_expression_is_squared(hidden):
    output = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    found = GaussianLikelihood(5).error(output, hidden, torch.zeros(2, 5))
    assert found.tolist() == [[0.25, 0.0], [1.0, 1.0]]


def test_an_imported_classifier_needs_totals():
    with pytest.raises(RuntimeError, match="needs the counts of cells over all genes"):
        OneVsRestClassifier(4, 3)._get_inference_input({})
