"""What several annotators agree on, from the tables that they write."""

from io import StringIO

import pandas as pd
import pytest


@pytest.fixture
def tables(tmp_path):
    ours = pd.DataFrame({"label": ["B", "CD4 T cell", "NK"]}, ["a", "b", "c"])
    ours.rename_axis("barcode").to_csv(tmp_path / "annotations.csv")
    celltypist = pd.DataFrame(
        {"predicted_labels": ["B cells", "CD8 T cell", "NK"]}, ["a", "b", "c"]
    )
    celltypist.to_csv(tmp_path / "predicted_labels.csv")
    ranger = pd.DataFrame({"fine_cell_type": ["B cell", "T cell", "odd"]}, ["c", "b", "a"][::-1])
    ranger.rename_axis("barcode").to_csv(tmp_path / "cell_types.csv")
    return [tmp_path / f"{n}.csv" for n in ("annotations", "predicted_labels", "cell_types")]


def test_the_lowest_common_ancestor_of_three_tables(run, tables, tmp_path):
    done = run("consensus", *tables)
    assert done.code == 0, done.err
    frame = pd.read_csv(StringIO(done.out), index_col="barcode")
    assert list(frame["term"]) == ["B cell", "T cell", "natural killer cell"]
    assert frame.loc["c", "unmatched"] == f"{tables[2]}: odd"
    done = run("consensus", *tables, "-o", tmp_path / "agreed.csv")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "agreed.csv").read_text() == run("consensus", *tables).out


def test_terms_of_the_user_count(run, tables, tmp_path):
    terms = tmp_path / "terms.csv"
    terms.write_text("label,term_id\nodd,CL:0000623\n")
    done = run("consensus", *tables, "--terms", terms)
    frame = pd.read_csv(StringIO(done.out), index_col="barcode")
    assert frame["unmatched"].isna().all()


def test_columns_of_obs_are_named_after_the_file(run, path, query, tmp_path):
    done = run("consensus", f"{path}:cell_type", f"{path}:cell_type_ontology_term_id")
    assert done.code == 0, done.err
    frame = pd.read_csv(StringIO(done.out), index_col="barcode")
    assert list(frame.index) == list(query.obs_names)
    assert (frame["agreement"] == 1).mean() > 0.9
    done = run("consensus", path, path)
    assert done.code == 3
    assert f"{path}:COLUMN" in done.err


def test_what_is_no_consensus(run, tables, tmp_path):
    assert run("consensus", tables[0]).code == 2
    assert run("consensus", tables[0], tmp_path / "none.csv").code == 3
    other = tmp_path / "other.csv"
    pd.read_csv(tables[0]).assign(barcode=["x", "y", "z"]).to_csv(other, index=False)
    done = run("consensus", tables[0], other)
    assert done.code == 3
    assert "no cell in common" in done.err
