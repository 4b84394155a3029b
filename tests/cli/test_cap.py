"""The layout of the Cell Annotation Platform is valid by its own schema, and says what annotate does."""

import importlib.metadata
import importlib.resources
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anndata import concat, read_h5ad

from scvi_sctab import SCTAB, datasets
from scvi_sctab.cli import _cap
from scvi_sctab.data.files import open_stored, write_annotated
from scvi_sctab.models import load
from scvi_sctab.ontology import CellOntology

OPTIONS = ("--columns", "cap", "--author", "Ada Lovelace", "--h5ad")
CELLTYPIST = Path(__file__).parents[1] / "model" / "celltypist" / "logistic.pkl"
pytestmark = pytest.mark.filterwarnings("ignore:These cells differ")


@pytest.fixture(scope="module")
def cells():
    return datasets.pbmc3k()[:120].copy()


@pytest.fixture(scope="module")
def annotation(cells):
    return load("pbmc", "cpu").annotate(cells)


@pytest.fixture
def made(run, cells, tmp_path):
    """Files of the command, with the ready-made model, which has Cell Ontology terms."""
    cells.write_h5ad(tmp_path / "blood.h5ad")
    done = run("annotate", tmp_path / "blood.h5ad", "-m", "pbmc", "-o", tmp_path / "out", *OPTIONS)
    assert done.code == 0, done.err
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["annotated.h5ad", "cap.json", "summary.json"]
    record = json.loads((tmp_path / "out" / "cap.json").read_text())
    return record, read_h5ad(tmp_path / "out" / "annotated.h5ad")


def test_the_file_is_valid_by_the_schema_of_the_platform(made):
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("cas_schema")
    file = importlib.resources.files("cas_schema") / "schemas" / "CAP_schema.json"
    schema = json.loads(file.read_text())
    validator = jsonschema.Draft202012Validator(schema)  # as the package itself checks
    assert [error.message for error in validator.iter_errors(made[0])] == []
    del made[0]["author_name"]
    assert not validator.is_valid(made[0])


def test_label_sets_hold_each_cell_once_with_the_label_and_term_of_annotate(made, annotation):
    record, _ = made
    assert [row["name"] for row in record["labelsets"]] == ["scvi_sctab", "scvi_sctab_term"]
    for labelset, column in (("scvi_sctab", "label"), ("scvi_sctab_term", "term")):
        rows = [row for row in record["annotations"] if row["labelset"] == labelset]
        found = {cell: row["cell_label"] for row in rows for cell in row["cell_ids"]}
        assert sum(len(row["cell_ids"]) for row in rows) == len(annotation)
        assert found == annotation[column].astype(str).to_dict()
        assert all(len(row["rationale"]) <= 2000 for row in rows)
    ontology = CellOntology.load()
    for row in record["annotations"]:
        assert row["cell_ontology_exists"]
        assert ontology.name(row["cell_ontology_term_id"]) == row["cell_ontology_term"]


def test_markers_are_those_of_get_markers_and_genes_of_the_file(made, cells):
    expected = load("pbmc", "cpu").get_markers(cells, n_genes=10)
    expected = expected[expected["score"] > 0].groupby("group")["gene"].agg(list).to_dict()
    rows = [row for row in made[0]["annotations"] if row["labelset"] == "scvi_sctab"]
    assert {row["cell_label"]: row["marker_gene_evidence"] for row in rows} == expected
    assert {gene for genes in expected.values() for gene in genes} <= set(cells.var_names)


def test_the_copy_has_the_columns_and_entries_of_the_encoding_for_anndata(made, cells, annotation):
    record, copy = made
    np.testing.assert_array_equal(copy.obs["scvi_sctab"], annotation["label"])
    np.testing.assert_array_equal(
        copy.obs["scvi_sctab_term--cell_ontology_term_id"], annotation["term_id"]
    )
    assert copy.obs["scvi_sctab--cell_ontology_exists"].dtype == bool
    first = next(row for row in record["annotations"] if row["labelset"] == "scvi_sctab")
    of_cell = copy.obs.loc[first["cell_ids"][0]]
    assert of_cell["scvi_sctab--marker_gene_evidence"] == ", ".join(first["marker_gene_evidence"])
    assert of_cell["scvi_sctab--rationale"] == first["rationale"]
    assert set(cells.obs) < set(copy.obs)
    metadata = copy.uns["cellannotation_metadata"]
    assert set(metadata) == {"scvi_sctab", "scvi_sctab_term"}
    assert metadata["scvi_sctab"]["annotation_method"] == "algorithmic"
    assert copy.uns["author_name"] == "Ada Lovelace"


def test_a_model_without_terms_has_one_label_set(run, folder, path, tmp_path):
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", *OPTIONS[:-1])
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "cap.json").read_text())
    assert [row["name"] for row in record["labelsets"]] == ["scvi_sctab"]
    assert not any(row["cell_ontology_exists"] for row in record["annotations"])


def test_genes_are_named_as_in_the_file(run, write, folder, query, tmp_path):
    symbols = list(query.var_names)
    path = write("column_of_symbols", query, tmp_path)  # Ensembl ids in var_names
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", *OPTIONS[:-1])
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "cap.json").read_text())
    genes = {gene for row in record["annotations"] for gene in row["marker_gene_evidence"]}
    assert genes
    assert genes <= {f"ENSG{i:011d}" for i in range(len(symbols))}


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_genes_outside_the_model_may_be_duplicated(run, folder, query, tmp_path):
    others = query[:, :2].copy()
    others.var_names = ["odd", "odd"]
    cells = concat([query, others], axis="var", merge="first")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    options = ("-m", folder, "-o", tmp_path / "out", *OPTIONS[:-1])
    done = run("annotate", tmp_path / "cells.h5ad", *options)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "cap.json").read_text())
    genes = {gene for row in record["annotations"] for gene in row["marker_gene_evidence"]}
    assert genes
    assert genes <= {*query.var_names}


def test_a_model_of_celltypist_has_no_markers(run, cells, tmp_path):
    SCTAB.from_celltypist(CELLTYPIST).save(tmp_path / "imported")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    options = ("-m", tmp_path / "imported", "-o", tmp_path / "out", *OPTIONS)
    done = run("annotate", tmp_path / "cells.h5ad", "--min-gene-overlap", "0.1", *options)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "cap.json").read_text())
    assert record["annotations"]
    for row in record["annotations"]:
        assert "marker_gene_evidence" not in row
        assert "Markers" not in row["rationale"]
    copy = read_h5ad(tmp_path / "out" / "annotated.h5ad")
    assert (copy.obs["scvi_sctab--marker_gene_evidence"] == "NA").all()


def test_names_of_terms_are_those_of_the_model(run, cells, tmp_path):
    model = load("pbmc", "cpu")
    names = np.array([f"{name} of 2031" for name in model.hierarchy.names])
    model.annotation = replace(model.annotation, hierarchy=replace(model.hierarchy, names=names))
    model.save(tmp_path / "later")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    options = ("-m", tmp_path / "later", "-o", tmp_path / "out", *OPTIONS[:-1])
    done = run("annotate", tmp_path / "cells.h5ad", *options)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "out" / "cap.json").read_text())
    assert {row["cell_ontology_term"] for row in record["annotations"]} <= {*names.tolist()}


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (("--columns", "cap"), "states who annotated the cells"),
        (("--author", "Ada Lovelace"), "--author does not apply without --columns cap"),
    ],
)
def test_the_author_is_given_for_this_layout_only(options, cause, run, folder, path, tmp_path):
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", *options)
    assert done.code == 2
    assert cause in done.err
    assert not (tmp_path / "out").exists()


def test_entries_of_uns_are_replaced_and_others_kept(cells, tmp_path):
    cells = cells[:5].copy()
    cells.uns = {"title": "old", "other": "kept"}
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with open_stored(tmp_path / "cells.h5ad") as stored:
        write_annotated(stored, stored.obs[[]], tmp_path / "copy.h5ad", uns={"title": "new"})
    found = read_h5ad(tmp_path / "copy.h5ad").uns
    assert dict(found) == {"title": "new", "other": "kept"}


def test_the_schema_version_is_that_of_the_package_that_is_checked_against():
    pytest.importorskip("cas_schema")
    assert importlib.metadata.version("cell-annotation-schema") == _cap._SCHEMA_VERSION
