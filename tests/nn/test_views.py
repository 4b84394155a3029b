"""Views of a cell: independent of each other, of what they say they are, and repeatable."""

import numpy as np
import pytest
import torch

from scvi_sctab.nn import CSR, CellViews, negative_binomial_noise

N_CELLS, N_GENES = 64, 300
STORED = {"dense": lambda x: x, "sparse": CSR.from_dense}
stored = pytest.mark.parametrize("store", STORED.values(), ids=STORED)
KINDS = {
    "masks": {"mask_rate": 0.5},
    "noise": {"mask_rate": 0.0, "noise": 0.2},
    "dropout": {"mask_rate": 0.0, "dropout": 0.3},
    "all": {"mask_rate": 0.3, "noise": 0.2, "dropout": 0.1},
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_cells():
    """Expression that is never the same twice, a fifth of it nonzero."""
    x = 1 + torch.rand(N_CELLS, N_GENES, generator=generator(1000), dtype=torch.float64)
    return x * (torch.rand(N_CELLS, N_GENES, generator=generator(1001)) < 0.2)


def to_dense(x):
    return x.to_dense() if isinstance(x, CSR) else x


@stored
@kinds
def test_the_views_differ_from_each_other_and_between_equal_cells(store, kind):
    equal = make_cells()[:1].repeat(N_CELLS, 1)
    views = [to_dense(view) for view in CellViews(**kind)(store(equal), generator())]
    cells = torch.cat(views)
    assert len(torch.unique(cells, dim=0)) == 2 * N_CELLS
    # The second is no copy of the first in another order of cells or with few entries changed.
    assert (views[0] != views[1])[equal > 0].double().mean() > 0.3


@stored
@kinds
def test_a_generator_repeats_the_views_and_leaves_the_state_of_torch_alone(store, kind):
    x, views = store(make_cells()), CellViews(**kind)
    state = torch.get_rng_state()
    first, again, other = (views(x, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for view, same, different in zip(first, again, other, strict=True):
        assert torch.equal(to_dense(view), to_dense(same))
        assert not torch.equal(to_dense(view), to_dense(different))


@stored
@kinds
def test_cells_are_left_as_they_were_and_keep_their_type(store, kind):
    x = store(make_cells())
    for view in CellViews(**kind)(x, generator()):
        assert to_dense(view).dtype is torch.float64
        assert isinstance(view, CSR) == (isinstance(x, CSR) and not kind.get("noise"))
    assert torch.equal(to_dense(x), make_cells())


@stored
def test_what_is_visible_is_rescaled_by_all_that_hides(store):
    x = make_cells()
    for view in CellViews(mask_rate=0.5, dropout=0.2)(store(x), generator()):
        view = to_dense(view)
        visible = view != 0
        torch.testing.assert_close(view[visible], x[visible] / (0.5 * 0.8))
        assert abs(visible[x != 0].double().mean() - 0.4) < 0.03


def test_noise_covers_what_is_hidden_and_is_dropped_itself():
    x = make_cells() + 1
    masks, _ = CellViews(mask_rate=0.5, noise=1.0)(x, generator())
    drops, _ = CellViews(mask_rate=0.0, noise=1.0, dropout=0.5)(x, generator())
    # One count in eleven of the noise is 0, see below.
    assert abs((masks == 0).double().mean() - 0.5 / 11) < 0.01
    assert abs((drops == 0).double().mean() - 0.5) < 0.02


def naive_noise(n_cells, n_genes, seed=0):
    rng = np.random.default_rng(seed)
    counts = np.empty((n_cells, n_genes))
    for cell in range(n_cells):
        for gene in range(n_genes):
            # Numpy counts by the probability of the other outcome.
            counts[cell, gene] = rng.negative_binomial(10, 1 - rng.uniform())
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def test_noise_is_distributed_as_a_naive_simulation_of_it():
    shape = 300, 50
    drawn = negative_binomial_noise(torch.zeros(shape), 1.0, generator()).numpy()
    expected = naive_noise(*shape)
    assert abs(drawn.mean() - expected.mean()) < 0.06
    assert abs(drawn.std() - expected.std()) < 0.06
    assert abs((drawn == 0).mean() - (expected == 0).mean()) < 0.015
    # The mean of (1 - p)^10 over p.
    assert abs((drawn == 0).mean() - 1 / 11) < 0.01
    levels = [0.2, 0.4, 0.6, 0.8]
    np.testing.assert_allclose(np.quantile(drawn, levels), np.quantile(expected, levels), atol=0.1)


def test_noise_is_that_of_a_cell_with_ten_thousand_counts_whatever_the_expression():
    x = make_cells()
    noise = negative_binomial_noise(x, 1.0, generator()) - x
    torch.testing.assert_close(noise.expm1().sum(dim=1).float(), torch.full((N_CELLS,), 1e4))


def test_noise_is_proportional_to_its_strength():
    x = make_cells()
    weak, strong = (negative_binomial_noise(x, s, generator()) - x for s in (0.1, 0.4))
    torch.testing.assert_close(4 * weak, strong)
    assert (weak >= 0).all()


def test_a_cell_of_noise_without_counts_adds_nothing():
    noisy = negative_binomial_noise(torch.zeros(1000, 1), 1.0, generator())
    assert noisy.unique().tolist() == pytest.approx([0, np.log1p(1e4)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_rate": 1.0}, r"mask_rate=1.0 is not in \[0, 1\)"),
        ({"mask_rate": -0.1}, r"mask_rate=-0.1 is not in \[0, 1\)"),
        ({"dropout": 1.5}, r"dropout=1.5 is not in \[0, 1\)"),
        ({"noise": -0.1}, "noise=-0.1 is negative"),
        ({"mask_rate": 0.0}, "Both views would be the cell itself"),
    ],
)
def test_views_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CellViews(**arguments)


def test_views_say_what_they_are_made_of():
    assert repr(CellViews(0.3, 0.2)) == "CellViews(mask_rate=0.3, noise=0.2, dropout=0.0)"
