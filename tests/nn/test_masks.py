"""Masks of the masked autoencoder: what is seen, what is asked for, and that nothing leaks."""

import pytest
import torch

from scvi_sctab.nn import (
    CSR,
    ProgrammeMask,
    ProgrammeToGeneMask,
    ProgrammeToProgrammeMask,
    RandomMask,
)

N_CELLS, N_GENES, N_PROGRAMMES = 200, 120, 8
# Of 10 genes each, and genes 80 to 119 in none.
BLOCKS = torch.arange(N_GENES) // 10 == torch.arange(N_PROGRAMMES)[:, None]
REGULATORS = torch.tensor([0, 15, 119, 80, 80, 3, 61, 79])


def overlapping():
    """Programmes of many sizes that share genes; the last but one is part of the last."""
    state = torch.Generator().manual_seed(7)
    sizes = torch.linspace(0.1, 0.4, N_PROGRAMMES)[:, None]
    programmes = torch.rand(N_PROGRAMMES, N_GENES, generator=state) < sizes
    programmes[-1] |= programmes[-2]
    programmes[:, 100:] = False
    return programmes


MASKS = {
    "random": lambda: RandomMask(0.4),
    "programmes": lambda: ProgrammeMask(overlapping(), 0.3),
    "programmes, some genes": lambda: ProgrammeMask(overlapping(), 0.3, n_targets=50),
    "to programme": lambda: ProgrammeToProgrammeMask(overlapping()),
    "to gene": lambda: ProgrammeToGeneMask(overlapping(), REGULATORS),
}
every_mask = pytest.mark.parametrize("make", MASKS.values(), ids=MASKS)
by_programme = {name: make for name, make in MASKS.items() if name != "random"}
every_programme_mask = pytest.mark.parametrize("make", by_programme.values(), ids=by_programme)
STORED = {"dense": lambda x: x, "sparse": CSR.from_dense}
stored = pytest.mark.parametrize("store", STORED.values(), ids=STORED)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_cells(dtype=torch.float64):
    """Expression that is never the same twice, with an empty cell and a full one."""
    state = generator(1000)
    x = 1 + torch.rand(N_CELLS, N_GENES, generator=state, dtype=dtype)
    x *= torch.rand(N_CELLS, N_GENES, generator=state) < 0.4
    x[3], x[5] = 0, 1.5
    return x


def full_cells():
    """Cells without zeros, so that what is hidden can be read off."""
    return 1 + torch.rand(N_CELLS, N_GENES, generator=generator(1001), dtype=torch.float64)


def to_dense(x):
    return x.to_dense() if isinstance(x, CSR) else x


@stored
@every_mask
def test_what_is_scored_is_never_visible(make, store):
    x = full_cells()
    visible, hidden = make()(store(x), generator())
    seen = to_dense(visible)
    assert type(visible) is type(store(x))
    assert hidden.entries.any()
    assert torch.equal(hidden.values, x[:, hidden.genes])
    assert (seen[:, hidden.genes][hidden.entries] == 0).all()


@stored
@every_mask
def test_what_stays_visible_is_the_cell_times_one_factor(make, store):
    x = make_cells()
    seen = to_dense(make()(store(x), generator())[0])
    ratio = seen / x
    for cell in range(N_CELLS):
        factors = ratio[cell][seen[cell] != 0]
        torch.testing.assert_close(
            factors, factors.max().expand_as(factors) if len(factors) else factors
        )


@stored
@every_programme_mask
def test_the_factor_is_that_of_the_hidden_genes_and_at_most_ten(make, store):
    x = full_cells()
    seen = to_dense(make()(store(x), generator())[0])
    n_visible = (seen != 0).sum(dim=1)
    expected = torch.tensor([min(N_GENES / max(int(n), 1), 10.0) for n in n_visible]).double()
    torch.testing.assert_close(
        (seen / x).max(dim=1).values[n_visible > 0], expected[n_visible > 0]
    )


def test_the_factor_of_a_small_programme_stops_at_ten():
    x = full_cells()
    small = BLOCKS.clone()
    small[:, 2::10] = small[:, 3::10] = False  # 8 of 120 genes, by which it would be 15
    visible, _ = ProgrammeToProgrammeMask(small)(x, generator())
    torch.testing.assert_close(
        (visible / x).max(dim=1).values, torch.full((N_CELLS,), 10.0).double()
    )


@every_programme_mask
def test_dense_and_sparse_cells_get_the_same(make):
    mask, x = make(), make_cells()
    dense, hidden = mask(x, generator())
    sparse, others = mask(CSR.from_dense(x), generator())
    torch.testing.assert_close(sparse.to_dense(), dense, rtol=1e-15, atol=0)
    for one, other in zip(hidden, others, strict=True):
        assert torch.equal(one, other)
    # No zeros are stored, in the order and the types that kernels expect.
    expected = CSR.from_dense(dense)
    assert torch.equal(sparse.indptr, expected.indptr)
    assert torch.equal(sparse.columns, expected.columns)
    assert sparse.columns.dtype is torch.int32


@stored
@every_mask
def test_a_generator_repeats_itself_and_torchs_own_stays_untouched(make, store):
    mask, x = make(), store(full_cells())
    before = torch.get_rng_state()
    (seen, hidden), (again, hidden_again) = (mask(x, generator(3)) for _ in range(2))
    other, _ = mask(x, generator(4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(to_dense(seen), to_dense(again))
    assert torch.equal(hidden.entries, hidden_again.entries)
    assert not torch.equal(to_dense(seen), to_dense(other))


@every_mask
def test_without_a_generator_torchs_own_decides(make):
    mask, x = make(), full_cells()
    torch.manual_seed(0)
    first = mask(x)[0]
    assert not torch.equal(mask(x)[0], first)
    torch.manual_seed(0)
    assert torch.equal(mask(x)[0], first)


@every_mask
def test_cells_are_left_as_they_are_and_keep_their_precision(make):
    x = make_cells(torch.float32)
    before = x.clone()
    for store in STORED.values():
        visible, hidden = make()(store(x), generator())
        assert to_dense(visible).dtype is hidden.values.dtype is torch.float32
        assert hidden.entries.dtype is torch.bool
        assert hidden.genes.dtype is torch.int64
    assert torch.equal(x, before)


@every_programme_mask
def test_programmes_are_saved_and_belong_to_the_module(make):
    mask, programmes = make(), overlapping()
    state = {name: value.clone() for name, value in mask.state_dict().items()}
    assert torch.equal(state["programmes"], programmes)
    assert not list(mask.parameters())
    assert all(part.device.type == "meta" for part in mask.to("meta").state_dict().values())

    # Another mask of as many programmes draws as this one does once it has its state.
    other = make()
    for part in other.buffers():
        part.copy_(part.flip(0))
    other.load_state_dict(state)
    seen, hidden = make()(full_cells(), generator())
    seen_again, hidden_again = other(full_cells(), generator())
    assert torch.equal(seen, seen_again)
    assert torch.equal(hidden.entries, hidden_again.entries)


def test_changing_the_given_programmes_later_changes_nothing():
    programmes = overlapping()
    mask = ProgrammeMask(programmes)
    programmes.fill_(True)
    assert torch.equal(mask.programmes, overlapping())


@stored
def test_a_random_mask_hides_at_its_rate(store):
    _, hidden = RandomMask(0.4)(store(make_cells()), generator())
    assert abs(hidden.entries.double().mean() - 0.4) < 0.02
    _, hidden = RandomMask(0.4, n_targets=7)(store(make_cells()), generator())
    assert hidden.entries.shape == (N_CELLS, 7)


def test_whole_programmes_are_hidden_and_all_that_is_hidden_is_scored():
    programmes = overlapping()
    visible, hidden = ProgrammeMask(programmes, 0.3)(full_cells(), generator())
    assert torch.equal(hidden.genes, torch.arange(N_GENES))
    assert torch.equal(hidden.entries, visible == 0)
    for entries in hidden.entries:
        # The union of the programmes that are hidden whole is all that is hidden.
        whole = (entries | ~programmes).all(dim=1)
        assert whole.sum() >= 2
        assert torch.equal(programmes[whole].any(dim=0), entries)


@pytest.mark.parametrize(("rate", "n_hidden"), [(0.01, 1), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_a_share_of_the_programmes_is_hidden_and_each_has_its_turn(rate, n_hidden):
    _, hidden = ProgrammeMask(BLOCKS, rate)(full_cells(), generator())
    drawn = hidden.entries[:, :80:10]
    assert (drawn.sum(dim=1) == n_hidden).all()
    assert (hidden.entries.sum(dim=1) == 10 * n_hidden).all()
    share = n_hidden / N_PROGRAMMES
    error = (share * (1 - share) / N_CELLS) ** 0.5
    assert (abs(drawn.double().mean(dim=0) - share) <= 4 * error).all()
    # Cells draw by themselves.
    assert len(drawn.unique(dim=0)) > (1 if rate < 1 else 0)


def test_some_targets_are_drawn_anew_and_scored_if_hidden():
    mask, state, x = ProgrammeMask(overlapping(), 0.3, n_targets=50), generator(), full_cells()
    drawn = []
    for _ in range(20):
        visible, hidden = mask(x, state)
        assert len(hidden.genes.unique()) == 50
        assert torch.equal(hidden.entries, visible[:, hidden.genes] == 0)
        drawn.append(hidden.genes)
    assert len(torch.cat(drawn).unique()) == N_GENES


def test_one_programme_is_shown_and_what_another_has_beside_it_asked_for():
    programmes = overlapping()
    visible, hidden = ProgrammeToProgrammeMask(programmes)(full_cells(), generator())
    assert torch.equal(hidden.genes, torch.arange(N_GENES))
    pairs = set()
    for seen, entries in zip(visible != 0, hidden.entries, strict=True):
        assert entries.any()
        (shown,) = (programmes == seen).all(dim=1).nonzero()[:, 0].tolist()
        asked = ((programmes & ~seen) == entries).all(dim=1).nonzero()[:, 0].tolist()
        assert asked
        assert shown not in asked
        pairs.add((shown, asked[0]))
    assert len(pairs) > N_PROGRAMMES


def test_pairs_that_ask_for_nothing_are_not_drawn():
    """The large one holds both others, so it may be asked for but never shown."""
    programmes = torch.zeros(3, 6, dtype=torch.bool)
    programmes[0, :2], programmes[1, 2:4], programmes[2] = True, True, True
    mask = ProgrammeToProgrammeMask(programmes)
    assert mask.pairs.tolist() == [[False, True, True], [True, False, True], [False] * 3]
    visible, hidden = mask(full_cells()[:, :6], generator())
    assert ((visible != 0).sum(dim=1) == 2).all()
    sizes = hidden.entries.sum(dim=1)
    assert sizes.unique().tolist() == [2, 4]
    assert abs((sizes == 2).double().mean() - 0.5) < 4 * (0.25 / N_CELLS) ** 0.5


@stored
def test_the_regulator_is_asked_for_and_its_programme_shown_without_it(store):
    x = full_cells()
    visible, hidden = ProgrammeToGeneMask(BLOCKS, REGULATORS)(store(x), generator())
    assert hidden.genes.tolist() == [0, 3, 15, 61, 79, 80, 119]
    assert (hidden.entries.sum(dim=1) == 1).all()
    drawn = set()
    for seen, entries in zip(to_dense(visible) != 0, hidden.entries, strict=True):
        regulator = hidden.genes[entries].item()
        (programme,) = ((BLOCKS & seen).sum(dim=1) >= 9).nonzero()[:, 0].tolist()
        assert REGULATORS[programme] == regulator
        expected = BLOCKS[programme].clone()
        expected[regulator] = False
        assert torch.equal(seen, expected)
        drawn.add(programme)
    assert drawn == set(range(N_PROGRAMMES))


def test_programmes_that_make_no_mask_are_refused():
    for mask in (ProgrammeMask, ProgrammeToProgrammeMask):
        with pytest.raises(ValueError, match="There are no programmes"):
            mask(BLOCKS[:0])
        with pytest.raises(
            ValueError, match=r"boolean, \(n_programmes, n_genes\), not torch.float"
        ):
            mask(BLOCKS.float())
        with pytest.raises(ValueError, match=r"of shape \(120,\)"):
            mask(BLOCKS[0])
        empty = BLOCKS.clone()
        empty[[2, 5]] = False
        with pytest.raises(ValueError, match=r"2 of 8 programmes have no genes, e.g. at \[2, 5\]"):
            mask(empty)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_rates_that_are_no_share_are_refused(rate):
    with pytest.raises(ValueError, match=r"rate=.* is not a share in \(0, 1\]"):
        ProgrammeMask(BLOCKS, rate)
    with pytest.raises(ValueError, match=r"rate=.* is not in \(0, 1\)"):
        RandomMask(rate)


def test_masks_that_show_nothing_or_ask_for_nothing_are_refused():
    with pytest.raises(ValueError, match="hides all of 8 programmes, which are all genes"):
        ProgrammeMask(BLOCKS[:, :80], 1.0)
    with pytest.raises(ValueError, match=r"rate=1.0 is not in \(0, 1\)"):
        RandomMask(1.0)
    for mask in (lambda n: ProgrammeMask(BLOCKS, n_targets=n), lambda n: RandomMask(n_targets=n)):
        with pytest.raises(ValueError, match="n_targets=0"):
            mask(0)
    for alike in (BLOCKS[:1], BLOCKS[[1, 1, 1]]):
        with pytest.raises(ValueError, match="nothing to ask for. Give at least two different"):
            ProgrammeToProgrammeMask(alike)


def test_regulators_that_are_no_genes_or_alone_are_refused():
    with pytest.raises(ValueError, match=r"for each of 8 programmes.*of shape \(7,\)"):
        ProgrammeToGeneMask(BLOCKS, REGULATORS[:7])
    with pytest.raises(ValueError, match="int64, not torch.float32"):
        ProgrammeToGeneMask(BLOCKS, REGULATORS.float())
    for wrong in (-1, N_GENES):
        genes = REGULATORS.clone()
        genes[[1, 6]] = wrong
        with pytest.raises(ValueError, match=r"regulators of 2 programmes.*at \[1, 6\]. Drop"):
            ProgrammeToGeneMask(BLOCKS, genes)
    alone = BLOCKS.clone()
    alone[1] = torch.arange(N_GENES) == 15
    with pytest.raises(ValueError, match=r"1 programmes have no gene but.*at \[1\]"):
        ProgrammeToGeneMask(alone, REGULATORS)


@stored
@every_programme_mask
def test_cells_of_other_genes_are_refused(make, store):
    with pytest.raises(ValueError, match="Cells of 119 genes, but programmes of 120"):
        make()(store(full_cells()[:, 1:]))
