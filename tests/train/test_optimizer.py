"""AdamW in parts takes the steps of torch's AdamW."""

from copy import deepcopy

import pytest
import torch
from torch.nn import Parameter

from scvi_sctab.train import GeneAdamW, _optimizer, fused_adamw

ARGUMENTS = {"lr": 0.01, "weight_decay": 0.1}


@pytest.fixture(autouse=True, params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr("scvi_sctab.sparse._parallel._n_cpus", lambda: 8)
    monkeypatch.setattr(_optimizer, "_CHUNK", 64)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def weights():
    """Stored by gene, stored by output, narrow, of one dimension, and without a gradient."""
    torch.manual_seed(0)
    shapes = torch.randn(50, 7).t(), torch.randn(9, 40), torch.randn(3, 1), torch.randn(300)
    return [Parameter(tensor) for tensor in (*shapes, torch.randn(4))]


def step(optimizer, parameters, n_steps=3):
    torch.manual_seed(1)
    for _ in range(n_steps):
        for parameter in parameters[:-1]:
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
        optimizer.step()


def test_steps_moments_and_their_number_are_those_of_torch():
    ours, theirs = weights(), weights()
    optimizer = GeneAdamW(ours, **ARGUMENTS)
    peer = torch.optim.AdamW(theirs, **ARGUMENTS, fused=True)
    step(optimizer, ours)
    step(peer, theirs)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)
        assert optimizer.state[our].keys() == peer.state[their].keys()
        for name, value in peer.state[their].items():
            torch.testing.assert_close(optimizer.state[our][name], value)
    torch.testing.assert_close(ours[-1], weights()[-1])


def test_a_gradient_stored_otherwise_than_its_weight_is_taken():
    ours, theirs = weights()[:1], weights()[:1]
    grad = torch.randn(7, 50)
    for made, parameters in ((GeneAdamW, ours), (torch.optim.AdamW, theirs)):
        parameters[0].grad = grad.clone()
        made(parameters, **ARGUMENTS).step()
    torch.testing.assert_close(ours[0], theirs[0])


def test_training_goes_on_from_a_saved_state_of_either_optimiser():
    straight = weights()
    optimizer = GeneAdamW(straight, **ARGUMENTS)
    step(optimizer, straight)
    resumed = [Parameter(p.detach().clone()) for p in straight]
    other = torch.optim.AdamW(resumed, **ARGUMENTS, fused=True)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    back = GeneAdamW(resumed, **ARGUMENTS)
    back.load_state_dict(deepcopy(other.state_dict()))
    step(optimizer, straight)
    step(back, resumed)
    for one, two in zip(straight, resumed, strict=True):
        torch.testing.assert_close(one, two)


def test_a_closure_computes_the_loss_with_gradients():
    (weight,) = parameters = [Parameter(torch.ones(2))]
    optimizer = GeneAdamW(parameters, **ARGUMENTS)

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss.detach()

    assert float(optimizer.step(closure)) == 2.0
    assert (weight < 1).all()


def test_groups_have_rates_of_their_own():
    fast, still = Parameter(torch.ones(200)), Parameter(torch.ones(200))
    groups = [{"params": [fast]}, {"params": [still], "lr": 0.0}]
    optimizer = GeneAdamW(groups, **ARGUMENTS)
    fast.grad, still.grad = torch.ones(200), torch.ones(200)
    optimizer.step()
    assert (fast < 1).all()
    assert (still == 1).all()


@pytest.mark.parametrize(("device", "fused"), [("cuda", True), ("mps", False)])
def test_elsewhere_than_on_the_cpu_torch_has_the_step(device, fused):
    optimizer = fused_adamw(weights(), torch.device(device), **ARGUMENTS)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["fused"] is fused
