"""Consensus of annotators."""

import time

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.ontology import CellOntology, consensus, read_labels


def judge(*labels, **arguments):
    columns = {f"a{i}": [label] for i, label in enumerate(labels)}
    return consensus(pd.DataFrame(columns), **arguments).iloc[0]


def test_the_term_is_the_lowest_common_ancestor_of_all_terms():
    ontology = CellOntology.load()
    found = judge("CD4 T cell", "CD8 T cell", "NK")
    expected = ontology.lowest_common_ancestor(["CL:0000624", "CL:0000625", "CL:0000623"])
    assert found["term_id"] == expected
    assert found["term"] == ontology.name(expected)


def test_the_label_is_what_most_say_and_kinds_of_it_agree():
    found = judge("CD4 T cell", "CL:0000624", "naive CD4 T cell", "B cell")
    assert found["label"] == "CD4-positive, alpha-beta T cell"
    assert found["agreement"] == 0.75
    assert found["n_matched"] == 4


def test_a_term_that_holds_the_others_is_preferred_among_equals():
    found = judge("T cell", "CD4 T cell", "CD8 T cell")
    assert found["label"] == found["term"] == "T cell"
    assert found["agreement"] == 1


def test_a_tie_gives_the_common_ancestor():
    found = judge("CD4 T cell", "CD8 T cell")
    assert found["label"] == found["term"] == "mature alpha-beta T cell"


def test_unmatched_labels_are_named_and_count_for_nothing():
    found = judge("NK", "my favourite cells", None)
    assert found["label"] == "natural killer cell"
    assert (found["agreement"], found["n_matched"]) == (1, 1)
    assert found["unmatched"] == "a1: my favourite cells"
    found = judge("my favourite cells", None)
    assert found[["label", "term", "term_id", "agreement"]].isna().all()
    assert found["n_matched"] == 0


def test_a_table_places_labels_that_do_not_match():
    table = {"my favourite cells": "CL:0000623"}
    assert judge("my favourite cells", "NK", table=table)["term_id"] == "CL:0000623"


def test_rows_are_in_the_order_of_the_cells():
    generator = np.random.default_rng(0)
    names = np.array(["NK", "B cell", "CD4 T cell", None, "nothing"], dtype=object)
    frame = pd.DataFrame(generator.choice(names, (200, 3)), columns=list("abc"))
    frame.index = [f"cell{i}" for i in generator.permutation(200)]
    found = consensus(frame)
    assert found.index.equals(frame.index)
    for cell in frame.index[:20]:
        alone = consensus(frame.loc[[cell]])
        pd.testing.assert_frame_equal(
            found.loc[[cell]].astype(object), alone.astype(object), check_dtype=False
        )


def test_a_million_cells_take_seconds():
    codes = np.random.default_rng(0).integers(0, 3, (1_000_000, 3))
    names = ["NK", "B cell", "CD4 T cell"]
    frame = pd.DataFrame(
        {f"a{i}": pd.Categorical.from_codes(c, names) for i, c in enumerate(codes.T)}
    )
    CellOntology.load()
    start = time.perf_counter()
    assert len(consensus(frame)) == 1_000_000
    assert time.perf_counter() - start < 10  # .3 s on an idle machine; a loop takes minutes


def test_what_is_no_table_of_annotators_is_refused():
    with pytest.raises(TypeError, match="column per annotator"):
        consensus(pd.Series(["NK"]))
    with pytest.raises(ValueError, match="column of its own"):
        consensus(pd.DataFrame(index=["cell"]))


LAYOUTS = {
    "cell_types.csv": (
        "barcode,coarse_cell_type,fine_cell_type\nA-1,T,CD4 T\nB-1,NK,NK\n",
        "CD4 T",
    ),
    "predicted_labels.csv": (
        ",predicted_labels,over_clustering,majority_voting\nA-1,Tem,3,T\nB-1,NK,2,NK\n",
        "T",
    ),
    "annotations.csv": ("barcode,label,probability\nA-1,B,0.9\nB-1,NK,1\n", "B"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_tables_of_other_tools_are_read(tmp_path, name):
    text, first = LAYOUTS[name]
    (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / name).to_dict() == {"A-1": first, "B-1": "NK"}


def test_the_column_can_be_named_and_a_wrong_one_is_refused(tmp_path):
    path = tmp_path / "predicted_labels.csv"
    path.write_text(LAYOUTS["predicted_labels.csv"][0])
    assert read_labels(path, "predicted_labels").loc["A-1"] == "Tem"
    with pytest.raises(KeyError, match="over_clustering"):
        read_labels(path, "votes")
    path.write_text("cell,score\nA,1\n")
    with pytest.raises(ValueError, match="column="):
        read_labels(path)
    path.write_text("cell,label\nA,T\nA,B\n")
    with pytest.raises(ValueError, match="duplicated.*'A'"):
        read_labels(path)
