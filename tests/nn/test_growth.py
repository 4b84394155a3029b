"""Weights carried over to a larger network, of which only the new entries move."""

import pytest
import torch
from torch import nn

from scvi_sctab.nn import (
    GradientMask,
    NewEntries,
    append_entries,
    frozen_but,
    matches,
    n_trained,
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def step(network, optimizer):
    optimizer.zero_grad()
    network(torch.rand(8, 3)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("dim", [0, 1])
def test_new_entries_come_last_and_are_the_mean(dim):
    old = torch.rand(3, 5)
    longer, entries = append_entries(old, old.shape[dim] + 2, dim)
    kept, added = longer.split([old.shape[dim], 2], dim=dim)
    assert torch.equal(kept, old)
    torch.testing.assert_close(added, old.mean(dim, keepdim=True).expand_as(added))
    assert entries == NewEntries(dim, [old.shape[dim], old.shape[dim] + 1])


def test_the_mean_of_logits_is_never_the_largest():
    head = torch.randn(5, 7)
    longer, _ = append_entries(head, 6)
    assert (torch.rand(100, 7) @ longer.T).argmax(dim=1).max() < 5


def test_a_tensor_that_is_long_enough_stays_as_it_is():
    old = torch.rand(3, 2)
    same, entries = append_entries(old, 3)
    assert torch.equal(same, old)
    assert entries == NewEntries(0, [])


def test_tensors_do_not_shrink():
    with pytest.raises(ValueError, match="does not shrink to 2"):
        append_entries(torch.rand(3), 2)


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD], ids=["AdamW", "SGD"])
def test_only_new_entries_and_named_parameters_move(network, make):
    old = {name: p.detach().clone() for name, p in network.named_parameters()}
    new = {"0.weight": NewEntries(1, [2]), "2.bias": None}
    momentum = {"momentum": 0.9} if make is torch.optim.SGD else {}
    with frozen_but(network, ["1.*"], new):
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizer = make(trained, lr=0.1, weight_decay=0.0, **momentum)
        for _ in range(3):
            step(network, optimizer)
    parameters = dict(network.named_parameters())
    assert torch.equal(parameters["0.weight"][:, :2], old["0.weight"][:, :2])
    assert (parameters["0.weight"][:, 2] != old["0.weight"][:, 2]).all()
    for name in ("1.weight", "1.bias", "2.bias"):
        assert not torch.equal(parameters[name], old[name])
    for name in ("0.bias", "2.weight"):
        assert torch.equal(parameters[name], old[name])
    assert n_trained(network, ["1.*"], new) == 4 + 8 + 2


def test_gradients_flow_as_before_afterwards(network):
    network[2].weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match="stop"), frozen_but(network, [], {"2.bias": None}):
        raise RuntimeError("stop")
    required = {name for name, p in network.named_parameters() if p.requires_grad}
    assert required == {name for name, _ in network.named_parameters()} - {"2.weight"}
    step(network, torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1))
    assert (network[0].weight.grad != 0).any()


def test_masks_end_with_the_training_of_new_entries(network):
    with frozen_but(network, [], {"2.bias": NewEntries(0, [1])}):
        pass
    step(network, torch.optim.SGD(network.parameters(), 0.1))
    assert (network[2].bias.grad != 0).all()


def test_what_is_always_frozen_is_so_even_if_new_or_named(network):
    new, frozen = {"2.bias": None, "2.weight": NewEntries(0, [1])}, ["0.weight", "2.*"]
    with frozen_but(network, ["0.*"], new, frozen):
        trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"0.bias"}
    assert n_trained(network, ["0.*"], new, frozen) == 4


def test_parameters_that_are_trained_as_a_whole_have_no_mask(network):
    with frozen_but(network, ["0.*"], {"2.weight": None, "2.bias": NewEntries(0, [1])}):
        masked = {name for name, p in network.named_parameters() if p._backward_hooks}
        assert masked == {"2.bias"}


def test_a_mask_moves_to_another_device_once():
    hook = GradientMask(torch.ones(3))
    assert hook(torch.ones(3, device="meta")).device.type == "meta"
    mask = hook.mask
    hook(torch.ones(3, device="meta"))
    assert hook.mask is mask


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("head.weight", ["head.*"], True),
        ("head.weight", ["tail.*", "*.weight"], True),
        ("head.weight", ["head"], False),
        ("head.weight", [], False),
    ],
)
def test_patterns_are_those_of_file_names(name, patterns, expected):
    assert matches(name, patterns) is expected
