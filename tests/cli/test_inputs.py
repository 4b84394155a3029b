"""The same cells have the same labels, whatever file they are in."""

import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scvi_sctab.data.files import (
    RefusedInputError,
    StoredCells,
    StoredMatrix,
    find_genes,
    find_query,
    open_stored,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:mudata"),
]

# Where genes and counts are found in each.
KINDS = {
    "h5ad": ("var_names", "X"),
    "dense": ("var_names", "X"),
    "by_columns": ("var_names", "X"),
    "zarr": ("var_names", "X"),
    "h5mu": ("var_names", "X"),
    "tenx": ("var_names", "X"),
    "tenx_of_version_2": ("var_names", "X"),
    "matrix_folder": ("var_names", "X"),
    "layer": ("var_names", "layers['counts']"),
    "raw": ("var_names", "raw.X"),
    "column_of_symbols": ("var['feature_name']", "X"),
    "genome_prefix": ("var_names", "X"),
    "names_of_r": ("var_names", "X"),
    "ids_and_symbols": ("var_names", "X"),
    "shuffled": ("var_names", "X"),
}


def annotate(run, folder, path, out, *options):
    done = run("annotate", path, "-m", folder, "-o", out, *options)
    assert done.code == 0, done.err
    frame = pd.read_csv(out / "annotations.csv", index_col="barcode")
    return frame, json.loads((out / "summary.json").read_text()), done.err


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_cells_have_the_same_labels(kind, run, write, folder, model, query, tmp_path):
    source, counts = KINDS[kind]
    expected = model.predict(query)
    cells = AnnData(query.X.copy(), query.obs[[]], query.var[[]])
    frame, summary, messages = annotate(
        run, folder, write(kind, cells, tmp_path), tmp_path / "out"
    )
    assert list(frame.index) == list(query.obs_names)
    np.testing.assert_array_equal(frame["label"], expected)
    assert summary["genes"]["source"] == source
    assert summary["genes"]["n_found"] == len(model.gene_names)
    assert summary["counts"] == counts
    assert f"counts in {counts}" in messages
    assert f"named in {source}" in messages


@pytest.mark.parametrize("version", ["", ".7"])
def test_a_table_of_gene_names_translates(version, run, write, folder, model, query, tmp_path):
    expected, symbols = model.predict(query), query.var_names
    cells = AnnData(query.X, query.obs[[]], query.var[[]])
    ids = [f"ENSG{i:011d}" for i in range(cells.n_vars)]
    cells.var_names = [f"{i}{version}" for i in ids]
    rows = zip(ids, symbols, strict=True)
    table = tmp_path / "genes.tsv"
    table.write_text("id\tsymbol\n" + "".join(f"{i}\t{name}\n" for i, name in rows))
    path = write("h5ad", cells, tmp_path)
    refused = run("annotate", path, "-m", folder, "-o", tmp_path / "none")
    assert refused.code == 3
    assert "gene table" in refused.err or "table of gene names" in refused.err
    frame, summary, _ = annotate(run, folder, path, tmp_path / "out", "--gene-table", table)
    np.testing.assert_array_equal(frame["label"], expected)
    assert summary["genes"]["n_from_table"] == query.n_vars


def test_an_ambiguous_row_of_the_table_translates_nothing():
    var = pd.DataFrame(index=["A", "B", "old"])
    found = find_genes(var, ["A", "B", "C", "D"], table=[["old", "C", "D"], ["other", "A"]])
    assert list(found.names) == ["A", "B", "old"]
    assert (found.n_found, found.from_table) == (2, 0)


def test_options_overrule_what_is_found(run, write, folder, model, query, tmp_path):
    cells = query.copy()
    cells.layers["shifted"] = cells.X[:, ::-1].copy()
    cells.var["reversed"] = list(cells.var_names[::-1])
    path = write("h5ad", cells, tmp_path)
    options = ("--layer", "shifted", "--gene-column", "reversed")
    frame, summary, _ = annotate(run, folder, path, tmp_path / "out", *options)
    np.testing.assert_array_equal(frame["label"], model.predict(query))
    assert (summary["counts"], summary["genes"]["source"]) == (
        "layers['shifted']",
        "var['reversed']",
    )


def test_the_layer_of_the_model_comes_first(query):
    places = ["X", "layers['other']", "layers['own']"]
    matrices = {place: StoredMatrix(query.X, query.var) for place in places}
    stored = StoredCells("file", "h5ad", query.obs, matrices)
    assert find_query(stored, own_layer="own").counts == "layers['own']"
    assert find_query(stored, own_layer="absent").counts == "X"


def test_the_first_of_duplicated_genes_is_taken_and_said(
    run, write, folder, model, query, tmp_path
):
    expected = model.predict(query)
    names = pd.DataFrame(index=[*query.var_names, query.var_names[0]])
    with pytest.warns(UserWarning, match="not unique"):
        cells = AnnData(sparse.hstack([query.X, query.X[:, -1:]]).tocsr(), query.obs, names)
    path = write("h5ad", cells, tmp_path)
    frame, summary, messages = annotate(run, folder, path, tmp_path / "out")
    np.testing.assert_array_equal(frame["label"], expected)
    assert summary["genes"]["duplicated"] == [query.var_names[0]]
    assert "the first of each is taken" in messages


def test_another_spelling_is_said_with_an_example(run, write, folder, query, tmp_path):
    query.var_names = [f"GRCh38_{name}" for name in query.var_names]
    _, summary, messages = annotate(run, folder, write("h5ad", query, tmp_path), tmp_path / "out")
    assert summary["genes"]["n_respelt"] == query.n_vars
    assert f"read 'GRCh38_{query.var_names[0][7:]}' as" in messages


def test_a_modality_is_chosen_by_name(run, write, folder, model, query, tmp_path):
    cells = AnnData(query.X.copy(), query.obs[[]], query.var[[]])
    path = write("h5mu", cells, tmp_path)
    done = run("annotate", path, "-m", folder, "-o", tmp_path / "out", "--modality", "prot")
    assert done.code == 3
    assert "0 of the model's 300 genes" in done.err


@pytest.fixture
def alike(query, tmp_path):
    """A file whose `X`, `raw` and layers of these names hold 1, 2, 3 and 4 times the counts."""
    cells = AnnData(query.X.copy(), query.obs[[]], query.var[[]])
    cells.raw = AnnData(query.X * 2, query.obs[[]], query.var[[]])
    cells.layers["raw"] = query.X * 3
    cells.layers["X"] = query.X * 4
    cells.write_h5ad(tmp_path / "alike.h5ad")
    return tmp_path / "alike.h5ad"


@pytest.mark.parametrize(
    ("layer", "times", "place"),
    [
        (None, 1, "X"),
        ("X", 1, "X"),
        ("raw.X", 2, "raw.X"),
        ("raw", 3, "layers['raw']"),
        ("layers['raw']", 3, "layers['raw']"),
        ("layers['X']", 4, "layers['X']"),
    ],
)
def test_matrices_of_one_name_are_kept_apart(layer, times, place, alike, query):
    with open_stored(alike) as stored:
        assert list(stored.matrices) == ["X", "layers['X']", "layers['raw']", "raw.X"]
        assert stored.name_matrices() == ["X", "layers['X']", "raw", "raw.X"]
        found = find_query(stored, layer=layer)
        assert found.counts == place
        assert f"counts in {place}" in found.describe()
        assert found.to_memory().X.sum() == times * query.X.sum()
        with pytest.raises(RefusedInputError, match="Name one that it has: 'X', \"layers"):
            find_query(stored, layer="counts")


def test_raw_is_that_of_the_file_without_a_layer_of_the_name(write, query, tmp_path):
    with open_stored(write("raw", query, tmp_path)) as stored:
        assert find_query(stored, layer="raw").counts == "raw.X"
        assert stored.find_place("layers['raw']") is None


def test_a_layer_named_x_is_found_where_there_is_no_x(query, tmp_path):
    cells = AnnData(obs=query.obs[[]], var=query.var[[]], layers={"X": query.X})
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with open_stored(tmp_path / "cells.h5ad") as stored:
        assert find_query(stored).counts == "layers['X']"
        assert find_query(stored, layer="X").counts == "layers['X']"
