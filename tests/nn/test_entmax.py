"""The sparse softmaxes against the ``entmax`` package, bisection, and their definitions."""

import entmax
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from scvi_sctab.nn import entmax15, sparsemax
from scvi_sctab.nn._entmax import _project, _project_backward

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
    "tiny": lambda g: torch.randn(8, 40, generator=g, dtype=torch.float64) * 1e-300,
    "heavy tails": lambda g: torch.randn(16, 700, generator=g, dtype=torch.float64) ** 3,
    "one winner": lambda g: torch.eye(6, 129, dtype=torch.float64) * 50,
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


@pytest.mark.parametrize("ours", [entmax15, sparsemax])
def test_second_gradient_passes_gradgradcheck(ours):
    scores = torch.randn(3, 7, generator=torch.Generator().manual_seed(2)).double()
    assert gradgradcheck(ours, scores.requires_grad_(), eps=1e-7)


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


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("rows", ROWS)
def test_what_other_devices_compute_is_what_the_cpu_does(rows, power):
    scores = ROWS[rows](torch.Generator().manual_seed(7))
    ours = (sparsemax, entmax15)[power - 1]
    leaf, grad = scores.clone().requires_grad_(), torch.randn_like(scores)
    output = ours(leaf)
    output.backward(grad)
    torch.testing.assert_close(_project(scores, power), output.detach(), rtol=1e-9, atol=1e-9)
    expected = _project_backward(grad, output.detach(), power)
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.001, 1.0, 30.0])
@pytest.mark.parametrize("n_scores", [1, 2, 63, 64, 65, 128, 4097, 60_000])
@pytest.mark.parametrize(("ours", "oracle"), FUNCTIONS)
def test_rows_of_any_length_equal_the_oracles(ours, oracle, n_scores, scale, dtype):
    scores = torch.randn(3, n_scores, generator=torch.Generator().manual_seed(8)).to(dtype)
    expected = oracle((scale * scores).double(), dim=-1)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-9
    probabilities = ours(scale * scores).double()
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("ours", [entmax15, sparsemax])
def test_a_row_that_has_no_answer_is_nan_and_leaves_the_others_alone(ours):
    scores = torch.randn(4, 300, generator=torch.Generator().manual_seed(9))
    expected = ours(scores)
    scores[1, 200], scores[2] = torch.nan, -torch.inf
    scores[3, 5] = torch.inf
    probabilities = ours(scores)
    assert probabilities[1:].isnan().all()
    assert torch.equal(probabilities[0], expected[0])


@pytest.mark.parametrize("ours", [entmax15, sparsemax])
def test_torch_compile_takes_it_as_a_whole(ours):
    compiled = torch.compile(
        lambda z: (2 * ours(z)).square().sum(), fullgraph=True, backend="aot_eager"
    )
    leaves = [
        torch.randn(5, 90, generator=torch.Generator().manual_seed(10)).requires_grad_()
        for _ in range(2)
    ]
    values = compiled(leaves[0]), (2 * ours(leaves[1])).square().sum()
    for value in values:
        value.backward()
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def test_the_operators_keep_torchs_rules():
    scores = torch.randn(3, 20, dtype=torch.float64, requires_grad=True)
    rules = ("test_schema", "test_autograd_registration", "test_faketensor")
    for power in (1, 2):
        operator = torch.ops.scvi_sctab.sparse_softmax.default
        torch.library.opcheck(operator, (scores, power), test_utils=rules)


def test_no_gradient_is_kept_where_none_is_wanted():
    scores = torch.randn(3, 20, requires_grad=True)
    with torch.no_grad():
        assert not entmax15(scores).requires_grad
    with torch.inference_mode():
        assert entmax15(scores).is_inference()
