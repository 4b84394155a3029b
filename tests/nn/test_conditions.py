"""The batch of a cell shifts the first hidden layer of an encoder."""

import pytest
import torch

from scvi_sctab.nn import CSR, BatchEmbedding, LinearEncoder, MLPEncoder, TabNetEncoder


def filled(*n_categories, n_output=6, **kwargs):
    embed = BatchEmbedding(n_categories, n_output, **kwargs)
    for rows in embed.rows:
        torch.nn.init.normal_(rows)
    return embed.eval()


def test_rows_start_at_zero():
    assert not BatchEmbedding([3], 6)(torch.tensor([[0], [2]])).any()


def test_fields_add_up():
    embed = filled(2, 3)
    expected = embed.rows[0][1] + embed.rows[1][2]
    assert torch.equal(embed(torch.tensor([[1, 2]]))[0], expected)


def test_what_is_unknown_shifts_nothing():
    embed = filled(2, 3)
    shifts = embed(torch.tensor([[-1, -1], [1, -1]]))
    assert not shifts[0].any()
    assert torch.equal(shifts[1], embed.rows[0][1])


def test_training_withholds_all_fields_of_a_share_of_the_cells():
    torch.manual_seed(0)
    embed = filled(2, 3, dropout=0.3).train()
    shifts = embed(torch.ones(10_000, 2, dtype=torch.long))
    told = shifts.any(dim=1)
    assert told.float().mean() == pytest.approx(0.7, abs=0.02)
    assert torch.equal(
        shifts[told], (embed.rows[0][1] + embed.rows[1][1]).expand(int(told.sum()), -1)
    )


ENCODERS = {
    "tabnet": lambda: TabNetEncoder(20, n_d=4, n_a=3, n_independent=1, n_shared=1),
    "tabnet, own layers only": lambda: TabNetEncoder(
        20, n_d=4, n_a=3, n_independent=1, n_shared=0
    ),
    "mlp": lambda: MLPEncoder(20, n_output=4, n_layers=2),
    "linear": lambda: LinearEncoder(20, n_output=4),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_a_condition_reaches_every_encoder(name, storage):
    torch.manual_seed(0)
    encoder = ENCODERS[name]().eval()
    x = torch.rand(5, 20) * (torch.rand(5, 20) > 0.5)
    x = CSR.from_dense(x) if storage == "sparse" else x
    without = encoder(x).embedding
    nothing = encoder(x, torch.zeros(5, encoder.n_condition)).embedding
    torch.testing.assert_close(nothing, without)
    condition = torch.zeros(5, encoder.n_condition)
    condition[2] = 1
    shifted = encoder(x, condition).embedding
    torch.testing.assert_close(shifted[[0, 1, 3, 4]], without[[0, 1, 3, 4]])
    assert (shifted[2] - without[2]).abs().max() > 1e-3


def test_a_condition_has_the_same_effect_on_dense_and_sparse_cells():
    torch.manual_seed(0)
    encoder = ENCODERS["tabnet"]().double()
    x = torch.rand(300, 20, dtype=torch.float64) * (torch.rand(300, 20) > 0.5)
    condition = torch.randn(300, encoder.n_condition, dtype=torch.float64, requires_grad=True)
    results = []
    for cells in (x, CSR.from_dense(x)):
        embedding = encoder(cells, condition).embedding
        (gradient,) = torch.autograd.grad(embedding.square().sum(), condition)
        results.append((embedding, gradient))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
