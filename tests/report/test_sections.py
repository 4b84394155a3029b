"""Sections of a report are what a count by hand gives."""

import base64
import zlib

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score, jaccard_score
from sklearn.neighbors import NearestNeighbors

from scvi_sctab.ontology import CellOntology, LabelHierarchy
from scvi_sctab.report import (
    _points,
    build_report,
    choose_cells,
    embed,
    find_annotators,
    find_batch,
)


def test_counts_by_status_are_those_of_the_frame(findings):
    made = findings(n_cells=500)
    report = build_report(made)
    frame, verdict = made.annotation, report.verdict
    assert verdict.n_confident == (frame["status"] == "confident").sum()
    assert verdict.n_novel == sum(row.n_cells for row in report.novel)
    assert verdict.n_novel == (frame["status"] == "novel").sum() < frame["novel"].sum()
    assert sum(row.n_novel for row in report.types) == verdict.n_novel
    assert verdict.n_novel_expected == 25
    for row in report.types:
        own = frame[frame["label"] == row.label]
        assert row.n_cells == len(own)
        assert row.n_ambiguous == (own["status"] == "ambiguous").sum()
        assert row.mean_probability == pytest.approx(own["probability"].mean())
    assert sum(row.share for row in report.types) == pytest.approx(1)
    assert f"{verdict.n_confident:,} of 500 cells" in verdict.sentences[0]
    assert len(verdict.sentences) == 3


def test_pairs_are_counted_where_a_set_holds_both(findings):
    made = findings(n_cells=500)
    sets = made.annotation["prediction_set"].astype(str).str.split(" | ", regex=False)
    both = sets.map(lambda labels: {"B", "NK"} <= {*labels})
    either = sets.map(lambda labels: bool({"B", "NK"} & {*labels}))
    (pair,) = build_report(made).pairs
    assert pair.labels == ("B", "NK")
    assert pair.n_cells == both.sum()
    assert pair.share == pytest.approx(both.sum() / either.sum())


def test_a_label_with_the_separator_is_one_label(findings):
    made = findings(labels=["a | b", "c", "d"], n_cells=200)
    (pair,) = build_report(made).pairs
    assert pair.labels == ("a | b", "c")


def test_agreement_with_clusters_is_that_of_scikit_learn(findings):
    made = findings(n_cells=300)
    labels = made.annotation["label"].astype(str)
    groups = labels.where(np.arange(300) % 3 > 0, "T")
    report = build_report(findings(n_cells=300, columns={"leiden": groups.astype("category")}))
    (found,) = report.comparisons
    assert found.rand_index == pytest.approx(adjusted_rand_score(groups, labels))
    assert found.share_same_name == pytest.approx((groups == labels).mean())
    for row in found.groups:
        expected = jaccard_score(groups == row.group, labels == row.label)
        assert row.jaccard == pytest.approx(expected)
        assert row.n_cells == sum(row.counts) == (groups == row.group).sum()


def test_a_category_named_none_has_no_missing_values():
    values = pd.Series(["None", None, "a", np.nan, "None"], dtype=object)
    packed = _points._categories("x", values)
    codes = [*zlib.decompress(base64.b64decode(packed["codes"]))]
    found = [packed["names"][code] for code in codes]
    assert found == ["None", "other or missing", "a", "other or missing", "None"]


def test_batches_are_compared_if_they_are_named(findings):
    columns = {"donor": pd.Series(list("abc") * 20), "leiden": pd.Series(list("xy") * 30)}
    found = build_report(findings(columns=columns, batch="donor")).comparisons
    assert [row.column for row in found] == ["leiden"]
    named = findings(columns=columns, batch="donor", compared=["donor"])
    assert [row.column for row in build_report(named).comparisons] == ["donor"]


def test_missing_markers_are_those_with_the_largest_weights(findings):
    made = findings()
    row = build_report(made).genes.missing[0]
    weights = made.gene_weights[list(made.labels).index(row.label)]
    missing = np.flatnonzero(~made.gene_found & (weights > 0))
    best = missing[weights[missing].argmax()]
    assert row.genes[0] == made.gene_names[best]
    assert row.share == pytest.approx(weights[missing].sum() / weights[weights > 0].sum())
    assert (row.n_missing, row.n_markers) == (len(missing), (weights > 0).sum())


def test_reliability_is_that_of_the_held_out_cells(findings):
    made = findings()
    ground = build_report(made).ground
    right = made.calibration.statistics["label"].to_numpy() == made.calibration.truth
    assert ground.n_held_out == 200 == sum(row.n_cells for row in ground.bins)
    assert ground.accuracy == pytest.approx(right.mean())
    wrong = sum(row.n_cells for row in ground.confusions)
    assert wrong <= (~right).sum()


def test_terms_are_nested_with_the_cells_below_them(findings):
    labels = ["B cell", "CD4 T", "CD8 T", "odd"]
    terms = {"B cell": "CL:0000236", "CD4 T": "CL:0000624", "CD8 T": "CL:0000625"}
    hierarchy = LabelHierarchy.build(labels, terms, CellOntology.load())
    made = findings(labels=labels, n_cells=200)
    frame = made.annotation.assign(
        term_id=made.annotation["label"].astype(str).map(terms).fillna("CL:0000000")
    )
    frame.loc[frame["label"] == "CD8 T", "term_id"] = "CL:0000084"  # T cell
    tree = build_report(
        findings(labels=labels, n_cells=200, annotation=frame, hierarchy=hierarchy)
    ).tree
    counts = frame["label"].value_counts()
    assert (tree.term_id, tree.n_cells, tree.n_stated) == ("CL:0000000", 200, counts["odd"])
    below = {node.term_id: node for node in tree.children}
    assert set(below) == {"CL:0000236", "CL:0000084"}
    t_cells = below["CL:0000084"]
    assert t_cells.n_cells == counts["CD4 T"] + counts["CD8 T"]
    assert t_cells.n_stated == counts["CD8 T"]
    assert {node.term_id for node in t_cells.children} == {"CL:0000624", "CL:0000625"}


def test_populations_are_shown_as_given(findings, render):
    populations = pd.DataFrame(
        {
            "population": ["P1", "P2"],
            "nearest_label": ["B", "T"],
            "n_cells": [12, 7],
            "p_value": [1e-9, np.nan],
            "markers": ["MS4A1, CD79A", ["CD3D"]],
        }
    )
    page, report, _ = render(findings(populations=populations))
    assert [row.genes for row in report.populations] == [("MS4A1", "CD79A"), ("CD3D",)]
    assert report.populations[1].p_value is None
    assert [row.novel for row in report.populations] == [None, None]
    assert "Populations of the cells, and the label that each is nearest to." in page.text
    assert not any(tag == "mark" for tag, _ in page.tags)
    assert ["populations.0.p_value", "1e-09", "1e-09"] in page.numbers
    with pytest.raises(ValueError, match="populations lack 'n_cells': pass a row per population"):
        build_report(findings(populations=populations.drop(columns="n_cells")))


def test_populations_are_sorted_by_score_with_a_mark_on_novel_ones(findings, render):
    populations = pd.DataFrame(
        {
            "nearest_label": ["B", "T", "B", "T"],
            "n_cells": [90, 60, 30, 20],
            "score": [0.0, 4.5, 1.25, np.nan],
            "novel": [False, True, False, False],
            "possible_cause": ["", "doublets of B and T", "low quality", np.nan],
        },
        index=pd.Index(["0", "1", "2", "3"], name="population"),
    )
    page, report, _ = render(findings(populations=populations))
    assert [row.population for row in report.populations] == ["1", "2", "0", "3"]
    assert [row.novel for row in report.populations] == [True, False, False, False]
    assert report.populations[3].score is None
    assert report.populations[3].possible_cause == ""
    assert ["populations.0.score", "4.5", "4.50"] in page.numbers
    assert len([tag for tag, _ in page.tags if tag == "mark"]) == 2  # one is the explanation
    assert "those marked novel stand out from every label" in page.text
    assert "perhaps doublets of B and T" in page.text


def test_no_cell_is_refused(findings):
    made = findings()
    with pytest.raises(ValueError, match="There is no cell to report on"):
        build_report(findings(annotation=made.annotation.iloc[:0]))


def test_cells_of_training_are_said(findings):
    report = build_report(findings(n_trained=20))
    assert "trained on 20 of these cells" in report.verdict.sentences[2]
    assert "trained on 20 of these cells" in report.ground.cautions[0]


def test_columns_with_labels_are_found_by_name_and_values():
    obs = pd.DataFrame(
        {
            "leiden": list("aabb"),
            "predicted_doublet": [True, False, True, True],
            "cell_type_ontology_term_id": list("xyxy"),
            "majority_voting_conf_score": [0.1, 0.2, 0.3, 0.4],
            "louvain": ["same"] * 4,
            "cell_type": list("abcd"),
            "sample": list("uuvv"),
        }
    )
    assert find_annotators(obs) == ["leiden", "predicted_doublet"]
    assert find_annotators(obs, own=["leiden"]) == ["predicted_doublet"]
    assert find_batch(obs) == "sample"
    assert find_batch(obs, "leiden") == "leiden"
    assert find_batch(obs[["louvain"]]) is None


def test_cells_are_spread_evenly_and_as_few_as_their_names_allow():
    names = [f"cell{i}" for i in range(1000)]
    chosen = choose_cells(names, 100)
    assert len(chosen) == 100
    assert (chosen[0], chosen[-1]) == (0, 999)
    assert np.diff(chosen).max() - np.diff(chosen).min() <= 1
    rng = np.random.default_rng(0)
    random = ["".join(row) for row in rng.choice(list("0123456789abcdef"), (20_000, 64))]
    assert 5_000 < len(choose_cells(random)) < 20_000


def test_neighbours_in_two_dimensions_are_of_one_group_in_small_ones_too(monkeypatch):
    monkeypatch.setattr("scvi_sctab.report._coordinates._N_LANDMARKS", 200)
    rng = np.random.default_rng(1)  # other numbers than those that draw the landmarks
    kind = rng.choice(3, p=[0.49, 0.49, 0.02], size=900)
    latent = rng.normal(size=(900, 8)) + 12 * np.eye(8)[kind]
    coordinates, method = embed(latent, kind)
    assert method == "t-SNE of the latent space of 200 cells, others placed by it"
    assert coordinates.shape == (900, 2)
    near = NearestNeighbors(n_neighbors=3).fit(coordinates).kneighbors(return_distance=False)
    same = (kind[near] == kind[:, None]).mean(axis=1)
    assert same.mean() > 0.99
    assert same[kind == 2].mean() > 0.9
    np.testing.assert_array_equal(embed(latent, kind)[0], coordinates)


@pytest.mark.parametrize("n_cells", [0, 1, 2, 10])
def test_few_cells_are_placed_by_their_components(n_cells):
    latent = np.random.default_rng(0).normal(size=(n_cells, 8))
    assert embed(latent)[0].shape == (n_cells, 2)
