"""Markers of real cells are those of the textbook, and house-keeping genes are none."""

import numpy as np
import pandas as pd
import pytest
import scvi

from scvi_sctab import SCTAB, datasets
from scvi_sctab.metrics import score_markers

N_GENES = 2500
HOUSE_KEEPING = {"FTL", "FTH1", "TMSB4X", "RPL28", "B2M", "MALAT1", "EEF1A1"}
TEXTBOOK = {
    "B": {"MS4A1", "CD79A"},
    "CD14 Mono": {"LYZ", "S100A8", "S100A9", "CD14"},
    "CD16 Mono": {"FCGR3A", "MS4A7"},
    "CD4 Naive T": {"IL7R", "CCR7", "LTB"},
    "CD8 T": {"CD8A", "CD8B", "CCL5"},
    "Mk": {"PPBP", "PF4"},
    "NK": {"NKG7", "GNLY"},
}


@pytest.fixture(scope="module")
def blood():
    """A model of blood cells of one study, and the cells of another."""
    reference, query = datasets.pbmc_kang18(), datasets.pbmc3k()
    genes = reference.var_names.intersection(query.var_names)
    reference, query = reference[:, genes], query[:, genes].copy()
    expressed = np.sort(np.argsort(-np.asarray(reference.X.sum(axis=0)).ravel())[:N_GENES])
    reference = reference[::2, expressed].copy()
    scvi.settings.seed = 0
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference)
    model.train(max_epochs=15, enable_progress_bar=False, accelerator="cpu")
    return model, query


def first(markers, column, n_genes):
    """Genes per group with the largest values."""
    best = markers.sort_values(column, ascending=False, kind="stable").groupby("group")
    return best.head(n_genes).groupby("group")["gene"].agg(set)


def test_markers_are_those_of_the_textbook(blood):
    model, query = blood
    markers = model.get_markers(query, n_genes=10)
    five, ten = first(markers, "score", 5), first(markers, "score", 10)
    for label, genes in TEXTBOOK.items():
        assert genes & five[label], (label, five[label])
    assert {"MS4A1", "CD79A"} <= ten["B"]
    assert not HOUSE_KEEPING & set.union(*ten)


def test_house_keeping_genes_contribute_most_where_specificity_is_left_out(blood):
    model, query = blood
    markers = model.get_markers(query, n_genes=len(model.gene_names))
    by_contribution = first(markers, "contribution", 10)
    assert len([g for genes in by_contribution for g in genes & HOUSE_KEEPING]) > 10


def test_each_column_is_what_it_says(blood):
    model, query = blood
    markers = model.get_markers(query, "cell_type", n_genes=len(model.gene_names))
    counts = query[:, model.gene_names].X.toarray().astype(float)
    expression = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    groups = query.obs["cell_type"].to_numpy()
    means = pd.DataFrame(expression, columns=model.gene_names).groupby(groups).mean()
    of_group = markers[markers["group"] == "NK"].set_index("gene").loc[model.gene_names]
    distance = np.linalg.norm(means - means.loc["NK"], axis=1)
    nearest = list(means.index[np.argsort(distance)[1:4]])
    assert set(of_group["nearest"]) == {", ".join(nearest)}
    expected = {
        "expression": means.loc["NK"],
        "expression_nearby": means.loc[nearest].mean(),
        "expression_elsewhere": means.drop("NK").mean(),
    }
    np.testing.assert_allclose(of_group[list(expected)], pd.DataFrame(expected), atol=1e-4)
    squares = pd.DataFrame(expression**2).groupby(groups).mean().to_numpy()
    n_cells = pd.Series(groups).value_counts().loc[means.index].to_numpy()
    found = score_markers(n_cells, np.zeros(means.shape), means.to_numpy(), squares)
    specificity = found.specificity[list(means.index).index("NK")]
    np.testing.assert_allclose(of_group["specificity"], specificity, atol=1e-4)
    assert of_group.loc[["GNLY", "NKG7", "GZMB"], "specificity"].min() > 0.5
    score = of_group["contribution"] * of_group["specificity"] ** 3
    np.testing.assert_allclose(of_group["score"], score)
    ranked = markers[markers["group"] == "NK"]
    assert ranked["score"].is_monotonic_decreasing
    unspecific = ranked[ranked["score"] == 0]
    assert unspecific["contribution"].is_monotonic_decreasing
    assert len(unspecific) > 10


def test_markers_do_not_depend_on_batches_or_the_order_of_cells(blood):
    model, query = blood
    cells = np.arange(0, query.n_obs, 3)
    expected = model.get_markers(query, indices=cells)
    found = model.get_markers(query, indices=cells[::-1], batch_size=100)
    by = ["group", "gene"]
    pd.testing.assert_frame_equal(
        found.sort_values(by, ignore_index=True), expected.sort_values(by, ignore_index=True)
    )


def test_with_one_group_markers_are_ranked_by_contribution_and_this_is_said(blood):
    model, query = blood
    with pytest.warns(UserWarning, match=r"one group, 'B'.*by contribution alone.*groupby="):
        markers = model.get_markers(query[query.obs["cell_type"] == "B"].copy(), "cell_type")
    assert len(markers) == 20
    np.testing.assert_array_equal(markers["score"], markers["contribution"])
    assert markers["score"].is_monotonic_decreasing
    assert (
        markers[["specificity", "expression_nearby", "expression_elsewhere"]].isna().all(axis=None)
    )
    assert markers["nearest"].isna().all()


def test_genes_that_the_query_lacks_are_no_markers(blood):
    model, query = blood
    lacking = query[:, ~query.var_names.isin(["PPBP", "GNLY"])].copy()
    markers = model.get_markers(lacking, n_genes=len(model.gene_names))
    absent = markers[markers["gene"].isin(["PPBP", "GNLY"])]
    assert (absent[["score", "specificity", "expression"]] == 0).all(axis=None)


def test_no_cells_have_no_markers(blood):
    model, query = blood
    assert len(model.get_markers(query, indices=[])) == 0


@pytest.mark.parametrize("n_genes", [0, -1])
def test_fewer_than_one_gene_is_refused(blood, n_genes):
    model, query = blood
    with pytest.raises(ValueError, match=f"n_genes={n_genes}: ask for at least one gene"):
        model.get_markers(query, n_genes=n_genes)
