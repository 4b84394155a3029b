"""The report of a model says what `annotate` and its other verbs return."""

import json

import numpy as np
import pytest

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.report import Report


@pytest.fixture(scope="module")
def written(_trained, _cuts, tmp_path_factory):
    """A report of the query, and its files."""
    folder = tmp_path_factory.mktemp("report")
    cells = _cuts[1].copy()
    cells.obsm["X_umap"] = np.random.default_rng(0).normal(size=(cells.n_obs, 2))
    report = _trained.report(cells, folder / "out.html", name="blood", basis="X_umap")
    return report, folder


def test_the_files_hold_what_the_verb_returns(written):
    report, folder = written
    assert sorted(path.name for path in folder.iterdir()) == ["out.html", "out.json"]
    assert isinstance(report, Report)
    saved = json.loads((folder / "out.json").read_text())
    assert saved == json.loads(json.dumps(report.to_dict()))
    assert "<title>blood</title>" in (folder / "out.html").read_text()


@pytest.mark.filterwarnings("ignore:These cells differ")
def test_counts_are_those_of_annotate(written, model, query):
    report, _ = written
    frame = model.annotate(query)
    assert report.verdict.n_cells == query.n_obs
    assert report.verdict.n_novel == (frame["status"] == "novel").sum()
    counts = frame["label"].value_counts()
    assert {row.label: row.n_cells for row in report.types} == counts[counts > 0].to_dict()
    shift = model.get_shift(query)
    assert [row.distance for row in report.ground.shift] == pytest.approx(list(shift["distance"]))
    assert report.ground.n_held_out == len(model.calibration.truth)


def test_genes_are_those_of_get_markers(written, model, query):
    report, _ = written
    markers = model.get_markers(query, n_genes=5)
    for row in report.types:
        own = markers[(markers["group"] == row.label) & (markers["score"] > 0)]
        assert list(row.genes) == list(own["gene"])[:5]


def test_the_model_is_named_by_its_digest(written, model):
    report, _ = written
    assert report.provenance.digest == model.digest
    assert report.map.basis == "X_umap"
    assert report.comparisons[0].column == "cell_type"


def test_without_a_path_nothing_is_written_and_cells_stay_as_they_are(
    model, query, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = query.copy()
    report = model.report(query[:40].copy(), compare=[])
    assert report.comparisons == ()
    model.report(query[:1])
    assert list(tmp_path.iterdir()) == []
    assert list(query.obs) == list(before.obs)
    assert list(query.obsm) == []


def test_a_column_that_is_named_is_compared_if_it_has_the_batches(model, query):
    cells = query[:60].copy()
    cells.obs["donor_id"] = ["a", "b"] * 30
    report = model.report(cells, compare=["donor_id"])
    assert [row.column for row in report.comparisons] == ["donor_id"]


def test_cells_without_finite_coordinates_are_left_out_of_the_map(model, query, tmp_path):
    cells = query[:60].copy()
    cells.obsm["X_umap"] = np.random.default_rng(0).normal(size=(60, 2))
    cells.obsm["X_umap"][3, 0] = np.inf
    cells.obsm["X_umap"][7, 1] = np.nan
    report = model.report(cells, tmp_path / "out.html", basis="X_umap")
    assert (report.map.n_shown, report.map.n_unplaced, report.map.n_cells) == (58, 2, 60)
    assert "cells are left out of the map" in (tmp_path / "out.html").read_text()
    cells.obsm["X_umap"][:] = np.nan
    with pytest.raises(ValueError, match="has no finite coordinates"):
        model.report(cells, basis="X_umap")


def test_missing_markers_are_genes_that_the_query_lacks(model, query):
    cells = query[:60, ::2].copy()
    with pytest.warns(UserWarning, match="has only 150 of the model's 300 genes"):
        genes = model.report(cells).genes
    assert (genes.n_found, genes.n_genes) == (150, 300)
    assert genes.missing
    for row in genes.missing:
        assert not set(row.genes) & set(cells.var_names)


def test_a_place_that_is_taken_is_left_as_it_is(model, query, tmp_path):
    page = tmp_path / "out.html"
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"out\.json exists and was left as it is"):
        model.report(query[:20].copy(), page)
    assert not page.exists()
    model.report(query[:20].copy(), page, overwrite=True)
    assert json.loads((tmp_path / "out.json").read_text())["verdict"]["n_cells"] == 20
    with pytest.raises(ValueError, match=r"no name of a page: end it in '\.html'"):
        model.report(query, tmp_path / "out.pdf")


def test_a_failed_report_leaves_nothing(model, query, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr("scvi_sctab.report._write.render_page", fail)
    with pytest.raises(OSError, match="no space"):
        model.report(query[:20].copy(), tmp_path / "out.html")
    assert list(tmp_path.iterdir()) == []


def test_columns_and_coordinates_that_are_not_there_are_named(model, query):
    with pytest.raises(KeyError, match="`adata.obs` has no column 'leiden' to compare with"):
        model.report(query, compare=["leiden"])
    with pytest.raises(KeyError, match=r"`adata.obsm` has no 'X_umap'; it has \[\]"):
        model.report(query, basis="X_umap")
    query.obsm["X_one"] = np.zeros((query.n_obs, 1))
    with pytest.raises(ValueError, match="has shape .*, not two columns"):
        model.report(query, basis="X_one")


def test_cells_of_training_are_said(model, reference):
    report = model.report(reference[:300].copy())
    n_trained = int(model.trained_on(reference[:300]).sum())
    assert report.verdict.n_trained == n_trained > 0
    assert f"trained on {n_trained:,} of these cells" in report.verdict.sentences[2]


def test_an_ensemble_has_a_report(reference, query):
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    ensemble = SCTABEnsemble(reference, n_members=2)
    ensemble.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    report = ensemble.report(query[:120].copy())
    assert report.verdict.n_cells == 120
    assert report.genes.is_weighted


@pytest.mark.filterwarnings("ignore:These cells differ")
def test_populations_of_the_report_are_those_of_the_verb(written, model, query):
    report, _ = written
    table = model.get_novel_populations(query).sort_values("score", ascending=False, kind="stable")
    assert [row.population for row in report.populations] == list(table.index)
    assert [row.n_cells for row in report.populations] == list(table["n_cells"])
    assert [row.q_value for row in report.populations] == pytest.approx(list(table["q_value"]))
    assert [row.score for row in report.populations] == pytest.approx(list(table["score"]))
    for name in ("novel", "possible_cause"):
        assert [getattr(row, name) for row in report.populations] == list(table[name])
    genes = table["markers"].iloc[0].split(", ")
    assert report.populations[0].genes == tuple(genes[: len(report.populations[0].genes)])


def test_a_query_of_few_cells_has_no_populations(model, query):
    assert model.report(query[:60].copy()).populations == ()
