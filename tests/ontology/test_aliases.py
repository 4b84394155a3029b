"""The table of usual names, and labels as a newcomer meets them."""

import pytest

from scvi_sctab.ontology import match_labels
from scvi_sctab.ontology._aliases import read_aliases
from scvi_sctab.ontology._spelling import spelling_of

ALIASES = read_aliases()

# Exact synonyms that people mostly use for another term, or for several. Each was looked at.
OVERRULED = {
    "CD16 Mono": "CD14-positive, CD16-positive monocyte",  # intermediate monocytes
    "alpha": "alpha retinal ganglion cell (Mmus)",
    "VIP": "striatal VIP GABAergic interneuron (Primate)",
    "LAMP5": "striatal LAMP5 CXCL14 GABAergic interneuron (Primate)",
    # Ambiguous ones match nothing; the term is one of their near misses.
    "DC2": "plasmacytoid dendritic cell",  # the name of 1999
    "IPC": "plasmacytoid dendritic cell",
    "Lymphoid DC": "plasmacytoid dendritic cell",
    "IC": "inferior cardiac neuron",  # of a crab, as the next three
    "GM": "gastric mill neuron",
    "LP": "lateral pyloric motor neuron",
    "PY": "pyloric motor neuron",
    "GBC": "globular bushy cell",
}
# Names of terms with one more word "cell" than the alias.
NARROWED = {"acinar": "acinar cell", "PP": "PP cell"}


def test_every_alias_stands_for_live_terms_by_their_names(bundled):
    assert len(ALIASES) > 200
    for alias in ALIASES:
        assert alias.term_ids
        assert tuple(map(bundled.name, alias.term_ids)) == alias.terms, alias.name


def test_no_two_aliases_have_the_same_words():
    by_words = {}
    for alias in ALIASES:
        by_words.setdefault(spelling_of(alias.name).words, []).append(alias.name)
    assert [names for names in by_words.values() if len(names) > 1] == []


def test_no_alias_is_the_name_or_synonym_of_another_term_but_for_those_listed(bundled):
    by_words = {spelling_of(alias.name).words: alias for alias in ALIASES}
    synonyms, names = {}, {}
    for term_id, term in bundled.terms.items():
        for text in (term.name, *term.synonyms):
            alias = by_words.get(spelling_of(text).words)
            if alias is not None and alias.term_ids != (term_id,):
                (names if text == term.name else synonyms)[alias.name] = term.name
    assert synonyms == OVERRULED
    assert names == NARROWED


def test_every_name_and_synonym_still_finds_its_term_but_for_those_listed(bundled):
    expected = {term.name: (t, "name") for t, term in bundled.terms.items()}
    for t, term in bundled.terms.items():
        for synonym in term.synonyms:
            if not bundled.with_name(synonym) and len(bundled.with_synonym(synonym)) == 1:
                expected[synonym] = (t, "synonym")
    frame = match_labels(list(expected), bundled)
    changed = {
        label: bundled.name(expected[label][0])
        for label, found in zip(frame.index, frame[["term_id", "matched_by"]].values, strict=True)
        if tuple(found) != expected[label]
    }
    literal = {
        "CD16 Mono": "CD16+ monocyte",
        "alpha": "alpha cell",
        "Lymphoid DC": "lymphoid dendritic cell",
    }
    assert changed == {literal.get(k, k): term for k, term in OVERRULED.items()}


def test_aliases_match_what_they_stand_for(bundled):
    frame = match_labels([alias.name for alias in ALIASES], bundled)
    for alias in ALIASES:
        found = frame.loc[alias.name]
        if len(alias.term_ids) == 1:
            assert found["term_id"] == alias.term_ids[0], alias.name
        else:
            assert found["term_id"] == ""
            assert found["near_misses"].startswith(bundled.describe(alias.term_ids[0]))


def test_an_alias_without_its_term_in_the_ontology_is_none(small):
    assert match_labels(["Treg", "NK"], small)["term_id"].tolist() == ["", ""]


# Fixed before the table was written: from the columns `cell_type` of public data sets (Kang 2018,
# pbmc3k, panc8), from Azimuth's and from CellTypist's labels of blood.
EVERYDAY = {
    "B": "CL:0000236",
    "NK": "CL:0000623",
    "DC": "CL:0000451",
    "Mk": "CL:0000556",
    "Eryth": "CL:0000764",
    "CD14 Mono": "CL:0001054",
    "CD16 Mono": "CL:0002396",
    "CD4 Memory T": "CL:0000897",
    "CD8 T": "CL:0000625",
    "T activated": "CL:0000084",
    "FCGR3A+ Mono": "CL:0002396",
    "Naive CD4 T": "CL:0000895",
    "Platelet": "CL:0000233",
    "B cells": "CL:0000236",
    "CD14+ Monocytes": "CL:0001054",
    "Dendritic cells": "CL:0000451",
    "Megakaryocytes": "CL:0000556",
    "myeloid DC": "CL:0000782",
    "acinar": "CL:0002064",
    "activated_stellate": "CL:0002410",
    "CD4 TCM": "CL:0000904",
    "CD8 TEM": "CL:0000913",
    "CD4 CTL": "CL:0000934",
    "Treg": "CL:0000815",
    "MAIT": "CL:0000940",
    "gdT": "CL:0000798",
    "ILC": "CL:0001065",
    "HSPC": "CL:0008001",
    "Plasmablast": "CL:0000980",
    "NK_CD56bright": "CL:0000938",
    "cDC2": "CL:0002399",
    "Classical monocytes": "CL:0000860",
    "Non-classical monocytes": "CL:0000875",
    "Memory B cells": "CL:0000787",
    "CD16+ NK cells": "CL:0000939",
    "Regulatory T cells": "CL:0000815",
    "Plasma cells": "CL:0000786",
    "Tem/Effector helper T cells": "",  # two types
    "Macrophages": "CL:0000235",
    "Fibroblasts": "CL:0000057",
    "pDC": "CL:0000784",
}


@pytest.mark.parametrize("label", EVERYDAY)
def test_everyday_labels_match_rightly(bundled, label):
    assert match_labels([label], bundled).loc[label, "term_id"] == EVERYDAY[label]


def test_labels_of_the_bundled_data_match_the_terms_of_their_authors_cells(bundled):
    from scvi_sctab import datasets

    for adata in (datasets.pbmc3k(), datasets.pbmc_kang18()):
        cells = adata.obs.drop_duplicates("cell_type")
        frame = match_labels(cells["cell_type"], bundled)
        assert frame["term_id"].tolist() == cells["cell_type_ontology_term_id"].tolist()
