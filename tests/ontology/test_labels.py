"""Labels are matched by what they say, never by what they resemble."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scvi_sctab import datasets
from scvi_sctab.ontology import match_labels


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
    "cytotoxic CD8 T cells": "CD8 T cell (CL:0000004)",
    "activated B": "B cell (CL:0000005)",  # by its name, before the term with this synonym
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
        ("young CD4 T cells", r"CD4 T cell \(CL:0000003\)"),
        ("CL:0000020", r"obsolete, replaced by T cell \(CL:0000002\)"),
        ("thymic one", r"T cell \(CL:0000002\); B cell \(CL:0000005\)"),
        ("xyzzy", "none"),
    ],
)
def test_an_unknown_target_of_the_table_is_refused_with_near_misses(small, target, near):
    with pytest.raises(ValueError, match=rf"takes 'mine' to '{target}'.*Near misses: {near}"):
        match_labels(["T cell"], small, {"mine": target})


def test_all_wrong_targets_of_the_table_are_reported_at_once(small):
    table = {"mine": "CD4 T call", "yours": "B cell", "theirs": "CL:0000020", "ours": "xyzzy"}
    with pytest.raises(ValueError, match="takes 'mine' to 'CD4 T call'") as error:
        match_labels(["T cell"], small, table)
    lines = str(error.value).splitlines()
    assert [line.split("'")[1] for line in lines] == ["mine", "theirs", "ours"]
    assert "Near misses: CD4 T cell (CL:0000003)" in lines[0]
    assert "obsolete, replaced by T cell (CL:0000002)" in lines[1]
    assert "Near misses: none" in lines[2]


def test_the_bundled_ontology_is_the_default(bundled):
    frame = match_labels(["natural killer cell", "pDC", "odd NK cells"])
    assert frame["term_id"].tolist() == ["CL:0000623", "CL:0000784", ""]
    assert frame.loc["odd NK cells", "near_misses"].startswith("natural killer cell (CL:0000623)")


SPELLINGS = {
    "B cells": ("B cell", "normalised name"),
    "monocytes": ("monocyte", "normalised name"),
    "Astrocyte cells": ("astrocyte", "normalised name"),
    "Astrocytes": ("astrocyte", "normalised name"),
    "mast_cells": ("mast cell", "normalised name"),
    "Naïve B-cells": ("naive B cell", "normalised name"),
    "B cell, naive": ("naive B cell", "normalised name"),
    "memory.B": ("memory B cell", "normalised name"),
    "Plasma\u2011cells": ("plasma cell", "normalised name"),
    "γδ T cells": ("gamma-delta T cell", "normalised name"),
    "gamma/delta T": ("gamma-delta T cell", "normalised name"),
    "αβ T": ("alpha-beta T cell", "normalised name"),
    "CD14+ Monocytes": ("CD14-positive monocyte", "normalised name"),
    "CD14⁺ monocyte": ("CD14-positive monocyte", "normalised name"),
    "Monocytes (CD14 pos)": ("CD14-positive monocyte", "normalised name"),
    "CD4+ alpha-beta T cells": ("CD4-positive, alpha-beta T cell", "normalised name"),
    "CD14-negative, CD16+ monocyte": ("", ""),
    "Haematopoietic Stem Cells": ("hematopoietic stem cell", "normalised name"),
    "Type II pneumocytes": ("pulmonary alveolar type 2 cell", "normalised synonym"),
    "Cardiomyocytes": ("cardiac muscle cell", "normalised synonym"),
    "Ｔ　ｃｅｌｌｓ": ("T cell", "normalised name"),
    "Treg": ("regulatory T cell", "synonym"),
    "CD4+ T": ("CD4-positive, alpha-beta T cell", "alias"),
    "T cells, CD8+": ("", ""),  # a list of two, or an inverted name
}


@pytest.mark.parametrize("label", SPELLINGS)
def test_spellings_do_not_matter(bundled, label):
    found = row(label, bundled)
    assert (found["term"], found["matched_by"]) == SPELLINGS[label]


@pytest.mark.parametrize(
    "label",
    [
        *["T/NK cells", "B cells and plasma cells", "B, plasma", "CD4 + CD8 T", "Mono|DC"],
        *["B cells, plasma cells", "Mono/Mk Doublets", "T & B", "NK, T", "NK T"],
        *["B cells 1", "B cell-2", "cDC_1", "Monocytes 3"],  # numbers of clusters
        *["B cell?", "B-like", "not T", "low quality T cells", "Unknown", "doublet", "nan"],
        *["A", "C", "D", "G", "K", "P", "Heart", "Kidney", "Blood", "Hair", "Crypt", "Egg"],
        *[
            "CD14-CD16 monocyte",
            "CD8a/a",
            "Sst_Chodl",
            "CD16-",
            "EC cells",
            "K cells",
            "Stalk cells",
            "DC2",
        ],
        *["", " ", "-", "1", "+"],
    ],
)
def test_what_names_two_types_or_none_is_not_guessed(bundled, label):
    found = row(label, bundled)
    assert (found["term_id"], found["matched_by"]) == ("", "")


PLAUSIBLE = {
    "odd B": "B cell",
    "B cells 1": "B cell",
    "NK_dim": "natural killer cell",
    "Macrophages_1": "macrophage",
    "Megakar": "megakaryocyte",
    "Intestinal macrophages": "macrophage",
    "Perivascular-like": "perivascular cell",
    "Sst_Chodl": "sst chodl GABAergic interneuron",
    "GABA": "GABAergic neuron",
    "Astrocytess": "astrocyte",
    "Monocites": "monocyte",
    "B-cell class switched": "class switched memory B cell",
    "Central venous LSECs": "endothelial cell of hepatic sinusoid",
    "Fibro_1": "fibroblast",
    "stellate": "pancreatic stellate cell",
    "Exc_L6b": "glutamatergic neuron",
    "burster": "anterior burster neuron",  # of a crab, where nothing else is near
}


@pytest.mark.parametrize("label", PLAUSIBLE)
def test_near_misses_are_plausible_for_cells_of_blood_and_tissue(bundled, label):
    near = row(label, bundled)["near_misses"].split("; ")
    assert near[0].rpartition(" (")[0] == PLAUSIBLE[label]


@pytest.mark.parametrize("label", ["odd B", "A", "P", "IN-PV", "blood", "AB neuron", "stalk"])
def test_near_misses_are_of_vertebrates_if_there_are_any(bundled, label):
    near = row(label, bundled)["near_misses"]
    assert near
    for foreign in ("burster", "pyloric", "hemocyte", "Nematoda", "interfollicle", "fungal"):
        assert foreign not in near


def test_the_ids_of_the_bundled_data_match_themselves(bundled):
    ids = datasets.pbmc_kang18().obs["cell_type_ontology_term_id"]
    frame = match_labels(ids, bundled)
    assert set(frame["matched_by"]) == {"id"}
    assert frame.index.tolist() == frame["term_id"].tolist()


def test_the_labels_of_sctab_match(bundled):
    # The label list of theislab/scTab (MIT licence), of an ontology release of 2023.
    labels = json.loads((Path(__file__).parent / "cell_types_164.json").read_text())
    frame = match_labels(labels, bundled)
    assert len(frame) == 164
    # Eight names are of the release of 2022, and are aliases now.
    assert frame["matched_by"].value_counts().to_dict() == {"name": 146, "synonym": 10, "alias": 8}
    former = frame[frame["matched_by"] == "alias"]
    assert former.loc["vip GABAergic cortical interneuron", "term"] == "VIP GABAergic interneuron"
    for label, term in frame[frame["matched_by"] == "name"]["term"].items():
        assert label.casefold() == term.casefold()
