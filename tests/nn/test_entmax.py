"""The sparse softmaxes against the ``entmax`` package, bisection, and their definitions."""

import entmax
import pytest
import torch
from torch.autograd import gradcheck

from scvi_sctab.nn import entmax15, sparsemax

FUNCTIONS = [
    pytest.param(entmax15, entmax.entmax15, id="entmax15"),
    pytest.param(sparsemax, entmax.sparsemax, id="sparsemax"),
]
ROWS = {
    "ordinary": lambda g: torch.randn(64, 500, generator=g, dtype=torch.float64),
    "wide": lambda g: torch.randn(16, 2000, generator=g, dtype=torch.float64) * 20,
    "dense support": lambda g: torch.randn(16, 300, generator=g, dtype=torch.float64) * 1e-3,
    "one score": lambda g: torch.randn(5, 1, generator=g, dtype=torch.float64),
    "ties": lambda g: torch.randint(3, (32, 50), generator=g).double(),
    "constant": lambda g: torch.full((4, 77), 3.0, dtype=torch.float64),
    "huge": lambda g: torch.randn(8, 40, generator=g, dtype=torch.float64) * 1e8,
    "offset": lambda g: torch.randn(8, 40, generator=g, dtype=torch.float64) + 1e6,
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("ours", "oracle"), FUNCTIONS)
def test_probabilities_equal_those_of_the_sorting_oracle(ours, oracle, rows):
    scores = ROWS[rows](torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(scores), oracle(scores, dim=-1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("ours", "oracle"), FUNCTIONS)
def test_rows_sum_to_one_and_dtype_is_kept(ours, oracle, dtype):
    scores = torch.randn(32, 3000, generator=torch.Generator().manual_seed(1)).to(dtype)
    probabilities = ours(scores)
    assert probabilities.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    expected = oracle(scores.double(), dim=-1)
    torch.testing.assert_close(probabilities.double(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(
        probabilities.double().sum(-1), torch.ones(32).double(), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("n_scores", [2, 7, 40])
@pytest.mark.parametrize("ours", [entmax15, sparsemax])
def test_gradient_passes_gradcheck(ours, n_scores):
    scores = torch.randn(6, n_scores, generator=torch.Generator().manual_seed(2)).double()
    assert gradcheck(ours, scores.requires_grad_(), eps=1e-7)


@pytest.mark.parametrize(("ours", "oracle"), FUNCTIONS)
def test_gradient_equals_the_oracles_on_many_genes(ours, oracle):
    scores = torch.randn(8, 3000, generator=torch.Generator().manual_seed(3)).double()
    weight = torch.randn(8, 3000, generator=torch.Generator().manual_seed(4)).double()
    gradients = []
    for function in (ours, lambda z: oracle(z, dim=-1)):
        leaf = scores.clone().requires_grad_()
        (function(leaf) * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("ours", [entmax15, sparsemax])
def test_result_ignores_shifts_and_follows_permutations(ours):
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(8, 200, generator=generator).double()
    order = torch.randperm(200, generator=generator)
    torch.testing.assert_close(ours(scores + 12.5), ours(scores))
    torch.testing.assert_close(ours(scores[:, order]), ours(scores)[:, order])


@pytest.mark.parametrize("ours", [entmax15, sparsemax])
def test_other_dimensions_work_and_masked_scores_get_nothing(ours):
    scores = torch.randn(4, 30, 5, generator=torch.Generator().manual_seed(6)).double()
    scores[:, 7] = -torch.inf
    probabilities = ours(scores, dim=1)
    assert (probabilities[:, 7] == 0).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(4, 5).double())


@pytest.mark.parametrize("ours", [entmax15, sparsemax])
def test_input_is_left_alone_and_empty_batches_pass(ours):
    scores = torch.randn(3, 9)
    before = scores.clone()
    ours(scores)
    assert torch.equal(scores, before)
    assert ours(torch.empty(0, 9)).shape == (0, 9)
    with pytest.raises(ValueError, match="empty along dim=-1"):
        ours(torch.empty(3, 0))
