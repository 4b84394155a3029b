"""Labels are matched by what they say, never by what they resemble."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scvi_sctab import datasets
from scvi_sctab.ontology import match_labels

# Names of the release of 2022 that the one of 2026 does not keep as synonyms; the ids are the same
# but for the one of CL:4023070, which is obsolete and names its replacement.
RENAMED = {
    "L2/3-6 intratelencephalic projecting glutamatergic cortical neuron": "CL:4023040",
    "caudal ganglionic eminence derived GABAergic cortical interneuron": "CL:4023064",
    "chandelier pvalb GABAergic cortical interneuron": "CL:4023036",
    "lamp5 GABAergic cortical interneuron": "CL:4023011",
    "pvalb GABAergic cortical interneuron": "CL:4023018",
    "sncg GABAergic cortical interneuron": "CL:4023015",
    "sst GABAergic cortical interneuron": "CL:4023017",
    "vip GABAergic cortical interneuron": "CL:4023016",
}


def row(label, ontology, **kwargs):
    return match_labels([label], ontology, **kwargs).loc[label].to_dict()


MATCHES = {
    "T cell": ("CL:0000002", "name"),
    "t CELL": ("CL:0000002", "name"),
    "  T   cell ": ("CL:0000002", "name"),
    "T lymphocyte": ("CL:0000002", "synonym"),
    "HELPER": ("CL:0000003", "synonym"),
    "CL:0000005": ("CL:0000005", "id"),
    "cl:0000005": ("CL:0000005", "id"),
    "CL_0000005": ("CL:0000005", "id"),
    "http://purl.obolibrary.org/obo/CL_0000005": ("CL:0000005", "id"),
}


@pytest.mark.parametrize("label", MATCHES)
def test_ids_names_and_synonyms_match(small, label):
    found = row(label, small)
    assert (found["term_id"], found["matched_by"]) == MATCHES[label]
    assert found["term"] == small.name(found["term_id"])
    assert found["near_misses"] == ""


def test_a_name_goes_before_a_synonym_of_another_term(small):
    assert small.with_synonym("B cell") == ("CL:0000007",)
    assert row("b cell", small)["term_id"] == "CL:0000005"


NEAR = {
    "thymic one": "T cell (CL:0000002); B cell (CL:0000005)",  # two terms have this synonym
    "CD8 T cells": "CD8 T cell (CL:0000004)",
    "B cells": "B cell (CL:0000005)",  # by its name, before the term with this synonym
    "CL:0000020": "obsolete, replaced by T cell (CL:0000002)",
    "old t cell": "obsolete, replaced by T cell (CL:0000002)",
    "CL:0000021": "obsolete, replaced by nothing",
    "xyzzy": "",
}


@pytest.mark.parametrize("label", NEAR)
def test_what_does_not_match_has_near_misses_and_no_term(small, label):
    found = row(label, small)
    assert found["near_misses"].startswith(NEAR[label])
    assert found["near_misses"].count("(CL:") <= 3
    assert (found["term_id"], found["term"], found["matched_by"]) == ("", "", "")
    assert NEAR[label] or not found["near_misses"]


def test_there_is_one_row_per_distinct_label_in_order_of_appearance(small):
    column = pd.Series(["T cell", "B cell", None, "T cell", np.nan, "odd"], dtype="category")
    frame = match_labels(column, small)
    assert list(frame.index) == ["T cell", "B cell", "odd"]
    assert frame.index.name == "label"
    assert list(frame.columns) == ["term_id", "term", "matched_by", "near_misses"]
    assert match_labels([], small).shape == (0, 4)


def test_the_table_goes_first_and_takes_ids_and_names(small):
    table = {"T cell": "CL:0000003", "mine": "b cell", "not there": "T cell"}
    frame = match_labels(["T cell", "mine", "t cell"], small, table)
    assert frame["term_id"].tolist() == ["CL:0000003", "CL:0000005", "CL:0000002"]
    assert frame["matched_by"].tolist() == ["table", "table", "name"]
    assert frame["term"].tolist() == ["CD4 T cell", "B cell", "T cell"]
    as_series = match_labels(["T cell", "mine", "t cell"], small, pd.Series(table))
    pd.testing.assert_frame_equal(frame, as_series)


@pytest.mark.parametrize(
    ("target", "near"),
    [
        ("CD4 T cells", r"CD4 T cell \(CL:0000003\)"),
        ("CL:0000020", r"obsolete, replaced by T cell \(CL:0000002\)"),
        ("thymic one", r"T cell \(CL:0000002\); B cell \(CL:0000005\)"),
        ("xyzzy", "none"),
    ],
)
def test_an_unknown_target_of_the_table_is_refused_with_near_misses(small, target, near):
    with pytest.raises(ValueError, match=rf"takes 'mine' to '{target}'.*Near misses: {near}"):
        match_labels(["T cell"], small, {"mine": target})


def test_the_bundled_ontology_is_the_default(bundled):
    frame = match_labels(["natural killer cell", "pDC", "NK cells"])
    assert frame["term_id"].tolist() == ["CL:0000623", "CL:0000784", ""]
    assert "natural killer cell (CL:0000623)" in frame.loc["NK cells", "near_misses"]


def test_the_ids_of_the_bundled_data_match_themselves(bundled):
    ids = datasets.pbmc_kang18().obs["cell_type_ontology_term_id"]
    frame = match_labels(ids, bundled)
    assert set(frame["matched_by"]) == {"id"}
    assert frame.index.tolist() == frame["term_id"].tolist()


def test_the_labels_of_sctab_match_or_are_reported(bundled):
    # The label list of theislab/scTab (MIT licence), of an ontology release of 2023.
    labels = json.loads((Path(__file__).parent / "cell_types_164.json").read_text())
    frame = match_labels(labels, bundled)
    print(frame["matched_by"].value_counts(), frame[frame["term_id"] == ""])
    assert len(frame) == 164
    assert frame["matched_by"].value_counts().to_dict() == {"name": 146, "synonym": 10, "": 8}
    unmatched = frame[frame["term_id"] == ""]
    assert (unmatched["near_misses"] != "").all()
    assert set(unmatched.index) == RENAMED.keys()
    for label, term_id in RENAMED.items():
        assert term_id in unmatched.loc[label, "near_misses"]
    assert (match_labels(labels, bundled, RENAMED)["term_id"] != "").all()
    for label, term in frame[frame["matched_by"] == "name"]["term"].items():
        assert label.casefold() == term.casefold()
