"""Models restricted to the genes of a panel."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from scvi_sctab import SCTAB
from scvi_sctab._config import PANEL, PRESETS
from scvi_sctab.data import normalize_block
from scvi_sctab.metrics import f1_macro
from scvi_sctab.model._panel_refit import refit_to_panel
from scvi_sctab.model._panels import compare_confusions

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def panel(model):
    return np.random.default_rng(0).permutation(model.gene_names)[:60]


@pytest.fixture
def restricted(model, panel):
    return _restrict(model, panel)


def _restrict(model, genes):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Labels that the panel")
        return model.restrict(genes)


def test_the_model_reads_the_genes_of_the_panel_and_the_first_one_stays(model, panel):
    digest, state = model.digest, model.annotation
    restricted = _restrict(model, [*panel, "not a gene", panel[0]])
    assert model.digest == digest
    assert model.annotation is state
    assert set(restricted.gene_names) == set(panel)
    assert list(restricted.labels) == list(model.labels)
    assert restricted.adata.n_vars == 60
    assert restricted.panel_record.unknown_genes == ["not a gene"]
    assert (restricted.panel_record.n_genes, restricted.panel_record.n_genes_before) == (60, 300)
    again = _restrict(model, panel[::-1])
    assert again.digest == _restrict(model, panel).digest


def test_predictions_depend_on_the_genes_of_the_panel_only(restricted, query):
    altered = query.copy()
    counts = query.X.toarray()
    counts[:, ~query.var_names.isin(restricted.gene_names)] = 7
    altered.X = sparse.csr_matrix(counts)
    here, there = (restricted.predict(cells, soft=True) for cells in (query, altered))
    np.testing.assert_allclose(here, there, atol=1e-6)
    alone = query[:, query.var_names.isin(restricted.gene_names)].copy()
    np.testing.assert_allclose(here, restricted.predict(alone, soft=True), atol=1e-6)


def test_it_is_better_than_zeros_and_near_all_genes_on_held_out_cells(model, panel, restricted):
    held_out = model.adata[model.validation_indices]
    truth = held_out.obs["cell_type"].to_numpy(str)
    few = held_out[:, held_out.var_names.isin(panel)].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zeros = f1_macro(truth, model.predict(few, min_gene_overlap=0))
    record = restricted.panel_record
    assert record.macro_f1 > zeros + 0.1
    assert record.macro_f1_before == pytest.approx(f1_macro(truth, model.predict(held_out)))
    assert record.macro_f1 == pytest.approx(f1_macro(truth, restricted.predict(few)))


def test_cells_stay_on_their_side_of_the_split(model, restricted):
    for name in ("train_indices", "validation_indices"):
        before = model.adata.obs_names[getattr(model, name)]
        after = restricted.adata.obs_names[getattr(restricted, name)]
        assert set(after) == set(before)
    seen = restricted.trained_on(model.adata)
    assert seen.sum() == len(model.train_indices)
    assert restricted.calibration is not None
    with pytest.raises(ValueError, match="was trained on"):
        restricted.calibrate(model.adata, "cell_type")


@pytest.mark.parametrize("form", ["model.safetensors", "model.pt"])
def test_it_is_saved_and_loaded(restricted, query, tmp_path, form):
    restricted.save(tmp_path / "panel", save_anndata=True)
    other = {"model.safetensors": "model.pt", "model.pt": "model.safetensors"}[form]
    (tmp_path / "panel" / other).unlink()
    loaded = SCTAB.load(tmp_path / "panel", allow_pickle=form == "model.pt")
    assert loaded.digest == restricted.digest
    assert loaded.panel_record.confusions.equals(restricted.panel_record.confusions)
    first, second = (
        _quietly(cells.annotate, query)[["label", "probability", "prediction_set"]]
        for cells in (restricted, loaded)
    )
    assert first.equals(second)
    # It can be restricted further.
    assert len(_restrict(loaded, loaded.gene_names[:20]).gene_names) == 20


def _quietly(function, *args):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "These cells differ")
        return function(*args)


def test_there_is_a_report_and_explanations(restricted, query, tmp_path):
    _quietly(restricted.report, query, tmp_path / "page.html")
    assert (tmp_path / "page.html").exists()
    assert set(restricted.get_markers(query, n_genes=2)["gene"]) <= set(restricted.gene_names)


@pytest.mark.parametrize("arguments", [{"encoder": "mlp"}, {"linear_skip": False}, {}])
@pytest.mark.usefixtures("unguarded")
def test_any_encoder_layer_and_batches_are_kept(reference, query, arguments):
    reference.layers["counts"] = reference.X.copy()
    reference.X = reference.X * 0.5
    reference.obs["assay"] = np.where(np.arange(reference.n_obs) % 2, "a", "b")
    SCTAB.setup_anndata(reference, layer="counts", labels_key="cell_type", batch_key="assay")
    model = SCTAB(reference, **arguments)
    model.set_ontology()
    model.train(max_epochs=4, **QUIET)
    restricted = _restrict(model, reference.var_names[::4])
    assert restricted.layer == "counts"
    assert restricted.conditions == model.conditions
    assert restricted.hierarchy is model.hierarchy
    assert restricted.module.linear_skip.weight.shape == (len(model.labels), 75)
    query.obs["assay"] = "c"
    mapped = SCTAB.load_query_data(query, restricted, layer="X")
    mapped.train()
    assert len(mapped.predict()) == query.n_obs


def test_coarse_labels_stay_coarse(reference):
    cells = reference.obs["cell_type"].astype(str)
    is_t = cells.isin(["CD4 Naive T", "CD4 Memory T"]) & (np.arange(len(cells)) % 3 == 0)
    reference.obs["cell_type"] = cells.mask(is_t, "CD4 T")
    coarse = {"CD4 T": ["CD4 Naive T", "CD4 Memory T"]}
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference, coarse_labels=coarse)
    model.train(max_epochs=3, **QUIET)
    restricted = _restrict(model, reference.var_names[::4])
    assert restricted.coarse_labels == coarse
    assert "CD4 T" not in set(restricted.predict())


def test_cells_without_a_molecule_of_the_panel_are_left_out(model, query):
    counts = np.asarray((model.adata.X > 0).sum(axis=0)).ravel()
    rare = model.gene_names[np.argsort(counts)[:12]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        restricted = model.restrict(rare)
    expressed = np.asarray(model.adata[:, rare].X.sum(axis=1)).ravel() > 0
    assert list(restricted.adata.obs_names) == list(model.adata.obs_names[expressed])
    assert (~expressed).any()


def test_confusions_before_and_after_are_compared():
    truth = np.array(["B", "B", "B", "B", "T"])
    before = np.array(["B", "B", "B", "T", "T"])
    after = np.array(["T", "T", "B", "NK", "B"])
    table = compare_confusions(truth, before, after)
    assert table.to_numpy().tolist() == [
        ["T", "B", 1, 0.0, 1.0],
        ["B", "NK", 4, 0.0, 0.25],
        ["B", "T", 4, 0.25, 0.5],
    ]


def test_labels_that_a_panel_cannot_tell_apart_are_warned_about(model):
    t_cell_genes = [
        "CD3D",
        "CD3E",
        "LTB",
        "IL7R",
        "CD2",
        "RPS6",
        "RPL3",
        "B2M",
        "MALAT1",
        "TMSB4X",
    ]
    known = [gene for gene in t_cell_genes if gene in model.gene_names]
    shared = [*known, *[g for g in model.gene_names if g.startswith("RP")][: 12 - len(known)]]
    with pytest.warns(
        UserWarning, match=r"tells apart less well, on held-out cells: '.*taken for"
    ):
        restricted = model.restrict(shared)
    lost = restricted.panel_record.lost()
    assert ((lost["after"] - lost["before"]) >= 0.1).all()


def test_too_few_genes_name_the_cure(model, query):
    cure = re.escape("make a model of its genes: `model.restrict(query.var_names)`")
    few = query[:, :40].copy()
    with pytest.raises(ValueError, match=f"{cure}.*min_gene_overlap=0.13"):
        model.annotate(few)
    with pytest.warns(UserWarning, match=cure):
        model.predict(few, min_gene_overlap=0.1)


@pytest.mark.parametrize(
    ("genes", "kind", "message"),
    [
        (["LYZ", "nothing"], ValueError, "knows 1 of the 2 genes of the panel; it takes 10"),
        ([f"Gene{i}" for i in range(30)], ValueError, "knows 0 of the 30 genes"),
        ("CD3D", TypeError, "takes the names of genes, not a str"),
    ],
)
def test_panels_that_fit_nothing_are_refused(model, genes, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        model.restrict(genes)


def test_an_anndata_is_refused_with_the_line_to_type(model, query):
    with pytest.raises(TypeError, match=re.escape("`adata.var_names`")):
        model.restrict(query)


def test_models_that_cannot_be_restricted_say_why(model, reference, query, panel, tmp_path):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    with pytest.raises(RuntimeError, match="is not trained"):
        SCTAB(reference).restrict(panel)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"`SCTAB.load\(path, adata\)`.*train anew"):
        SCTAB.load(tmp_path / "model").restrict(panel)
    query.obs["cell_type"], query.obs["donor_id"] = "unknown", "other"
    loaded = SCTAB.load(tmp_path / "model", query)
    with pytest.raises(ValueError, match="trained on are not here"):
        loaded.restrict(panel)


def test_the_refit_reads_training_cells_only_and_takes_the_head_along(model, panel):
    restricted = _restrict(model, panel)
    layers = restricted.module.linear_skip, restricted.module.final_mapping
    before = [layer.weight.detach().clone() for layer in layers]
    assert not torch.equal(before[1], model.module.final_mapping.weight)
    held_out = np.zeros(restricted.adata.n_obs, bool)
    held_out[restricted.validation_indices_] = True
    counts = restricted.adata.X.toarray()
    counts[held_out] = counts[held_out][:, ::-1] + 1
    restricted.adata.X = sparse.csr_matrix(counts)
    refit_to_panel(restricted)
    for layer, weight in zip(layers, before, strict=True):
        torch.testing.assert_close(layer.weight.detach(), weight, atol=0.02, rtol=0.05)


def test_labels_of_which_some_cells_are_read_weigh_as_all_of_their_cells(reference, monkeypatch):
    """Cells of a label are copies of one, so that a draw has the minimum of all of them."""
    two = np.unique(reference.obs["cell_type"], return_index=True)[1][:2]
    # Two labels are of the same expression: their weights alone tell how probable they are.
    copies, labels = (
        two[np.repeat([0, 0, 1], [200, 40, 80])],
        np.repeat(["a", "b", "c"], [200, 40, 80]),
    )
    obs = pd.DataFrame({"cell_type": labels}, index=[f"c{i}" for i in range(len(labels))])
    cells = AnnData(reference.X[copies], obs, reference.var)
    SCTAB.setup_anndata(cells, labels_key="cell_type")
    model = SCTAB(cells)
    model.train(max_epochs=1, **QUIET)
    # Neither class-balanced, nor as frequent as in the draw.
    train = replace(PRESETS["small"].train, class_weight_power=0.5)
    monkeypatch.setitem(PRESETS, "small", replace(PRESETS["small"], train=train))
    found = []
    for n_read in (1000, 50):
        config = replace(PANEL, max_cells_per_label=n_read)
        monkeypatch.setattr("scvi_sctab.model._panel_refit.PANEL", config)
        refit_to_panel(model)
        x = torch.from_numpy(normalize_block(cells.X[:1]).toarray())
        paths = model.module.linear_skip(x), model.module.final_mapping(model.module.encoder(x)[0])
        found.append(torch.stack(paths).softmax(dim=-1)[:, 0].detach())
    torch.testing.assert_close(found[1], found[0], atol=2e-3, rtol=0.05)
    of_linear_path = found[0][0]  # which has a bias
    assert (of_linear_path[0] / of_linear_path[1]).item() == pytest.approx(np.sqrt(5), rel=0.05)


def test_a_query_model_names_the_reference(reference, query, panel):
    SCTAB.setup_anndata(reference, labels_key="cell_type", batch_key="donor_id")
    model = SCTAB(reference)
    model.train(max_epochs=1, **QUIET)
    query.obs["donor_id"] = "other"
    mapped = SCTAB.load_query_data(query, model)
    with pytest.raises(ValueError, match="restrict the reference's model"):
        mapped.restrict(panel)


def test_it_does_not_depend_on_what_was_drawn_before(model, panel):
    first = _restrict(model, panel)
    torch.rand(5)
    assert _restrict(model, panel).digest == first.digest
