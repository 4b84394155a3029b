"""The sparse softmaxes against the ``entmax`` package, bisection, and their definitions."""

import entmax
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from scvi_sctab.nn import entmax15, sparsemax
from scvi_sctab.nn._entmax import (
    _N_LARGEST,
    _NEWTON_STEPS,
    _project,
    _project_backward,
    _project_backward_once,
)

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
    for backward in (_project_backward, _project_backward_once):
        expected = backward(grad, output.detach(), power)
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-9, atol=1e-9)


def levels(n_scores, ratio, excess, power):
    """Scores of which each Newton step leaves behind one level only: more and more, ever lower."""
    gaps, level = [1.0], 1
    while len(gaps) < n_scores:
        slope = power * ratio**level
        gaps += [excess / slope] * (int(ratio ** (power * level)) + 1)
        level += 1
    return torch.tensor(gaps[:n_scores], dtype=torch.float64)


def hard_rows(n_scores):
    """Scores for which Newton's iteration takes long, or the support is large."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(n_scores, generator=generator, dtype=torch.float64)
    normal = torch.randn(n_scores, generator=generator, dtype=torch.float64)
    rows = [torch.zeros_like(uniform), uniform, uniform * 0.01, -uniform.log() * 1e-3]
    rows += [normal * scale for scale in (1e-4, 1e-2, 0.1, 1, 10)]
    rows += [-(ratio ** torch.arange(n_scores).double()) for ratio in (0.5, 0.9, 0.99, 0.999)]
    rows += [
        levels(n_scores, ratio, excess, power)
        for ratio in (1.2, 1.5, 2, 5, 10)
        for excess in (0.1, 0.3, 1, 3, 10)
        for power in (1, 2)
    ]
    for n_winners in (1, _N_LARGEST - 1, _N_LARGEST, _N_LARGEST + 1):
        rows += [(torch.arange(n_scores) < n_winners) * gap for gap in (0.01, 0.1, 0.5)]
    return torch.stack(rows)


def newton_loop(scores, power):
    """Newton's iteration until no row changes; return probabilities and the number of steps."""
    shifted = (scores - scores.amax(dim=-1, keepdim=True)) / power
    tau, n_steps = torch.full_like(shifted[:, :1], -1.0), 0
    moves = True
    while moves:
        gap = (shifted - tau).clamp(min=0)
        slope = 2 * gap.sum(-1, keepdim=True) if power == 2 else (gap > 0).sum(-1, keepdim=True)
        step = ((gap.pow(power).sum(-1, keepdim=True) - 1) / slope).clamp(min=0)
        tau, n_steps = tau + step, n_steps + 1
        moves = bool((step > torch.finfo(scores.dtype).eps).any())
    return (shifted - tau).clamp(min=0).pow(power), n_steps


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("n_scores", [2, 100, _N_LARGEST, _N_LARGEST + 1, 4000, 19_331])
def test_a_fixed_number_of_steps_reaches_the_precision_of_the_loop(n_scores, power):
    scores = hard_rows(n_scores)
    exact, _ = newton_loop(scores, power)
    torch.testing.assert_close(_project(scores, power), exact, rtol=0, atol=1e-14)
    single = scores.float()
    exact, _ = newton_loop(single.double(), power)
    loop, _ = newton_loop(single, power)
    for found in (_project(single, power).double(), loop.double()):
        torch.testing.assert_close(found, exact, rtol=0, atol=5e-7)
        # Each probability has the rounding error of the threshold.
        rounding = n_scores * torch.finfo(torch.float32).eps
        torch.testing.assert_close(found.sum(-1), exact.sum(-1), rtol=0, atol=rounding)


@pytest.mark.parametrize("power", [1, 2])
def test_there_are_steps_to_spare(power):
    scores = hard_rows(_N_LARGEST)
    assert newton_loop(scores, power)[1] < _NEWTON_STEPS


class CountWaits(TorchDispatchMode):
    """Count operations for which a program waits for a GPU."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("n_scores", "n_waits"), [(_N_LARGEST, 0), (_N_LARGEST + 1, 1)])
def test_a_gpu_is_waited_for_once_at_most(n_scores, n_waits, power):
    scores = torch.randn(8, n_scores)
    with CountWaits() as counter:
        output = _project(scores, power)
        _project_backward_once(scores, output, power)
    assert counter.n == n_waits


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
