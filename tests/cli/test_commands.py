"""Each command does what the method of its name does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad

from scvi_sctab import SCTAB, SCTABEnsemble, datasets, models
from scvi_sctab.cli.map import _name_batches

BRIEFLY = ("--max-epochs", "3", "--accelerator", "cpu")


def read(text, **arguments):
    from io import StringIO

    return pd.read_csv(StringIO(text), **arguments)


def test_evaluate_prints_or_writes_the_scores(run, folder, model, path, query, tmp_path):
    line = ("evaluate", path, "-m", folder, "--labels-key", "cell_type", "-q")
    done = run(*line)
    assert done.code == 0, done.err
    with pytest.warns(UserWarning, match="does not know"):
        expected = model.evaluate(query, "cell_type")
    printed = read(done.out, index_col="label")
    pd.testing.assert_frame_equal(printed, expected, check_names=False, check_dtype=False)
    assert "warning: The model does not know" in done.err
    table = tmp_path / "scores.csv"
    done = run(*line, "-o", table)
    assert (done.code, done.out) == (0, "")
    pd.testing.assert_frame_equal(pd.read_csv(table, index_col="label"), printed)
    assert run(*line, "-o", table).code == 2
    assert run(*line, "-o", table, "--overwrite").code == 0
    rows = run(*line, "--json").named("done")[0]["rows"]
    assert [row["label"] for row in rows] == list(printed.index)
    done = run("evaluate", path, "-m", folder, "--labels-key", "no_such")
    assert done.code == 3
    assert "no_such" in done.err


def test_markers_are_those_of_get_markers(run, folder, model, path, query):
    done = run("markers", path, "-m", folder, "--n-genes", 4)
    assert done.code == 0, done.err
    printed = read(done.out)
    expected = model.get_markers(query, n_genes=4)
    assert list(printed["gene"]) == list(expected["gene"])
    assert list(printed["group"]) == list(expected["group"])


def test_inspect_states_genes_counts_and_shift_and_writes_nothing(
    run, write, folder, model, query, tmp_path
):
    shift = model.get_shift(query)
    path = write("layer", query, tmp_path)
    done = run("inspect", path, "-m", folder)
    assert done.code == 0, done.err
    assert "528 cells, counts in layers['counts']" in done.out
    assert "300 of the model's 300 genes" in done.out
    assert all(f"{name}: distance" in done.out for name in shift.index)
    (facts,) = run("inspect", path, "-m", folder, "--json").named("inspection")
    assert facts["shift"].keys() == set(shift.index)
    for name, row in facts["shift"].items():
        assert row["distance"] == pytest.approx(shift.loc[name, "distance"])
    assert not any(label in done.out for label in model.labels)
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_of_few_labels_is_solved_and_reported(run, write, reference, tmp_path):
    cells = write("h5ad", reference[::3].copy(), tmp_path)
    out = tmp_path / "model"
    line = ("train", cells, "-o", out, "--labels-key", "cell_type", "--preset", "few")
    done = run(*line, "--ontology", "none", "--report")
    assert done.code == 0, done.err
    assert "Cells it has not seen: macro F1 0." in done.err
    assert SCTAB.load(out, adata=False).preset_ == "few"
    (page,) = out.glob("*.html")
    assert "nothing is known about cells" not in page.read_text()


def test_a_model_is_trained_and_a_query_mapped(run, write, reference, query, tmp_path):
    reference.layers["counts"] = reference.X
    reference.X = reference.X.log1p()
    source = tmp_path / "reference"
    source.mkdir()
    cells = write("h5ad", reference, source)
    out = tmp_path / "model"
    keys = ("--labels-key", "cell_type", "--batch-key", "donor_id", "--donor-key", "donor_id")
    line = ("train", cells, "-o", out, *keys, *BRIEFLY)
    done = run(*line)
    assert (done.code, done.out) == (0, ""), done.err
    assert "counts in layers['counts']" in done.err
    assert "Cells it has not seen: macro F1 0." in done.err
    model = SCTAB.load(out, adata=False)
    assert model.hierarchy is not None
    assert model.calibration is not None
    assert set(model.labels) == set(reference.obs["cell_type"])
    assert run(*line).code == 2  # it exists

    del query.obs["donor_id"]
    path = write("h5ad", query, tmp_path)
    saved = tmp_path / "adapted"
    done = run("map", path, "-m", out, "-o", tmp_path / "a", "--save", saved, "--h5ad", *BRIEFLY)
    assert done.code == 0, done.err
    frame = pd.read_csv(tmp_path / "a" / "annotations.csv", index_col=0)
    assert "reference_label" in frame
    adapted = SCTAB.load(saved, adata=False)
    query.obs["donor_id"] = "cells"
    np.testing.assert_array_equal(frame["label"], adapted.predict(query))
    done = run("map", path, "-m", out, "-o", tmp_path / "b", "--batch-key", "no_such")
    assert done.code == 3
    assert "no column 'no_such'" in done.err
    assert not (tmp_path / "b").exists()


def test_a_model_without_batches_maps_by_none(run, folder, path, tmp_path):
    done = run("map", path, "-m", folder, "-o", tmp_path / "out", "--batch-key", "batch")
    assert done.code == 2
    assert "trained without batches" in done.err


def test_an_ensemble_with_terms_of_a_table(run, write, reference, tmp_path):
    kept = reference[reference.obs["cell_type"].isin(["B", "NK", "CD14 Mono"])].copy()
    kept.obs["cell_type"] = kept.obs["cell_type"].astype(str).replace({"B": "my cells"})
    cells = write("h5ad", kept, tmp_path)
    terms = tmp_path / "terms.csv"
    terms.write_text("label,term_id\nmy cells,CL:0000236\n")
    out = tmp_path / "model"
    options = ("--labels-key", "cell_type", "--ensemble", "2", "--ontology", terms)
    done = run("train", cells, "-o", out, *options, *BRIEFLY)
    assert done.code == 0, done.err
    ensemble = SCTABEnsemble.load(out, adata=False)
    assert len(ensemble.members) == 2
    hierarchy = ensemble.hierarchy
    own = hierarchy.own[list(hierarchy.labels).index("my cells")]
    assert hierarchy.terms[own] == "CL:0000236"
    done = run("annotate", cells, "-m", out, "-o", tmp_path / "out")
    assert done.code == 0, done.err


def test_a_reference_is_refused_as_by_setup(run, path, tmp_path):
    done = run("train", path, "-o", tmp_path / "m", "--labels-key", "no_such")
    assert done.code == 3
    assert "no_such" in done.err
    assert not (tmp_path / "m").exists()


def test_a_pickled_model_is_converted_only_if_trusted(run, folder, path, model, query, tmp_path):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "model.pt").write_bytes((folder / "model.pt").read_bytes())
    line = ("convert", pickled, "-o", tmp_path / "safe")
    done = run(*line)
    assert done.code == 3
    assert "runs code" in done.err
    assert run(*line, "--allow-pickle").code == 0
    assert (tmp_path / "safe" / "model.safetensors").exists()
    loaded = SCTAB.load(tmp_path / "safe", adata=False)
    np.testing.assert_array_equal(loaded.predict(query), model.predict(query))


def test_a_published_checkpoint_needs_names(run, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run5.ckpt"
    checkpoint.write_bytes(b"")
    line = ("convert", checkpoint, "-o", tmp_path / "safe")
    done = run(*line)
    assert done.code == 2
    assert "--genes" in done.err
    assert run("convert", tmp_path / "none.ckpt", "-o", tmp_path / "safe").code == 4
    asked = {}

    class Imported:
        gene_names, labels = ["CD3D", "LYZ"], ["B", "T"]

        def save(self, out, overwrite):
            out.mkdir()

    def import_checkpoint(path, var_names, labels):
        asked.update(path=path, genes=var_names, labels=labels)
        return Imported()

    monkeypatch.setattr(SCTAB, "from_sctab_checkpoint", import_checkpoint)
    var = tmp_path / "var.parquet"
    pd.DataFrame({"feature_id": ["ENSG1", "ENSG2"], "feature_name": ["CD3D", "LYZ"]}).to_parquet(
        var
    )
    (tmp_path / "labels.txt").write_text("B\nT\n")
    names = ("--genes", var, "--labels", tmp_path / "labels.txt")
    assert run(*line, *names, "--symbols").code == 0
    assert asked == {"path": checkpoint, "genes": ["CD3D", "LYZ"], "labels": ["B", "T"]}
    assert run(*line, *names, "--overwrite").code == 1  # the toy's folder exists
    assert asked["genes"] == ["ENSG1", "ENSG2"]


def test_a_corpus_is_prepared_with_these_arguments(run, path, tmp_path, monkeypatch):
    from scvi_sctab.data import stores

    asked = {}

    def prepare(files, out, **arguments):
        asked.update(arguments, files=files, out=out)
        return range(528)

    monkeypatch.setattr(stores, "prepare_corpus", prepare)
    keys = ("--labels-key", "cell_type", "--donor-key", "a", "--donor-key", "b")
    done = run("corpus", path, "-o", tmp_path / "corpus", *keys, "--genes", "union")
    assert done.code == 0, done.err
    assert "528 cells" in done.err
    assert asked["files"] == [path]
    assert (asked["labels_key"], asked["donor_key"]) == ("cell_type", ["a", "b"])
    assert (asked["genes"], asked["layer"], asked["overwrite"]) == ("union", None, False)


def test_models_of_a_folder_are_found_by_name(run, folder, path, tmp_path, monkeypatch):
    monkeypatch.setenv("SCVI_SCTAB_MODELS", str(folder.parent))
    assert run("models", "path", "blood").out == f"{folder}\n"
    listed = run("models", "list").out.splitlines()
    assert listed[0].split() == ["name", "title", "species", "n_types", "n_genes", "n_cells"]
    assert [line.split()[0] for line in listed[1:]] == ["pancreas", "pbmc", "blood"]
    names = [record["name"] for record in json.loads(run("models", "list", "--json").out)]
    assert names == ["pancreas", "pbmc", "blood"]
    done = run("annotate", path, "-m", "blood", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["model"] == "blood"


def test_the_card_of_a_model_is_shown(run, folder, monkeypatch):
    shown = run("models", "show", "pancreas")
    assert shown.code == 0, shown.err
    assert shown.out.startswith("## `pancreas`: Pancreatic islets\n")
    assert json.loads(run("models", "show", "pancreas", "--json").out)["species"] == "Homo sapiens"
    monkeypatch.setenv("SCVI_SCTAB_MODELS", str(folder.parent))
    without = run("models", "show", "blood")
    assert without.code == 4
    assert "has no card.json" in without.err


def test_a_model_that_is_not_there_names_those_that_are(run):
    done = run("models", "path", "pancraes")
    assert done.code == 4
    assert "There is no model 'pancraes'" in done.err
    assert "models list" in done.err


TERMS = {
    "no such label": "label,term_id\nno such label,CL:0000236\n",
    "no such term": "label,term_id\nB,CL:9999999\n",
    "no such column": "label,term\nB,CL:0000236\n",
    "no such file": None,
}


@pytest.mark.parametrize("what", TERMS)
def test_terms_are_checked_before_training(what, run, write, reference, tmp_path, monkeypatch):
    cells = write("h5ad", reference, tmp_path)
    terms = tmp_path / "terms.csv"
    if TERMS[what] is not None:
        terms.write_text(TERMS[what])
    monkeypatch.setattr(SCTAB, "train", lambda *_, **__: pytest.fail("the model is trained"))
    line = ("train", cells, "-o", tmp_path / "model", "--labels-key", "cell_type")
    done = run(*line, "--ontology", terms)
    assert done.code == 3, done.err
    assert {"no such label": "no such label", "no such term": "CL:9999999"}.get(
        what, f"{terms} cannot be read"
    ) in done.err
    assert not (tmp_path / "model").exists()


def test_labels_that_no_term_matches_are_no_obstacle(run, write, reference, tmp_path):
    kept = reference[reference.obs["cell_type"].isin(["B", "NK"])].copy()
    kept.obs["cell_type"] = kept.obs["cell_type"].astype(str).replace({"B": "b1x", "NK": "n1x"})
    cells = write("h5ad", kept, tmp_path)
    out = tmp_path / "model"
    done = run("train", cells, "-o", out, "--labels-key", "cell_type", *BRIEFLY)
    assert done.code == 0, done.err
    assert "No Cell Ontology terms: " in done.err
    assert SCTAB.load(out, adata=False).hierarchy is None


def test_terms_that_are_set_before_training_are_saved(run, write, reference, tmp_path):
    cells = write("h5ad", reference, tmp_path)
    for ontology in ("auto", "none"):
        out = tmp_path / ontology
        options = ("--labels-key", "cell_type", "--ontology", ontology)
        assert run("train", cells, "-o", out, *options, *BRIEFLY).code == 0
        model = SCTAB.load(out, adata=False)
        assert (model.hierarchy is None) is (ontology == "none")
        assert model.calibration is not None


@pytest.mark.parametrize("name", ["pbmc", "pancreas"])
def test_a_ready_made_model_annotates(name, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = datasets.pbmc3k() if name == "pbmc" else datasets.pancreas_baron16()
    cells[:60].copy().write_h5ad("query.h5ad")
    line = ("annotate", "query.h5ad", "-m", name, "-o", name)  # results of the same name
    done = run(*line)
    assert done.code == 0, done.err
    assert len(pd.read_csv(f"{name}/annotations.csv")) == 60
    again = run(*line, "--overwrite")
    assert again.code == 0, again.err
    summary = json.loads((tmp_path / name / "summary.json").read_text())
    assert summary["model"] == name
    assert summary["model_digest"] == models.load(name, "cpu").digest
    done = run("annotate", "query.h5ad", "-m", f"./{name}", "-o", "other")
    assert done.code == 4
    assert f"The folder ./{name} holds no model" in done.err


def test_a_name_means_the_same_on_the_command_line_and_in_python(
    run, folder, tmp_path, monkeypatch
):
    (tmp_path / "models").mkdir()
    for name in ("pancreas", "listed", "models/listed", "own"):
        shutil.copytree(folder, tmp_path / name)
        card = {"name": name, "title": f"the one of {name}"}
        (tmp_path / name / "card.json").write_text(json.dumps(card))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCVI_SCTAB_MODELS", str(tmp_path / "models"))
    bundled = models.path("pancreas")
    assert bundled.parent != tmp_path
    expected = {
        "pancreas": bundled,
        "./pancreas": tmp_path / "pancreas",
        str(tmp_path / "pancreas"): tmp_path / "pancreas",
        "listed": tmp_path / "models" / "listed",
        "./listed": tmp_path / "listed",
        "models/listed": tmp_path / "models" / "listed",
        "own": tmp_path / "own",
    }
    for name, place in expected.items():
        assert run("models", "path", name).out == f"{place}\n"
        assert models.path(name).absolute() == place
        shown = json.loads(run("models", "show", name, "--json").out)
        assert shown["title"] == models.show(name)["title"]
        assert shown == json.loads((place / "card.json").read_text())


@pytest.mark.parametrize("key", [None, "site"])
def test_batches_of_a_query_are_in_the_column_of_the_reference_if_it_has_it(key):
    obs = pd.DataFrame({"donor": ["a", "b"], "site": ["x", "y"]})
    _name_batches(obs, {"batch_key": "donor"}, key, Path("query.h5ad"))
    assert list(obs["donor"]) == (["a", "b"] if key is None else ["x", "y"])
    del obs["donor"]
    _name_batches(obs, {"batch_key": "donor"}, key, Path("query.h5ad"))
    assert list(obs["donor"]) == (["query", "query"] if key is None else ["x", "y"])


def test_help_says_which_batches_are_taken(run):
    text = " ".join(run("map", "--help", env={"COLUMNS": "300"}).out.split())
    assert "the column that the reference was trained with, if the query has it" in text


def test_report_writes_a_page_and_its_numbers(run, folder, path, tmp_path):
    page = tmp_path / "pages" / "blood.html"
    asked = ("--compare", "cell_type", "--basis", "X_pca", "--json")
    cells = read_h5ad(path)
    cells.obsm["X_pca"] = np.random.default_rng(0).normal(size=(cells.n_obs, 3))
    path = tmp_path / path.name
    cells.write_h5ad(path)
    done = run("report", path, "-m", folder, "-o", page, *asked)
    assert done.code == 0, done.err
    assert done.named("done")[0]["files"] == [str(page), str(page.with_suffix(".json"))]
    saved = json.loads(page.with_suffix(".json").read_text())
    assert saved["title"] == path.stem
    assert saved["map"]["basis"] == "X_pca"
    assert [found["column"] for found in saved["comparisons"]] == ["cell_type"]
    assert saved["provenance"]["model"] == "blood"
    assert f"<title>{path.stem}</title>" in page.read_text()
    done = run("report", path, "-m", folder, "-o", page)
    assert done.code == 2
    assert "exists and was left as it is" in done.err
    done = run("report", path, "-m", folder, "-o", tmp_path / "p.html", "--basis", "X_umap")
    assert (done.code, "no 'X_umap' in obsm; it has ['X_pca']" in done.err) == (3, True)
    done = run("report", path, "-m", folder, "-o", tmp_path / "page.pdf")
    assert (done.code, "End it in .html" in done.err) == (2, True)


def test_train_writes_a_page_and_an_audit(run, write, reference, tmp_path):
    cells, out = write("h5ad", reference, tmp_path), tmp_path / "model"
    keys = ("--labels-key", "cell_type", "--donor-key", "donor_id", "--report", "--audit")
    done = run("train", cells, "-o", out, *keys, *BRIEFLY, "--json")
    assert done.code == 0, done.err
    names = ("", "audit.csv", "training.html", "training.json")
    assert done.named("done")[0]["files"] == [str(out / name) for name in names]
    saved = json.loads((out / "training.json").read_text())
    table = pd.read_csv(out / "audit.csv", index_col="barcode")
    assert saved["audit"]["n_issues"] == table["is_issue"].sum()
    assert set(table.index) == set(reference.obs_names)
    scores = table["score"].dropna()
    assert scores.is_monotonic_decreasing
    assert saved["title"] == cells.stem
    assert SCTAB.load(out, adata=False).digest == saved["provenance"]["digest"]
    done = run("train", cells, "-o", tmp_path / "m", *keys, "--ensemble", 2)
    assert (done.code, "not an ensemble" in done.err) == (2, True)


def test_annotate_writes_a_report_where_it_is_asked_for(run, folder, path, tmp_path):
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--report")
    assert done.code == 0, done.err
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"annotations.csv", "summary.json", "report.html", "report.json"}
    summary, saved = (
        json.loads((tmp_path / "out" / name).read_text())
        for name in ("summary.json", "report.json")
    )
    found = {row["label"]: row["n_cells"] for row in saved["types"]}
    assert found == summary["labels"]
    assert saved["verdict"]["n_novel"] == summary["status"]["novel"]
    done = run("annotate", path, "-m", folder, "-o", tmp_path, "--report", "--scheduler", "serial")
    assert (done.code, "--report does not apply with --scheduler" in done.err) == (2, True)


def test_annotate_writes_files_for_multiqc(run, folder, path, tmp_path):
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--multiqc", "-p", "s1.")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out" / "s1.types_mqc.json").read_text())["data"]
    summary = json.loads((tmp_path / "out" / "s1.summary.json").read_text())
    assert found == {"s1": summary["labels"]}
    assert (tmp_path / "out" / "s1.statistics_mqc.json").exists()
    run("annotate", path, "-m", folder, "-o", tmp_path / "own", "--multiqc")
    found = json.loads((tmp_path / "own" / "types_mqc.json").read_text())["data"]
    assert set(found) == {path.stem}


def test_a_model_outlives_its_audit_and_takes_the_place_of_older_pages(
    run, write, reference, tmp_path, monkeypatch
):
    path = write("h5ad", reference, tmp_path)
    out = tmp_path / "model"
    line = (
        "train",
        path,
        "-o",
        out,
        "--labels-key",
        "cell_type",
        "--max-epochs",
        1,
        "--overwrite",
    )
    out.mkdir()
    for name in ("audit.csv", "training.html", "training.json", "notes.txt"):
        (out / name).write_text("of before")

    def fail(self, **kwargs):
        raise ValueError("no fold")

    monkeypatch.setattr(SCTAB, "audit_labels", fail)
    done = run(*line, "--audit")
    assert done.code == 3, done.err
    assert "no fold" in done.err
    assert (out / "model.safetensors").exists()
    assert (out / "notes.txt").read_text() == "of before"
    assert not [*out.glob("training.*"), *out.glob("audit.csv")]
