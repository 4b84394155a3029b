"""Dense products on threads of our own are those of torch."""

import pytest
import torch
from torch.nn.functional import linear as torchs

from scvi_sctab.nn import _dense, sleeping_threads
from scvi_sctab.nn._dense import ThreadedLinear, linear
from scvi_sctab.nn._sparse_attention import attend
from scvi_sctab.nn._sparse_layers import GeneLinear


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Two threads, and parts so small that products of a test are cut."""
    monkeypatch.setattr("scvi_sctab.sparse._parallel._n_cpus", lambda: 2)
    monkeypatch.setattr(_dense, "_MIN_PER_PART", 8)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with sleeping_threads():
        yield
    torch.set_num_threads(before)


def operands(by_gene=False, **like):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(17, 5, generator=generator, **like)
    weight = torch.randn(5, 7, generator=generator, **like).t()
    bias = torch.randn(7, generator=generator, **like)
    return [
        t.detach().requires_grad_()
        for t in (
            x,
            weight if by_gene else weight.clone(memory_format=torch.contiguous_format),
            bias,
        )
    ]


@pytest.mark.parametrize("by_gene", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_and_gradients_are_those_of_torch(by_gene, dtype):
    ours, theirs = operands(by_gene, dtype=dtype), operands(by_gene, dtype=dtype)
    outputs = linear(*ours), torchs(*theirs)
    assert type(outputs[0].grad_fn.next_functions[0][0]).__name__ == "_LinearBackward"
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad)
    assert ours[1].grad.stride() == ours[1].stride()


def test_gradients_and_their_gradients_are_right():
    arguments = operands(dtype=torch.float64)
    assert torch.autograd.gradcheck(linear, arguments)
    assert torch.autograd.gradgradcheck(linear, arguments)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_products_are_right_without_gradients(mode):
    arguments = operands()
    with mode():
        output = linear(*arguments)
        torch.testing.assert_close(output, torchs(*arguments))
    assert not output.requires_grad


def is_ours(output):
    return "_Linear" in str(output.grad_fn) or any(
        "_Linear" in str(before) for before, _ in output.grad_fn.next_functions
    )


def test_torch_computes_what_is_small_cubic_cast_or_on_its_own_threads(monkeypatch):
    x, weight, bias = operands()
    assert is_ours(linear(x, weight, bias))
    assert not is_ours(linear(x[None], weight, bias))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    torch.set_num_threads(2)
    assert not is_ours(linear(x, weight, bias))
    torch.set_num_threads(1)
    monkeypatch.setattr(_dense, "_MIN_PER_PART", 2**21)
    assert not is_ours(linear(x, weight, bias))


@pytest.mark.parametrize("layer", [ThreadedLinear, GeneLinear])
def test_layers_compute_as_those_of_torch(layer):
    layer = layer(5, 7)
    x = operands()[0]
    output = layer(x)
    assert is_ours(output)
    torch.testing.assert_close(output, torchs(x, layer.weight, layer.bias))


def test_attention_is_the_same_on_any_number_of_threads(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    arguments = [
        torch.randn(shape, generator=generator) for shape in ((200, 16), (300, 16), (300,), (300,))
    ]
    several = attend(*arguments, 2)
    monkeypatch.setattr("scvi_sctab.sparse._parallel._n_cpus", lambda: 1)
    alone = attend(*arguments, 2)
    for name in ("indptr", "columns", "values"):
        torch.testing.assert_close(getattr(alone, name), getattr(several, name), rtol=0, atol=0)
