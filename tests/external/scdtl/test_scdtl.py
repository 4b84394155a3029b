"""Imputation with the architecture of scDTL."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from scipy import sparse

from scvi_sctab.external import ScDTL
from scvi_sctab.metrics import held_out_log_likelihood, molecular_split

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
N_CELLS, N_GENES, N_TYPES = 60, 80, 3
GENES = [f"gene{i}" for i in range(N_GENES)]


def simulate(seed=0):
    """Cells of three types, and bulk of these with a level of its own for each gene."""
    generator = np.random.default_rng(seed)
    shares = generator.gamma(0.5, 1, (N_TYPES, N_GENES)) + 0.02
    shares /= shares.sum(axis=1, keepdims=True)
    counts = generator.poisson(400 * shares[generator.integers(0, N_TYPES, N_CELLS)])
    expression = shares * generator.lognormal(0, 0.5, N_GENES) * 1e6
    cells = AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        pd.DataFrame(index=[f"cell{i}" for i in range(N_CELLS)]),
        pd.DataFrame(index=GENES),
    )
    bulk = AnnData(
        expression.astype(np.float32),
        pd.DataFrame(index=[f"sample{i}" for i in range(N_TYPES)]),
        pd.DataFrame(index=GENES),
    )
    return cells, bulk


def halved():
    """Cells with half of their molecules, and bulk."""
    cells, bulk = simulate()
    cells.X = molecular_split(cells.X)[0]
    return cells, bulk


def build(cells, bulk, **arguments):
    scvi.settings.seed = 0
    ScDTL.setup_anndata(cells)
    ScDTL.setup_bulk_anndata(bulk)
    return ScDTL(cells, bulk, **arguments)


@pytest.fixture(scope="module")
def _trained():
    cells, bulk = halved()
    model = build(cells, bulk)
    model.train(40, **QUIET)
    return model


@pytest.fixture
def model(_trained):
    """A trained model, shared: do not train it further."""
    return _trained


@pytest.fixture
def cells():
    return halved()[0]


@pytest.fixture
def bulk():
    return halved()[1]


def test_held_out_molecules_are_predicted_better_than_by_the_gene_mean(model):
    train, test = molecular_split(simulate()[0].X)
    factors = np.asarray(train.sum(axis=1)).ravel()
    mean = np.tile(np.asarray(train.mean(axis=0)) + 0.01, (N_CELLS, 1))
    ours, means = (
        held_out_log_likelihood(
            test, shares / shares.sum(axis=1, keepdims=True), size_factors=factors
        )
        for shares in (model.get_imputed_values().to_numpy(), mean)
    )
    assert ours > means + 0.1


def test_imputed_values_are_named_and_sum_to_the_library(model, cells):
    values = model.get_imputed_values()
    assert [*values.index] == [*cells.obs_names]
    assert [*values.columns] == GENES
    assert np.allclose(values.sum(axis=1), 1e4, rtol=1e-4)
    observed = model.get_imputed_values(library_size="observed")
    assert np.allclose(observed.sum(axis=1), np.asarray(cells.X.sum(axis=1)).ravel(), rtol=1e-4)
    assert (values > 0).to_numpy().all()


def test_genes_and_cells_can_be_chosen(model):
    whole = model.get_imputed_values()
    some = model.get_imputed_values(genes=["gene7", "gene2"], indices=[5, 1])
    pd.testing.assert_frame_equal(some, whole.iloc[[5, 1]][["gene7", "gene2"]], rtol=1e-4)


def test_genes_are_asked_for_by_a_single_name_or_with_ensembl_versions(model, cells, bulk):
    one = model.get_imputed_values(genes="gene7")
    pd.testing.assert_frame_equal(one, model.get_imputed_values(genes=["gene7"]))
    ids = [f"ENSG{i:011d}" for i in range(N_GENES)]
    cells.var_names = bulk.var_names = ids
    versions = [f"{name}.3" for name in ids[:20]]
    named = build(cells, bulk, genes=versions, gene_order=versions[::-1])
    assert named.imputed_genes.tolist() == ids[:20]
    assert named._gene_order == ids[:20][::-1]
    assert named._columns_of(versions[4]).tolist() == [4]


def test_genes_of_a_query_are_matched_by_name(model, cells):
    order = np.random.default_rng(0).permutation(N_GENES)
    permuted = cells[:, order].copy()
    pd.testing.assert_frame_equal(
        model.get_imputed_values(permuted), model.get_imputed_values(cells), rtol=1e-5
    )


def test_dense_and_backed_cells_give_the_same(model, cells, tmp_path):
    expected = model.get_imputed_values(cells)
    dense = cells.copy()
    dense.X = dense.X.toarray()
    pd.testing.assert_frame_equal(model.get_imputed_values(dense), expected, rtol=1e-5)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    pd.testing.assert_frame_equal(model.get_imputed_values(backed), expected, rtol=1e-5)


def test_latent_and_weights_vary_between_cells(model):
    latent = model.get_latent_representation()
    assert latent.shape == (N_CELLS, 32)
    assert latent.std(axis=0).min() > 0
    weights = model.get_fusion_weights()
    assert [*weights.columns] == ["transferred", "own"]
    assert weights.to_numpy().min() > 0
    assert weights.to_numpy().max() < 1
    assert weights.std().min() > 1e-3


def test_training_lowers_the_loss_and_records_each_part(model):
    history = model.history
    for part in ("transferred", "own", "fused", "bulk", "discrepancy"):
        assert f"train_{part}" in history
    loss = history["validation_loss"].iloc[:, 0].astype(float)
    assert loss.min() < loss.iloc[0] - 0.05


def test_the_same_seed_gives_the_same_model(cells, bulk):
    values = []
    for _ in range(2):
        model = build(cells.copy(), bulk.copy())
        model.train(2, **QUIET)
        values.append(model.get_imputed_values())
    pd.testing.assert_frame_equal(*values)


def test_the_scale_of_a_bulk_sample_and_the_order_of_samples_genes_have_no_effect(cells, bulk):
    models = []
    other = bulk[:, ::-1].copy()
    other.X = other.X * np.array([[1], [1000], [0.01]], dtype=np.float32)
    for samples in (bulk, other):
        model = build(cells.copy(), samples)
        model.train(2, **QUIET)
        models.append(model.get_imputed_values())
    pd.testing.assert_frame_equal(*models, rtol=1e-2)


def test_genes_of_one_side_are_left_out(cells, bulk):
    cells, bulk = cells[:, 10:].copy(), bulk[:, :60].copy()
    model = build(cells, bulk)
    assert model.imputed_genes.tolist() == GENES[10:60]
    model.train(2, **QUIET)
    assert model.get_imputed_values().shape == (N_CELLS, 50)
    with pytest.raises(KeyError, match="The model has no genes 'gene70'"):
        model.get_imputed_values(genes=["gene70"])


def test_a_given_order_of_genes_is_used(cells, bulk):
    order = GENES[::-1]
    model = build(cells, bulk, gene_order=order)
    model.train(1, **QUIET)
    assert model.module.order.tolist() == list(range(N_GENES))[::-1]
    with pytest.raises(ValueError, match="`gene_order` lacks 80 genes of the model"):
        build(cells, bulk, gene_order=["TP53"])


@pytest.mark.parametrize("form", ["safetensors", "pickle"])
def test_a_saved_model_predicts_without_bulk(model, cells, tmp_path, form):
    path = tmp_path / "model"
    model.save(path)
    if form == "pickle":
        (path / "model.safetensors").unlink()
    loaded = ScDTL.load(path, cells, accelerator="cpu", allow_pickle=form == "pickle")
    pd.testing.assert_frame_equal(
        loaded.get_imputed_values(), model.get_imputed_values(cells), rtol=1e-6
    )
    with pytest.raises(
        ValueError, match="bulk is not saved with a model, which needs it to train"
    ):
        loaded.train(1, **QUIET)


def test_a_saved_model_holds_no_bulk(model, tmp_path):
    model.save(tmp_path / "model")
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert size < 4.5 * sum(t.numel() for t in model.module.state_dict().values()) + 20_000
    assert "bulk" not in model.module.state_dict()
    assert "bulk" not in model.init_params_["non_kwargs"]


def test_an_untrained_model_is_refused(cells, bulk):
    with pytest.raises(RuntimeError, match="This model is not trained"):
        build(cells, bulk).get_imputed_values()


def test_training_can_go_on(cells, bulk):
    model = build(cells, bulk)
    model.train(2, **QUIET)
    order = model.module.order.clone()
    model.train(2, **QUIET)
    assert len(model.history["train_loss"]) == 4
    assert (model.module.order == order).all()


def test_a_cell_without_counts_is_imputed_with_a_warning(model, cells):
    counts = cells.X.toarray()
    counts[3] = 0
    cells.X = counts
    with pytest.warns(UserWarning, match="cell3"):
        values = model.get_imputed_values(cells)
    assert np.isfinite(values.to_numpy()).all()


@pytest.mark.filterwarnings("ignore:The query has only 40 of")
def test_genes_that_a_query_lacks_are_as_expected_and_no_zeros(model, cells):
    some, missing = cells[:, 1::2].copy(), GENES[::2]
    found, whole = (
        model.get_imputed_values(query, missing, library_size=1).sum(axis=1)
        for query in (some, cells)
    )
    assert np.median(found / whole) == pytest.approx(1, abs=0.15)
    observed = model.get_imputed_values(some, [*some.var_names], library_size="observed")
    np.testing.assert_allclose(
        observed.sum(axis=1), np.asarray(some.X.sum(axis=1)).ravel(), rtol=1e-4
    )
    module, measured = model.module, torch.arange(N_GENES) % 2 > 0
    expected = module.log_level.exp()[None] * 1000
    nothing = torch.zeros_like(expected)
    every = module.inference(expected, nothing)["x"]
    part = module.inference(expected * measured, nothing, measured)["x"]
    torch.testing.assert_close(part[:, measured], every[:, measured], atol=1e-4, rtol=1e-4)
    assert not part[:, ~measured].any()


def test_cells_as_deep_as_bulk_are_refused(bulk):
    bulk.X = np.round(bulk.X * 10)
    with pytest.raises(ValueError, match=r"look like bulk samples.*`ScDTL\(adata, bulk\)`"):
        ScDTL.setup_anndata(bulk)


def test_wrong_bulk_is_named(cells, bulk):
    ScDTL.setup_anndata(cells)
    with pytest.raises(ValueError, match="`bulk` is not set up: `ScDTL.setup_bulk_anndata"):
        ScDTL(cells, bulk)
    with pytest.raises(ValueError, match="Give bulk: `ScDTL"):
        ScDTL(cells)
    logs = bulk.copy()
    logs.X = np.log1p(logs.X)
    with pytest.raises(ValueError, match="looks like logarithms"):
        ScDTL.setup_bulk_anndata(logs)
    negative = bulk.copy()
    negative.X[1, 2] = -1
    with pytest.raises(ValueError, match="has a negative value in sample 'sample1', gene 'gene2'"):
        ScDTL.setup_bulk_anndata(negative)
    with pytest.raises(KeyError, match="There is no layer 'tpm'"):
        ScDTL.setup_bulk_anndata(bulk, layer="tpm")


def test_cells_and_bulk_that_are_swapped_are_named(cells, bulk):
    ScDTL.setup_anndata(cells)
    ScDTL.setup_bulk_anndata(bulk)
    with pytest.raises(
        ValueError, match="`adata` was set up as bulk. Were cells and bulk swapped"
    ):
        ScDTL(bulk, cells)
    with pytest.raises(
        ValueError, match="`bulk` was set up as cells. Were cells and bulk swapped"
    ):
        ScDTL(cells, cells)


def test_bulk_of_one_profile_is_refused(cells, bulk):
    twice = bulk[:2].copy()
    twice.X[1] = 3 * twice.X[0]
    for samples in (bulk[:1].copy(), twice):
        with pytest.raises(ValueError, match="with the same profile: scDTL learns differences"):
            build(cells, samples)


def test_bulk_without_common_genes_is_refused(cells, bulk):
    bulk.var_names = [f"ENSG{i:011d}" for i in range(N_GENES)]
    with pytest.raises(ValueError, match="genes in common"):
        build(cells, bulk)


@pytest.mark.parametrize(
    "arguments", [{"n_latent": 0}, {"n_hidden": -1}, {"mmd_weight": -0.1}, {"mmd_weight": np.nan}]
)
def test_sizes_and_weights_out_of_range_are_refused(cells, bulk, arguments):
    with pytest.raises(ValueError, match="give at least one unit per layer"):
        build(cells, bulk, **arguments)


@pytest.mark.parametrize("size", [0, -1.0, "cells", np.nan])
def test_a_library_size_that_is_none_is_refused(model, size):
    with pytest.raises(ValueError, match="is neither positive nor 'observed'"):
        model.get_imputed_values(library_size=size)


def test_genes_that_are_not_shared_are_refused(cells, bulk):
    with pytest.raises(ValueError, match="`genes` has 'TP53', which cells and bulk do not both"):
        build(cells, bulk, genes=["gene1", "TP53"])
