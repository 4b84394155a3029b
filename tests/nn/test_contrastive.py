"""Contrastive losses against loops, and the network that follows another."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import nn
from torch.autograd import gradcheck

from scvi_sctab.nn import (
    Projector,
    barlow_twins_loss,
    byol_loss,
    embedding_spread,
    frozen_copy,
    update_moving_average,
)

N_CELLS, N_DIMENSIONS = 32, 5


def make_views(seed=0):
    state = torch.Generator().manual_seed(seed)
    shape = N_CELLS, N_DIMENSIONS
    first = 2 * torch.randn(shape, generator=state, dtype=torch.float64) + 1
    return first, first + torch.randn(shape, generator=state, dtype=torch.float64)


def naive_barlow_twins(first, second, off_diagonal):
    first, second = np.asarray(first), np.asarray(second)
    loss = 0.0
    for i in range(first.shape[1]):
        for j in range(second.shape[1]):
            a, b = first[:, i], second[:, j]
            correlation = ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())
            loss += (1 - correlation) ** 2 if i == j else off_diagonal * correlation**2
    return loss


@pytest.mark.parametrize("off_diagonal", [0.0, 0.0051, 2.0])
def test_barlow_twins_is_what_loops_make_of_it(off_diagonal):
    first, second = make_views()
    expected = naive_barlow_twins(first, second, off_diagonal)
    # Batch norm keeps away from 0 by as much.
    assert float(barlow_twins_loss(first, second, off_diagonal)) == pytest.approx(
        expected, rel=1e-4
    )


def test_barlow_twins_weighs_what_lies_off_the_diagonal_as_published():
    first, second = make_views()
    assert barlow_twins_loss(first, second) == barlow_twins_loss(first, second, 0.0051)


def test_barlow_twins_does_not_see_scale_shift_or_order_of_cells():
    first, second = make_views()
    scale = torch.linspace(1, 50, N_DIMENSIONS, dtype=torch.float64)
    order = torch.randperm(N_CELLS, generator=torch.Generator().manual_seed(0))
    expected = barlow_twins_loss(first, second)
    moved = barlow_twins_loss((first * scale - 7)[order], (second * scale.flip(0) + 3)[order])
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=0)
    # One view in another order is one of other cells.
    assert barlow_twins_loss(first[order], second) > 1.5 * expected


def test_barlow_twins_is_zero_where_views_agree_and_dimensions_do_not_repeat_each_other():
    independent = torch.tensor(hadamard(8)[:, 1:], dtype=torch.float64)
    assert barlow_twins_loss(independent, independent, 1.0) < 1e-8
    # Seven dimensions that are one and the same have 42 correlations off the diagonal.
    repeated = independent[:, :1].repeat(1, 7)
    assert float(barlow_twins_loss(repeated, repeated, 1.0)) == pytest.approx(42, rel=1e-4)
    opposite = barlow_twins_loss(independent, -independent)
    assert float(opposite) == pytest.approx(4 * 7, rel=1e-4)


def test_barlow_twins_is_differentiable_even_at_dimensions_that_do_not_vary():
    first, second = (view[:6].clone().requires_grad_() for view in make_views())
    assert gradcheck(barlow_twins_loss, (first, second))
    constant = torch.ones(4, 3, requires_grad=True)
    loss = barlow_twins_loss(constant, constant)
    loss.backward()
    assert loss.item() == 3
    assert torch.equal(constant.grad, torch.zeros(4, 3))


def naive_byol(prediction, target):
    losses = []
    for p, t in zip(np.asarray(prediction), np.asarray(target), strict=True):
        losses.append(((p / math.hypot(*p) - t / math.hypot(*t)) ** 2).sum())
    return float(np.mean(losses))


def test_byol_is_the_mean_squared_distance_of_vectors_of_length_one():
    prediction, target = make_views()
    assert float(byol_loss(prediction, target)) == pytest.approx(naive_byol(prediction, target))


def test_byol_sees_directions_only():
    prediction, target = make_views()
    scale = torch.linspace(0.1, 50, N_CELLS, dtype=torch.float64)[:, None]
    expected = byol_loss(prediction, target)
    torch.testing.assert_close(byol_loss(prediction * scale, target * 3), expected)
    assert abs(byol_loss(prediction + 10, target) - expected) > 0.1


@pytest.mark.parametrize(
    ("turn", "expected"),
    [([[1, 0], [0, 1]], 0), ([[0, 1], [-1, 0]], 2), ([[-1, 0], [0, -1]], 4)],
    ids=["equal", "orthogonal", "opposite"],
)
def test_byol_has_its_bounds(turn, expected):
    z = make_views()[0][:, :2]
    turned = z @ torch.tensor(turn, dtype=torch.float64)
    assert float(byol_loss(z, turned)) == pytest.approx(expected, abs=1e-12)


def test_no_gradient_flows_into_the_target():
    prediction, target = (view.requires_grad_() for view in make_views())
    byol_loss(prediction, target).backward()
    assert (prediction.grad != 0).all()
    assert target.grad is None


def test_spread_is_that_of_directions():
    z = make_views()[0]
    directions = np.array([row / math.hypot(*row) for row in z.numpy()])
    expected = directions.std(axis=0).mean() * math.sqrt(N_DIMENSIONS)
    assert float(embedding_spread(z)) == pytest.approx(expected)
    assert float(embedding_spread(40 * z)) == pytest.approx(expected)


def test_spread_is_one_of_isotropic_and_zero_of_collapsed_embeddings():
    isotropic = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0))
    assert float(embedding_spread(isotropic)) == pytest.approx(1, abs=0.01)
    assert float(embedding_spread(isotropic.abs())) < 0.7
    assert float(embedding_spread(isotropic[:1].repeat(9, 1))) == pytest.approx(0, abs=1e-6)
    assert float(embedding_spread(torch.zeros(9, 32))) == 0
    assert not embedding_spread(isotropic.requires_grad_()).requires_grad


def test_a_projector_has_batch_norm_in_place_of_biases_and_ends_in_a_linear_layer():
    projector = Projector(7, (4, 6, 3))
    kinds = [type(layer).__name__ for layer in projector]
    assert kinds == ["ThreadedLinear", "BatchNorm1d", "ReLU"] * 2 + ["ThreadedLinear"]
    linear = [layer for layer in projector if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(4, 7), (6, 4), (3, 6)]
    assert all(layer.bias is None for layer in linear)
    assert projector.n_output == 3
    assert [type(layer).__name__ for layer in Projector(7, (3,))] == ["ThreadedLinear"]


def make_networks():
    torch.manual_seed(0)
    online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    target = frozen_copy(online)
    for parameter in online.parameters():
        nn.init.normal_(parameter)
    online(torch.randn(8, 3))
    return target, online


def test_a_frozen_copy_is_equal_apart_and_without_gradient():
    online = nn.Linear(3, 4)
    target = frozen_copy(online)
    assert torch.equal(target.weight, online.weight)
    assert target.weight.data_ptr() != online.weight.data_ptr()
    assert not any(parameter.requires_grad for parameter in target.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.99, 1.0])
def test_parameters_move_by_their_share_and_buffers_are_copied(decay):
    target, online = make_networks()
    before = {name: parameter.clone() for name, parameter in target.named_parameters()}
    goal = {name: tensor.clone() for name, tensor in online.state_dict().items()}
    update_moving_average(target, online, decay)
    for name, parameter in target.named_parameters():
        expected = decay * before[name] + (1 - decay) * goal[name]
        torch.testing.assert_close(parameter.detach(), expected)
    for name, buffer in target.named_buffers():
        assert torch.equal(buffer, goal[name])
    assert int(target[1].num_batches_tracked) == 1
    for name, tensor in online.state_dict().items():
        assert torch.equal(tensor, goal[name])


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_decay_out_of_bounds_is_refused(decay):
    target, online = make_networks()
    with pytest.raises(ValueError, match=rf"decay={decay} is not in \[0, 1\]"):
        update_moving_average(target, online, decay)


@pytest.mark.parametrize("other", [nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 1))])
def test_networks_that_do_not_match_are_refused(other):
    with pytest.raises(ValueError, match="do not match: make one of them by `frozen_copy`"):
        update_moving_average(other, make_networks()[1], 0.5)
