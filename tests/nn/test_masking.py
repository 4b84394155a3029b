"""Masked reconstruction: what is hidden, what is scored, and what learns from it."""

import pytest
import torch
from torch.autograd import gradcheck

from scvi_sctab.nn import (
    CSR,
    HiddenGenes,
    TabNetDecoder,
    TabNetEncoder,
    hide_genes,
    masked_reconstruction_loss,
)

N_CELLS, N_GENES = 64, 300
STORED = {"dense": lambda x: x, "sparse": CSR.from_dense}
stored = pytest.mark.parametrize("store", STORED.values(), ids=STORED)
some_or_all = pytest.mark.parametrize("n_targets", [None, 50])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_cells():
    """Expression that is never the same twice, with an empty cell, a full one and a full gene."""
    state = generator(1000)  # which no test hides genes with
    x = 1 + torch.rand(N_CELLS, N_GENES, generator=state, dtype=torch.float64)
    x *= torch.rand(N_CELLS, N_GENES, generator=state) < 0.2
    x[3], x[5, :], x[:, 7] = 0, 1.5, 2.5
    return x


def make_decoder(n_hidden=None, **layers):
    torch.manual_seed(0)
    arguments = {"n_shared": 1, "n_independent": 1, "virtual_batch_size": 32, "momentum": 0.02}
    return TabNetDecoder(6, N_GENES, n_hidden=n_hidden, **{**arguments, **layers}).double()


def to_dense(x):
    return x.to_dense() if isinstance(x, CSR) else x


@stored
@some_or_all
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.8])
def test_the_encoder_sees_nothing_of_what_is_hidden_and_all_of_the_rest(store, n_targets, rate):
    x = make_cells()
    visible, hidden = hide_genes(store(x), rate, n_targets, generator())
    assert type(visible) is type(store(x))
    seen, truth = to_dense(visible)[:, hidden.genes], x[:, hidden.genes]
    assert torch.equal(hidden.values, truth)
    assert (seen[hidden.entries] == 0).all()
    torch.testing.assert_close(seen, truth.masked_fill(hidden.entries, 0) / (1 - rate))
    # Genes that are no targets are whole or gone, too.
    whole = to_dense(visible) * (1 - rate)
    assert (torch.isclose(whole, x) | (whole == 0)).all()


@pytest.mark.parametrize("n_targets", [None, 50])
def test_hidden_values_are_dropped_from_sparse_rows(n_targets):
    visible, _ = hide_genes(CSR.from_dense(make_cells()), 0.5, n_targets, generator())
    assert (visible.values != 0).all()
    assert visible.columns.dtype is torch.int32
    expected = CSR.from_dense(visible.to_dense())
    for name in ("indptr", "columns", "values"):
        torch.testing.assert_close(getattr(visible, name), getattr(expected, name))


@stored
@some_or_all
@pytest.mark.parametrize("rate", [0.15, 0.6])
def test_zeros_and_nonzeros_are_hidden_at_the_rate(store, n_targets, rate):
    x = make_cells()
    zeros, nonzeros, visible_share = [], [], []
    for seed in range(10):
        visible, hidden = hide_genes(store(x), rate, n_targets, generator(seed))
        zeros.append(hidden.entries[hidden.values == 0])
        nonzeros.append(hidden.entries[hidden.values != 0])
        visible_share.append((to_dense(visible)[x != 0] != 0).double().mean())
    for drawn in (zeros, nonzeros):
        share, error = torch.cat(drawn).double().mean(), (rate / len(torch.cat(drawn))) ** 0.5
        assert abs(share - rate) < 5 * error
    assert abs(torch.stack(visible_share).mean() - (1 - rate)) < 0.02


@stored
def test_each_entry_is_hidden_by_itself(store):
    x = make_cells()
    entries = torch.stack(
        [hide_genes(store(x), 0.5, None, generator(seed))[1].entries for seed in range(40)]
    ).double()
    # Shares of a cell, of a gene and of an entry have the spread of independent coins.
    for dims, n_coins in (((0, 2), 40 * N_GENES), ((0, 1), 40 * N_CELLS), (0, 40)):
        torch.testing.assert_close(
            entries.mean(dim=dims).std().item(), 0.5 / n_coins**0.5, rtol=0.35, atol=0
        )


@stored
def test_means_of_genes_stay(store):
    x = torch.full((4000, 5), 2.0)
    visible, _ = hide_genes(store(x), 0.4, None, generator())
    torch.testing.assert_close(to_dense(visible).mean(dim=0), x.mean(dim=0), rtol=0.1, atol=0)


@stored
def test_targets_are_drawn_anew_and_all_genes_have_their_turn(store):
    x, state = store(make_cells()), generator()
    drawn = [hide_genes(x, 0.3, 50, state)[1].genes for _ in range(60)]
    assert all(len(genes.unique()) == 50 for genes in drawn)
    assert not torch.equal(drawn[0].sort().values, drawn[1].sort().values)
    assert len(torch.cat(drawn).unique()) == N_GENES
    for many in (None, N_GENES, N_GENES + 1):
        assert torch.equal(hide_genes(x, 0.3, many)[1].genes, torch.arange(N_GENES))


@stored
def test_a_generator_repeats_and_draws_on(store):
    x = store(make_cells())
    state = generator(4)
    first, again, next_one = (
        hide_genes(x, 0.3, 50, source) for source in (state, generator(4), state)
    )
    for one, other in ((first, again), (first, hide_genes(x, 0.3, 50, generator(4)))):
        assert torch.equal(to_dense(one[0]), to_dense(other[0]))
        assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))
    assert not torch.equal(to_dense(first[0]), to_dense(next_one[0]))


@stored
def test_the_cells_are_left_alone(store):
    x = make_cells()
    cells, before = store(x), x.clone()
    hide_genes(cells, 0.3, None, generator())
    assert torch.equal(to_dense(cells), before)


@some_or_all
def test_the_loss_is_that_of_a_loop_over_hidden_entries(n_targets):
    _, hidden = hide_genes(CSR.from_dense(make_cells()), 0.3, n_targets, generator())
    prediction = torch.randn(hidden.values.shape, generator=generator(2), dtype=torch.float64)
    errors = [
        (prediction[i, j] - hidden.values[i, j]) ** 2
        for i in range(hidden.entries.shape[0])
        for j in range(hidden.entries.shape[1])
        if hidden.entries[i, j]
    ]
    expected = sum(errors) / len(errors)
    torch.testing.assert_close(masked_reconstruction_loss(prediction, hidden), expected)


def test_the_loss_passes_gradcheck_and_has_no_gradient_at_what_is_visible():
    _, hidden = hide_genes(make_cells()[:4, :9], 0.4, None, generator())
    assert 0 < hidden.entries.sum() < hidden.entries.numel()
    prediction = torch.randn(4, 9, generator=generator(2), dtype=torch.float64).requires_grad_()
    loss = masked_reconstruction_loss(prediction, hidden)
    assert gradcheck(lambda p: masked_reconstruction_loss(p, hidden), prediction)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert torch.equal(gradient != 0, hidden.entries)

    other = prediction.detach() + 100 * ~hidden.entries
    changed = hidden._replace(values=hidden.values - 100 * ~hidden.entries)
    assert torch.equal(masked_reconstruction_loss(other, changed), loss)
    assert masked_reconstruction_loss(other + 1 * hidden.entries, changed) != loss


def test_the_loss_over_some_genes_estimates_that_over_all():
    x, state = make_cells(), generator(3)
    prediction = torch.rand(x.shape, generator=generator(2), dtype=torch.float64)
    losses = []
    for _ in range(300):
        _, hidden = hide_genes(CSR.from_dense(x), 0.3, 30, state)
        losses.append(masked_reconstruction_loss(prediction[:, hidden.genes], hidden))
    sample = torch.stack(losses)
    error = sample.std() / len(sample) ** 0.5
    assert abs(sample.mean() - (prediction - x).square().mean()) < 4 * error


def test_nothing_hidden_costs_nothing():
    x = make_cells()
    _, hidden = hide_genes(x, 0.0, None, generator())
    assert masked_reconstruction_loss(x + 1, hidden) == 0


LAYERS = {"both": {}, "no shared": {"n_shared": 0}, "no own": {"n_independent": 0}}


@stored
@some_or_all
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_every_parameter_learns(store, n_targets, layers):
    decoder = make_decoder(n_hidden=10, **layers)
    encoder = TabNetEncoder(
        N_GENES, n_d=6, n_a=5, n_independent=1, n_shared=1, virtual_batch_size=32
    ).double()
    visible, hidden = hide_genes(store(make_cells()), 0.3, n_targets, generator())
    condition = torch.randn(N_CELLS, 20, dtype=torch.float64).requires_grad_()
    embedding, mask_loss = encoder(visible)
    genes = hidden.genes if n_targets else None
    prediction = decoder(embedding, condition, genes)
    (masked_reconstruction_loss(prediction, hidden) + mask_loss).backward()
    leaves = [*encoder.named_parameters(), *decoder.named_parameters(), ("condition", condition)]
    for name, leaf in leaves:
        assert leaf.grad is not None, name
        assert (leaf.grad != 0).any(), name
    asked_for = torch.zeros(N_GENES, dtype=torch.bool)
    asked_for[hidden.genes] = True
    assert torch.equal(decoder.final_mapping.bias.grad != 0, asked_for)


def test_a_sparse_batch_trains_as_the_dense_one():
    decoder = make_decoder()
    visible, hidden = hide_genes(CSR.from_dense(make_cells()), 0.3, None, generator())
    torch.manual_seed(0)
    encoder = TabNetEncoder(N_GENES, n_d=6, n_a=5, virtual_batch_size=32).double()
    gradients = []
    for cells in (visible, visible.to_dense()):
        loss = masked_reconstruction_loss(decoder(encoder(cells).embedding), hidden)
        gradients.append(torch.autograd.grad(loss, list(encoder.parameters()), allow_unused=True))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_some_genes_are_those_of_all(layers):
    decoder, z = make_decoder(n_hidden=9, **layers).eval(), torch.rand(5, 6).double()
    genes = torch.tensor([4, 250, 0])
    assert decoder(z).shape == (5, N_GENES)
    torch.testing.assert_close(decoder(z, genes=genes), decoder(z)[:, genes])


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_condition_is_added_before_the_first_batch_norm(layers):
    decoder, z = make_decoder(**layers), torch.rand(N_CELLS, 6).double()
    assert decoder.n_condition == 12
    condition = torch.randn(N_CELLS, decoder.n_condition).double()
    plain = decoder(z)
    assert not torch.allclose(decoder(z, condition), plain)
    # A constant that all cells share is what the batch norm of a training batch takes out.
    constant = condition[:1].expand(N_CELLS, -1)
    torch.testing.assert_close(decoder(z, constant), plain)
    decoder.eval()
    assert not torch.allclose(decoder(z, constant), decoder(z))


def test_a_decoder_begins_with_the_means():
    decoder, x = make_decoder(), make_cells()
    assert (decoder.final_mapping.bias == 0).all()
    decoder.start_from(x.mean(dim=0))
    prediction = decoder(torch.rand(N_CELLS, 6).double())
    torch.testing.assert_close(prediction.mean(dim=0), x.mean(dim=0), rtol=0, atol=0.1)
    assert decoder.final_mapping.bias.requires_grad
    with pytest.raises(ValueError, match=r"shape \(2,\), but 300 genes"):
        decoder.start_from(torch.zeros(2))


def test_training_reconstructs_what_is_hidden_better_than_the_mean_does():
    """Two kinds of cells, which the visible genes tell apart."""
    torch.manual_seed(0)
    kinds = (torch.rand(2, N_GENES) < 0.3).double() * 3
    x = kinds[torch.arange(N_CELLS) % 2] + 0.1 * torch.rand(N_CELLS, N_GENES).double()
    decoder = make_decoder()
    decoder.start_from(x.mean(dim=0))
    encoder = TabNetEncoder(N_GENES, n_d=6, n_a=5, n_independent=1, n_shared=1).double()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.02)
    state, losses = generator(), []
    for _ in range(80):
        visible, hidden = hide_genes(CSR.from_dense(x), 0.3, 100, state)
        prediction = decoder(encoder(visible).embedding, genes=hidden.genes)
        loss = masked_reconstruction_loss(prediction, hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * x.var(dim=0).mean()


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_that_are_no_probability_are_refused(rate):
    with pytest.raises(ValueError, match=r"rate=.* is not in \[0, 1\)"):
        hide_genes(make_cells(), rate)


def test_nothing_to_reconstruct_is_refused():
    with pytest.raises(ValueError, match="n_targets=0"):
        hide_genes(make_cells(), 0.3, 0)
    with pytest.raises(ValueError, match="n_independent and n_shared are both 0"):
        make_decoder(n_shared=0, n_independent=0)


def test_a_prediction_of_other_genes_is_refused():
    x = make_cells()
    _, hidden = hide_genes(x, 0.3, 50, generator())
    with pytest.raises(ValueError, match=r"\(64, 300\).*\(64, 50\).*genes=hidden.genes"):
        masked_reconstruction_loss(x, hidden)
    one = HiddenGenes(hidden.genes, hidden.values[:1], hidden.entries[:1])
    with pytest.raises(ValueError, match="prediction of shape"):
        masked_reconstruction_loss(hidden.values, one)
