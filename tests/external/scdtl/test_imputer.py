"""Imputation with a bulk prior."""

import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from scipy import sparse

from scvi_sctab.external import BulkPriorImputer
from scvi_sctab.external.scdtl import BulkPriorModule, _trials
from scvi_sctab.external.scdtl._module import decorrelate, thin
from scvi_sctab.metrics import held_out_log_likelihood, molecular_split

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
N_CELLS, N_GENES, N_MORE, N_TYPES = 48, 120, 20, 3
NAMES = [f"G{i}" for i in np.random.default_rng(5).permutation(N_GENES + N_MORE)]


def simulate(seed=0, depth=500):
    """Cells of three types, and two bulk samples of each, which have more genes."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.5, 1, N_GENES + N_MORE) + 0.02
    profiles = profiles * np.exp(rng.normal(0, 1.2, (N_TYPES, N_GENES + N_MORE)))
    profiles /= profiles.sum(axis=1, keepdims=True)
    types = np.arange(N_CELLS) % N_TYPES
    counts = rng.poisson(depth * profiles[types][:, :N_GENES])
    cells = AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        pd.DataFrame({"type": types.astype(str)}, [f"cell {i}" for i in range(N_CELLS)]),
        pd.DataFrame(index=NAMES[:N_GENES]),
    )
    samples = np.arange(2 * N_TYPES) % N_TYPES
    expression = rng.poisson(1e6 * profiles[samples] * rng.lognormal(0, 0.1, profiles.shape[1]))
    bulk = AnnData(
        expression.astype(np.float32),
        pd.DataFrame(index=[f"sample {i}" for i in range(2 * N_TYPES)]),
        pd.DataFrame(index=NAMES),
    )
    return cells, bulk, profiles


def build(cells, bulk=None, **arguments):
    scvi.settings.seed = 0
    BulkPriorImputer.setup_anndata(cells, batch_key=arguments.pop("batch_key", None))
    if bulk is not None:
        BulkPriorImputer.setup_bulk_anndata(bulk)
    return BulkPriorImputer(cells, bulk, **{"method": "factor", **arguments})


def trained(
    cells, bulk=None, *, compare_bulk=False, max_steps=40, holdout_fraction=0.1, **arguments
):
    model = build(cells, bulk, **arguments)
    model.train(max_steps, compare_bulk=compare_bulk, holdout_fraction=holdout_fraction, **QUIET)
    return model


@pytest.fixture(scope="module", params=["factor", "autoencoder"])
def _model(request):
    cells, bulk, _ = simulate()
    return trained(cells, bulk, bulk_use="full", method=request.param, max_steps=200)


@pytest.fixture
def model(_model):
    """A trained model of each method, shared: do not train it further."""
    return _model


def log_contrasts(frame, types):
    log = np.log(frame.groupby(types).mean().to_numpy() + 1e-9)
    return log - log.mean(axis=0)


def test_imputed_values_are_nearer_to_the_truth_than_counts_and_than_the_mean(model):
    cells, _, profiles = simulate()
    truth = profiles[np.arange(N_CELLS) % N_TYPES][:, :N_GENES]
    truth = truth / truth.sum(axis=1, keepdims=True)
    imputed = model.get_imputed_values(genes=list(cells.var_names), library_size=1)
    assert imputed.index.equals(cells.obs_names)
    assert list(imputed.columns) == list(cells.var_names)
    np.testing.assert_allclose(imputed.sum(axis=1), 1, rtol=1e-4)
    counts = cells.X.toarray()
    observed = counts / counts.sum(axis=1, keepdims=True)
    mean = counts.sum(axis=0) / counts.sum()

    def error(shares):
        return np.abs(shares - truth).sum(axis=1).mean()

    assert error(imputed.to_numpy()) < 0.7 * error(observed)
    assert error(imputed.to_numpy()) < 0.7 * error(mean)


def test_genes_in_bulk_only_are_completed_and_flagged(model):
    cells, bulk, profiles = simulate()
    source = model.get_gene_source()
    assert source.value_counts().to_dict() == {"observed": N_GENES, "bulk only": N_MORE}
    assert list(source.index) == [*cells.var_names, *NAMES[N_GENES:]]
    completed = model.get_imputed_values(genes=NAMES[N_GENES:], observed="prior")
    truth = pd.DataFrame(profiles[:, N_GENES:], columns=NAMES[N_GENES:])
    types = cells.obs["type"].to_numpy()
    found = log_contrasts(completed, types).ravel()
    expected = log_contrasts(truth, np.array(["0", "1", "2"])).ravel()
    assert np.corrcoef(found, expected)[0, 1] > 0.9
    one = model.get_imputed_values(genes=NAMES[-1], observed="prior")
    pd.testing.assert_frame_equal(one, completed[[NAMES[-1]]], rtol=1e-4)
    some = model.get_imputed_values(genes=[NAMES[-1], NAMES[0]])
    assert list(some.columns) == [NAMES[-1], NAMES[0]]
    np.testing.assert_allclose(some[NAMES[-1]], completed[NAMES[-1]], rtol=1e-4)


def test_own_counts_are_combined_kept_or_left_out(model):
    cells, _, _ = simulate()
    genes = list(cells.var_names)
    prior = model.get_imputed_values(genes=genes, observed="prior", library_size="observed")
    keep = model.get_imputed_values(genes=genes, observed="keep", library_size="observed")
    posterior = model.get_imputed_values(genes=genes, library_size="observed")
    counts = cells.X.toarray()
    np.testing.assert_allclose(keep.to_numpy()[counts > 0], counts[counts > 0], rtol=1e-4)
    np.testing.assert_allclose(keep.to_numpy()[counts == 0], prior.to_numpy()[counts == 0])
    np.testing.assert_allclose(prior.sum(axis=1), counts.sum(axis=1), rtol=1e-4)
    surprise = counts - prior.to_numpy()
    moved = (posterior - prior).to_numpy() * np.sign(surprise)
    assert (moved[np.abs(surprise) > 4] > 0).mean() > 0.95
    normalized = model.get_normalized_expression()
    np.testing.assert_allclose(normalized, prior / counts.sum(axis=1, keepdims=True), rtol=1e-4)


def test_bulk_weights_tell_the_samples_of_the_type(model):
    cells, bulk, _ = simulate()
    weights = model.get_bulk_weights()
    assert list(weights.columns) == list(bulk.obs_names)
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-6)
    by_type = weights.T.groupby(np.arange(6) % N_TYPES).sum().T
    assert (by_type.to_numpy().argmax(axis=1) == np.arange(N_CELLS) % N_TYPES).mean() > 0.9


def test_cells_are_embedded_and_any_part_of_them_is_described_alike(model):
    cells, _, _ = simulate()
    latent = model.get_latent_representation()
    assert len(latent) == N_CELLS
    some = model.get_latent_representation(cells, indices=[7, 2], batch_size=1)
    np.testing.assert_allclose(some, latent[[7, 2]], rtol=1e-3, atol=1e-5)
    assert model.get_latent_representation(indices=[]).shape == (0, latent.shape[1])
    order = np.random.default_rng(0).permutation(N_GENES)
    pd.testing.assert_frame_equal(
        model.get_imputed_values(cells[:, order].copy()), model.get_imputed_values(), rtol=1e-3
    )


@pytest.mark.filterwarnings("ignore:The query has only 60 of")
def test_genes_that_a_query_lacks_are_predicted_and_no_zeros(model):
    cells, _, _ = simulate()
    missing = [*cells.var_names[::2]]
    some = cells[:, 1::2].copy()
    whole = model.get_imputed_values(library_size=1)[missing].to_numpy()
    for observed in ("posterior", "prior", "keep"):
        found = model.get_imputed_values(some, missing, 1, observed).to_numpy()
        assert np.median(found.sum(axis=1) / whole.sum(axis=1)) == pytest.approx(1, abs=0.1)
        assert np.corrcoef(np.log(found).ravel(), np.log(whole).ravel())[0, 1] > 0.8
    kept = model.get_imputed_values(some, [*some.var_names], "observed", "keep").to_numpy()
    counts = some.X.toarray()
    np.testing.assert_allclose(kept[counts > 0], counts[counts > 0], rtol=1e-4)
    weights = model.get_bulk_weights(some).T.groupby(np.arange(6) % N_TYPES).sum().T
    assert (weights.to_numpy().argmax(axis=1) == np.arange(N_CELLS) % N_TYPES).mean() > 0.9


@pytest.mark.filterwarnings("ignore:1 of 2 cells have no counts")
def test_cells_without_counts_get_the_prior_and_a_warning(model):
    cells, _, _ = simulate()
    two = cells[:2].copy()
    two.X = sparse.csr_matrix(two.X.toarray() * [[1], [0]], dtype=np.float32)
    values = model.get_imputed_values(two)
    assert np.isfinite(values).all(axis=None)
    np.testing.assert_allclose(
        values.iloc[1], model.get_imputed_values(two, observed="prior").iloc[1]
    )


def test_saved_models_need_no_bulk(model, tmp_path):
    cells, _, _ = simulate()
    expected = model.get_imputed_values()
    model.save(tmp_path / "model")
    loaded = BulkPriorImputer.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.get_imputed_values(cells), expected)
    pd.testing.assert_frame_equal(loaded.get_bulk_weights(cells), model.get_bulk_weights())
    assert loaded.get_gene_source().equals(model.get_gene_source())
    assert loaded.digest == model.digest
    (tmp_path / "model" / "model.safetensors").unlink()
    pickled = BulkPriorImputer.load(tmp_path / "model", cells, allow_pickle=True)
    pd.testing.assert_frame_equal(pickled.get_imputed_values(), expected)


def test_a_loaded_model_is_trained_on_with_the_bulk_that_it_kept(tmp_path):
    cells, bulk, _ = simulate()
    model = trained(cells, bulk, bulk_use="full")
    model.save(tmp_path / "model")
    loaded = BulkPriorImputer.load(tmp_path / "model", cells)
    scvi.settings.seed = 0
    loaded.train(compare_bulk=False, **QUIET)
    pd.testing.assert_frame_equal(
        loaded.get_imputed_values(), model.get_imputed_values(), rtol=1e-4
    )


def test_a_network_that_is_trained_again_has_not_seen_what_is_now_held_out():
    cells, bulk, _ = simulate()
    once = trained(cells, bulk, bulk_use="full", method="autoencoder", holdout_fraction=0.2)
    twice = trained(cells, bulk, bulk_use="full", method="autoencoder", holdout_fraction=0.5)
    scvi.settings.seed = 0
    twice.train(40, compare_bulk=False, holdout_fraction=0.2, **QUIET)
    pd.testing.assert_frame_equal(twice.get_imputed_values(), once.get_imputed_values(), rtol=1e-4)
    pd.testing.assert_frame_equal(twice.history["train_loss"], once.history["train_loss"])


@pytest.mark.parametrize("method", ["factor", "autoencoder"])
def test_without_contrasts_and_level_bulk_changes_nothing(method):
    cells, bulk, _ = simulate()
    genes = list(cells.var_names)
    plain = trained(cells, method=method).get_imputed_values()
    unused = trained(cells, bulk, bulk_use="none", method=method)
    pd.testing.assert_frame_equal(unused.get_imputed_values(), plain)
    assert (unused.get_gene_source() == "observed").all()
    level = trained(cells, bulk, bulk_use="level", method=method)
    no_contrasts = trained(cells, bulk, bulk_use="full", n_bulk_factors=0, method=method)
    pd.testing.assert_frame_equal(level.get_imputed_values(), no_contrasts.get_imputed_values())
    assert not np.allclose(level.get_imputed_values(genes=genes), plain)


@pytest.mark.parametrize("method", ["factor", "autoencoder"])
def test_the_order_of_genes_does_not_matter(method):
    cells, bulk, _ = simulate()
    model = trained(cells, bulk, bulk_use="full", method=method)
    rng = np.random.default_rng(1)
    other = trained(
        cells[:, rng.permutation(N_GENES)].copy(),
        bulk[:, rng.permutation(N_GENES + N_MORE)].copy(),
        bulk_use="full",
        method=method,
    )
    values = model.get_imputed_values()
    found = other.get_imputed_values()[values.columns]
    pd.testing.assert_frame_equal(found, values, rtol=2e-2)


def test_the_scale_of_a_bulk_sample_does_not_matter():
    cells, bulk, _ = simulate()
    values = trained(cells, bulk, bulk_use="full").get_imputed_values()
    bulk.X = bulk.X * np.array([[1], [4], [0.25], [8], [1], [2]], dtype=np.float32)
    scaled = trained(cells, bulk, bulk_use="full").get_imputed_values()
    pd.testing.assert_frame_equal(scaled, values, rtol=1e-3)


@pytest.mark.parametrize("method", ["factor", "autoencoder"])
def test_genes_in_bulk_only_do_not_touch_what_is_learnt(method):
    cells, bulk, _ = simulate()
    own = [*cells.var_names]
    # The total of a sample counts all its genes; here the others are as many in every sample.
    bulk.X[:, N_GENES:] = 100
    values = trained(cells, bulk, bulk_use="full", method=method).get_imputed_values(genes=own)
    bulk.X[:, N_GENES:] = (
        np.random.default_rng(0).permutation(bulk.X[:, N_GENES:].ravel()).reshape(-1, N_MORE)
    )
    bulk.X[:, N_GENES] = 200
    bulk.X[:, N_GENES + 1] = 0
    again = trained(cells, bulk, bulk_use="full", method=method).get_imputed_values(genes=own)
    pd.testing.assert_frame_equal(again, values)


def test_matched_bulk_gains_is_chosen_and_shuffled_bulk_is_not(caplog):
    cells, bulk, _ = simulate(depth=100)
    with caplog.at_level(logging.INFO, "scvi.sctab"):
        matched = trained(cells, bulk, compare_bulk=True, holdout_fraction=0.3)
    assert "full over none" in caplog.text
    gain = matched.get_bulk_gain().set_index(["use", "over", "genes"])
    assert set(gain.index.get_level_values("genes")) == {"all", "low", "mid", "high"}
    best = gain.loc[("full", "none", "all")]
    assert best["gain"] > 2 * best["se"] > 0
    assert matched.fit_["use"] == "full"
    shuffled = bulk.copy()
    shuffled.X = shuffled.X[:, np.random.default_rng(0).permutation(N_GENES + N_MORE)]
    with pytest.warns(UserWarning, match=r"contrasts of bulk are not used: .* mnats over"):
        rejected = trained(cells, shuffled, holdout_fraction=0.3)
    assert rejected.fit_["use"] in ("none", "level")
    with pytest.raises(RuntimeError, match="does not use contrasts of bulk"):
        rejected.get_bulk_weights()


def test_bulk_helps_held_out_molecules():
    cells, bulk, _ = simulate(depth=100)
    train, test = molecular_split(cells.X, seed=1)
    cells.X = train.astype(np.float32)
    library = np.asarray(train.sum(axis=1)).ravel()

    def score(**arguments):
        model = trained(cells, **arguments)
        shares = model.get_imputed_values(
            genes=[*cells.var_names], observed="prior", library_size=1
        )
        return held_out_log_likelihood(test, shares.to_numpy(), size_factors=library)

    assert score(bulk=bulk, bulk_use="full") > score() + 0.01


def test_batches_are_learnt_and_left_out_of_normalised_expression():
    cells, bulk, _ = simulate(depth=2000)
    rng = np.random.default_rng(0)
    batch = np.arange(N_CELLS) // N_TYPES % 2
    effect = np.exp(rng.normal(0, 1, N_GENES))
    cells.X = sparse.csr_matrix(
        rng.poisson(cells.X.toarray() * np.where(batch[:, None], effect, 1)).astype(np.float32)
    )
    cells.obs["lab"] = np.array(["a", "b"])[batch]
    for method in ("factor", "autoencoder"):
        model = trained(
            cells, bulk, bulk_use="full", method=method, batch_key="lab", max_steps=400
        )

        def difference(frame):
            log = np.log(frame.to_numpy()[:, :N_GENES])
            return log[batch == 1].mean(axis=0) - log[batch == 0].mean(axis=0)

        shown = difference(model.get_imputed_values(observed="prior"))
        left = difference(model.get_normalized_expression())
        assert np.corrcoef(shown, np.log(effect))[0, 1] > 0.8
        assert left.std() < 0.6 * shown.std()
        unknown = cells.copy()
        unknown.obs["lab"] = "c"
        assert np.isfinite(model.get_imputed_values(unknown)).all(axis=None)


@pytest.mark.filterwarnings(
    "ignore:Training will be faster when sparse matrix is formatted as CSR"
)
def test_backed_dense_and_csc_cells_give_the_same(tmp_path):
    cells, bulk, _ = simulate()
    values = trained(cells, bulk, bulk_use="full").get_imputed_values()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    dense, csc = cells.copy(), cells.copy()
    dense.X, csc.X = cells.X.toarray(), sparse.csc_matrix(cells.X)
    for other in (backed, dense, csc):
        found = trained(other, bulk, bulk_use="full").get_imputed_values()
        pd.testing.assert_frame_equal(found, values, rtol=1e-4)


def test_size_factors_scale_observed_libraries():
    cells, _, _ = simulate()
    cells.obs["size"] = np.linspace(1, 2, N_CELLS)
    scvi.settings.seed = 0
    BulkPriorImputer.setup_anndata(cells, size_factor_key="size")
    model = BulkPriorImputer(cells, method="factor")
    model.train(**QUIET)
    totals = model.get_imputed_values(library_size="observed").sum(axis=1)
    np.testing.assert_allclose(totals / totals.iloc[0], cells.obs["size"], rtol=1e-4)
    assert totals.sum() == pytest.approx(cells.X.sum(), rel=1e-4)
    query = cells.copy()
    query.obs.iloc[7, query.obs.columns.get_loc("size")] = np.nan
    with pytest.raises(ValueError, match="of cell 'cell 7' is nan; a size factor is a positive"):
        model.get_imputed_values(query, library_size="observed")
    cells.obs["size"] = 0.0
    with pytest.raises(ValueError, match="of cell 'cell 0' is 0.0; a size factor is a positive"):
        BulkPriorImputer.setup_anndata(cells, size_factor_key="size")


@pytest.mark.parametrize("n_samples", [1, 3])
def test_one_profile_gives_the_level_only_with_a_warning(n_samples):
    cells, bulk, _ = simulate()
    single = bulk[:n_samples].copy()
    single.X = bulk.X[:1] * (1 + np.arange(n_samples, dtype=np.float32))[:, None]
    with pytest.warns(UserWarning, match="Bulk has a single profile: it gives the level"):
        model = trained(cells, single, bulk_use="full")
    assert model.fit_["use"] == "level"
    assert model.get_gene_source().eq("bulk only").sum() == N_MORE


def test_cells_and_bulk_that_were_swapped_are_told():
    cells, bulk, _ = simulate()
    build(cells, bulk)
    with pytest.raises(ValueError, match="set up as bulk. Were cells and bulk swapped"):
        BulkPriorImputer(bulk, cells)
    with pytest.raises(ValueError, match="set up as cells. Were cells and bulk swapped"):
        BulkPriorImputer(cells, cells)
    deep = bulk.copy()
    deep.X = deep.X * 10
    with pytest.raises(ValueError, match="look like bulk samples: were cells and bulk swapped"):
        BulkPriorImputer.setup_anndata(deep)
    with pytest.raises(ValueError, match=r"not set up: `BulkPriorImputer\.setup_bulk_anndata"):
        BulkPriorImputer(cells, bulk.copy())


@pytest.mark.parametrize("max_steps", [7, 40, 50])
def test_the_autoencoder_takes_no_more_steps_than_asked_for(max_steps):
    cells, _, _ = simulate()
    steps = _Counting()
    build(cells, method="autoencoder").train(max_steps, callbacks=[steps], **QUIET)
    # Epochs are of equal length.
    assert max_steps - 3 < steps.n <= max_steps


class _Counting(Callback):
    n = 0

    def on_train_batch_end(self, *_):
        self.n += 1


def test_options_that_do_not_exist_are_refused():
    cells, bulk, _ = simulate()
    build(cells, bulk)
    for name in ("method", "genes", "bulk_use"):
        with pytest.raises(ValueError, match=f"{name}='no' is none of '"):
            BulkPriorImputer(cells, bulk, **{name: "no"})
    with pytest.raises(ValueError, match="one dimension at least"):
        BulkPriorImputer(cells, n_latent=0)
    model = BulkPriorImputer(cells, method="factor")
    with pytest.raises(RuntimeError, match="not trained"):
        model.get_imputed_values()
    with pytest.raises(ValueError, match="at least one step"):
        model.train(0)
    with pytest.raises(ValueError, match=r"holdout_fraction=1.0 is not in \(0, 1\)"):
        model.train(holdout_fraction=1.0)
    for size in (0, 1):
        with pytest.raises(ValueError, match=f"batch_size={size}: a step needs two cells"):
            model.train(batch_size=size)
    with pytest.raises(TypeError, match="n_steps"):
        model.train(n_steps=3)
    model.train(**QUIET)
    with pytest.raises(ValueError, match="observed='no' is none of"):
        model.get_imputed_values(observed="no")
    for size in (-1, np.nan, np.inf, "cells", None, [1.0, 2.0], np.ones(3)):
        with pytest.raises(ValueError, match=r"library_size=.*give a positive number, or 'obs"):
            model.get_imputed_values(library_size=size)
    for size in (0, "observed", None, [1.0]):
        with pytest.raises(ValueError, match=r"library_size=.*give a positive number\."):
            model.get_normalized_expression(library_size=size)
    assert model.get_normalized_expression(library_size=np.float32(2)).shape == (N_CELLS, N_GENES)
    with pytest.raises(
        KeyError, match=r"Neither cells nor bulk have the genes 'g7' \(near 'G7'\)"
    ):
        model.get_imputed_values(genes=["g7"])
    with pytest.raises(RuntimeError, match="Bulk was not compared"):
        model.get_bulk_gain()


def test_ensembl_versions_of_asked_genes_are_ignored():
    cells, bulk, _ = simulate()
    ids = [f"ENSG{i:011d}" for i in range(N_GENES + N_MORE)]
    cells.var_names, bulk.var_names = ids[:N_GENES], [f"{name}.4" for name in ids]
    model = trained(cells, bulk, bulk_use="level")
    for gene in (ids[3], ids[-1]):
        values = model.get_imputed_values(genes=gene)
        assert [*values] == [gene]
        for asked in (f"{gene}.7", [f"{gene}.7"], pd.Index([f"{gene}.7"])):
            pd.testing.assert_frame_equal(model.get_imputed_values(genes=asked), values)


def test_options_that_need_bulk_are_refused_without_it():
    cells, _, _ = simulate()
    for arguments in ({"bulk_use": "full"}, {"bulk_use": "level"}, {"n_bulk_factors": 3}):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=f"{name}={value!r} needs bulk: `BulkPriorImputer"):
            build(cells, **arguments)


def test_a_cell_whose_molecules_are_all_held_out_does_not_decide_on_bulk():
    cells, bulk, _ = simulate(depth=100)
    counts = cells.X.toarray()
    # A single molecule is either shown or held out.
    counts[:12] = np.eye(12, N_GENES)
    cells.X = sparse.csr_matrix(counts.astype(np.float32))
    task = build(cells, bulk)._task(0.3)
    shown, held_out = (
        np.asarray(m.sum(axis=1)).ravel() for m in (task.part.counts, task.held_out)
    )
    assert 0 < (shown == 0).sum() < 12
    assert not held_out[shown == 0].any()
    np.testing.assert_array_equal((shown + held_out)[shown > 0], counts.sum(axis=1)[shown > 0])
    model = trained(cells, bulk, compare_bulk=True, holdout_fraction=0.3)
    assert np.isfinite(model.get_bulk_gain()["gain"]).all()
    assert model.fit_["use"] == "full"


def test_cells_of_which_none_is_in_both_parts_are_refused():
    cells, _, _ = simulate()
    for fraction in (1e-9, 1 - 1e-9):
        with pytest.raises(ValueError, match="leaves no cell with molecules both to learn from"):
            trained(cells, holdout_fraction=fraction)


def test_a_block_of_cells_without_held_out_molecules_is_scored(monkeypatch):
    cells, _, _ = simulate(depth=5)
    monkeypatch.setattr(_trials, "_N_SCORED", 1)
    model = build(cells)
    held_out = np.asarray(model._task(0.1).held_out.sum(axis=1)).ravel()
    assert 0 < (held_out == 0).sum() < N_CELLS
    model.train(holdout_fraction=0.1, **QUIET)
    assert np.isfinite(model.get_imputed_values()).all(axis=None)


def test_a_model_is_trained_on_without_the_cells_of_a_batch(tmp_path):
    cells, _, _ = simulate()
    cells.obs["lab"] = np.array(["a", "b"])[np.arange(N_CELLS) % 2]
    trained(cells, batch_key="lab").save(tmp_path / "model")
    loaded = BulkPriorImputer.load(tmp_path / "model", cells[::2].copy())
    loaded.train(**QUIET)
    np.testing.assert_allclose(loaded.fit_["shifts"][1], 1)
    assert np.isfinite(loaded.get_imputed_values(cells)).all(axis=None)


def test_cells_that_cannot_be_learnt_from_are_refused():
    cells, bulk, _ = simulate()
    empty = cells.copy()
    empty.X = sparse.csr_matrix(cells.X.toarray() * (np.arange(N_CELLS) > 0)[:, None])
    with pytest.raises(ValueError, match="1 of 48 cells have no counts.*'cell 0'"):
        BulkPriorImputer.setup_anndata(empty)
    logs = cells.copy()
    logs.X = cells.X.log1p()
    with pytest.raises(ValueError, match="not raw counts"):
        BulkPriorImputer.setup_anndata(logs)
    with (
        pytest.warns(UserWarning, match="fewer than 3 cells"),
        pytest.raises(ValueError, match="One cell is not enough"),
    ):
        trained(cells[:1].copy())


def test_a_failed_training_leaves_the_model_as_it_was():
    cells, bulk, _ = simulate()
    model = trained(cells, bulk, bulk_use="full", method="autoencoder")
    values = model.get_imputed_values()
    with pytest.raises(RuntimeError, match="stop here"):
        model.train(callbacks=[_Failing()], compare_bulk=False, **QUIET)
    pd.testing.assert_frame_equal(model.get_imputed_values(), values)


class _Failing(Callback):
    def on_train_epoch_end(self, *_):
        raise RuntimeError("stop here")


def test_the_method_is_chosen_by_held_out_molecules(caplog):
    cells, bulk, _ = simulate()
    with caplog.at_level(logging.INFO, "scvi.sctab"):
        model = trained(cells, bulk, bulk_use="full", method="auto")
    likelihood = {
        name: float(caplog.text.split(f"{name} ")[1].split(",")[0].split(";")[0])
        for name in ("factors", "autoencoder")
    }
    best = "factor" if likelihood["factors"] > likelihood["autoencoder"] else "autoencoder"
    assert model.fit_["method"] == best


def test_thinning_keeps_whole_molecules_at_a_rate_per_cell():
    torch.manual_seed(0)
    counts = torch.full((200, 50), 20.0)
    counts[:, 0] = 0
    kept = thin(counts, (0.3, 0.9))
    assert (kept <= counts).all()
    assert (kept == kept.round()).all()
    rates = kept.sum(dim=1) / counts.sum(dim=1)
    assert 0.25 < rates.min() < 0.4
    assert 0.8 < rates.max() < 0.95


def test_expected_counts_of_some_genes_are_embedded_as_those_of_all():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    level, contrasts = rng.dirichlet(np.ones(9)), rng.normal(size=(9, 2))
    plain, module = (BulkPriorModule(9, n, 0, n_latent=3).eval() for n in (0, 2))
    plain.set_prior(level, contrasts[:, :0], np.full(4, 100.0), np.ones((0, 9)))
    module.set_prior(level, contrasts, np.full(4, 100.0), np.ones((0, 9)))
    measured = torch.arange(9) > 3
    expected = torch.from_numpy(level[None]).float() * 1000
    # Molecules move from one measured gene to another.
    moved = expected.clone()
    moved[0, 4] += 0.5 * expected[0, 5]
    moved[0, 5] *= 0.5
    some = plain.inference(moved * measured, measured)["z"]
    torch.testing.assert_close(some, plain.inference(moved)["z"], atol=1e-4, rtol=1e-3)
    # The cell follows no contrast.
    coefficients = module.inference(expected * measured, measured)["coefficients"]
    torch.testing.assert_close(coefficients, torch.zeros(1, 2), atol=1e-4, rtol=0)
    flags = torch.ones(9, dtype=torch.bool)
    counts = torch.poisson(torch.full((4, 9), 5.0))
    for name in ("z", "coefficients"):
        torch.testing.assert_close(
            module.inference(counts, flags)[name], module.inference(counts)[name]
        )


def test_the_loss_is_the_multinomial_likelihood_of_held_out_molecules():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    level, contrasts = rng.dirichlet(np.ones(9)), rng.normal(size=(9, 2))
    module = BulkPriorModule(9, 2, 0, n_latent=3)
    module.set_prior(level, contrasts, np.full(4, 100.0), np.ones((0, 9)))
    shown, held_out = torch.poisson(torch.full((2, 4, 9), 5.0))
    module.eval()
    inference, generated, output = module({"X": torch.cat([shown, held_out], dim=1)})
    shares = generated["log_shares"].exp()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    truth = -(held_out * shares.log()).sum() / held_out.sum()
    torch.testing.assert_close(output.loss, truth)
    # Its decoder is linear in the embedding and in the contrasts.
    logits = module.log_level + module.decoder(inference["z"])
    logits = logits + inference["coefficients"] @ torch.from_numpy(contrasts).float().T
    torch.testing.assert_close(generated["log_shares"], logits.log_softmax(dim=1))


def test_contrasts_are_rotated_to_be_uncorrelated_over_molecules():
    rng = np.random.default_rng(0)
    level, contrasts = rng.dirichlet(np.ones(50)), rng.normal(size=(50, 4))
    rotated = contrasts @ decorrelate(level, contrasts)
    centred = rotated - level @ rotated
    covariance = (centred.T * level) @ centred
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)
