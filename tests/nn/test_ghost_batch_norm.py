"""Ghost batch norm of all virtual batches at once, as on a GPU, against the loop over them."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scvi_sctab.nn import GhostBatchNorm

WIDTH = 7


class Count(TorchDispatchMode):
    """Count operations, about one launch each on a GPU."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += 1
        return func(*args, **(kwargs or {}))


def make_norm(dtype=torch.float32):
    torch.manual_seed(0)
    norm = GhostBatchNorm(WIDTH, virtual_batch_size=16, momentum=0.3).to(dtype)
    with torch.no_grad():
        for tensor in (norm.bn.weight, norm.bn.bias, norm.bn.running_mean):
            tensor.normal_()
    return norm


def cells(n_cells, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    scale = torch.linspace(0.1, 30, WIDTH)
    return (torch.randn(n_cells, WIDTH, generator=generator) * scale + 3).to(dtype)


def results(norm, function, x):
    """Output, gradients and statistics after two steps."""
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        norm.zero_grad()
        output = function(leaf)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        (output.square() * weights).sum().backward()
    grads = [leaf.grad, *(p.grad for p in norm.parameters())]
    return [output.detach(), *grads, *norm.bn.buffers()]


# Equal parts, and a smaller last one.
@pytest.mark.parametrize("n_cells", [32, 48, 50, 61, 128, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_those_of_the_loop(n_cells, dtype):
    norm, x = make_norm(dtype), cells(n_cells, dtype)
    other = copy.deepcopy(norm)
    expected = results(norm, norm, x)
    found = results(other, lambda leaf: other._at_once(other.parts(leaf)), x)
    tolerances = [1e-6, *[1e-5] * 3, *[1e-6] * 3] if dtype is torch.float32 else [1e-13] * 7
    for value, right, tolerance in zip(found, expected, tolerances, strict=True):
        scale = max(float(right.abs().max()), 1.0)
        torch.testing.assert_close(value, right, rtol=0, atol=tolerance * scale)


def test_running_statistics_have_full_precision_under_autocast():
    norm, x = make_norm(), cells(64)
    other = copy.deepcopy(norm)
    norm(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other._at_once(other.parts(x))
    for found, expected in zip(other.bn.buffers(), norm.bn.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_statistics_stay_without_momentum():
    norm, x = make_norm(), cells(64)
    norm.bn.momentum = 0.0
    before = norm.bn.running_mean.clone()
    norm._at_once(norm.parts(x))
    assert torch.equal(norm.bn.running_mean, before)


def test_the_number_of_operations_does_not_grow_with_that_of_virtual_batches():
    counts = []
    for n_parts in (2, 8):
        norm, x = make_norm(), cells(16 * n_parts).requires_grad_()
        with Count() as counter:
            norm._at_once(norm.parts(x)).sum().backward()
        counts.append(counter.n)
    # A view per part.
    assert counts[1] - counts[0] <= 20
    with Count() as counter:
        norm(x).sum().backward()
    assert counts[1] < counter.n


def test_evaluation_has_one_part_on_every_device():
    norm = make_norm().eval().to("meta")
    assert norm(torch.empty(64, WIDTH, device="meta")).shape == (64, WIDTH)


def test_other_devices_normalise_at_once(monkeypatch):
    norm = make_norm().to("meta")
    seen = []
    monkeypatch.setattr(norm, "_at_once", lambda parts: seen.append(len(parts)))
    norm(torch.empty(64, WIDTH, device="meta"))
    assert seen == [4]
