"""The graph against naive walks, and files that are not what they should be."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scvi_sctab import datasets, ontology
from scvi_sctab.ontology import ROOT, CellOntology, Term

OBO = """format-version: 1.2
data-version: mine

[Term]
id: CL:0000000
name: cell
is_a: CARO:0000000

[Term]
id: CL:0000001
name: round cell
synonym: "ball" EXACT []
synonym: "thing" RELATED []
is_a: CL:0000000 ! cell
is_a: GO:0000001

[Term]
id: CL:0000002
name: small round cell
is_a: CL:0000001
is_a: CL:0000003
relationship: part_of CL:0000004

[Term]
id: CL:0000003
name: obsolete flat cell
is_obsolete: true
replaced_by: CL:0000001

[Term]
id: CL:0000004
name: other cell
is_a: CL:0000000

[Term]
id: CARO:0000000
name: anatomy

[Term]
id: GO:0000001
name: process

[Typedef]
id: part_of
name: part of
"""

OWL = """<?xml version="1.0"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
  xmlns:owl="http://www.w3.org/2002/07/owl#" xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#">
<owl:Ontology rdf:about="http://purl.obolibrary.org/obo/cl.owl"/>
<owl:Class rdf:about="http://purl.obolibrary.org/obo/CL_0000000"><rdfs:label>cell</rdfs:label></owl:Class>
<owl:Class rdf:about="http://purl.obolibrary.org/obo/CL_0000001"><rdfs:label>round cell</rdfs:label>
<rdfs:subClassOf rdf:resource="http://purl.obolibrary.org/obo/CL_0000000"/></owl:Class>
</rdf:RDF>
"""


def naive_ancestors(ontology, term_id):
    found = set()
    for parent in ontology.terms[term_id].parents:
        found |= {parent} | naive_ancestors(ontology, parent)
    return found


def test_the_bundled_closure_is_that_of_a_naive_walk(bundled):
    assert len(bundled.terms) == 3324
    assert len(bundled.obsolete) == 272
    assert sum(len(term.parents) for term in bundled.terms.values()) == 4633
    for term_id in bundled.terms:
        assert bundled.ancestors(term_id) == naive_ancestors(bundled, term_id)


def test_descendants_are_the_other_side_of_ancestors(bundled):
    pairs = {(a, t) for t in bundled.terms for a in bundled.ancestors(t)}
    assert pairs == {(t, d) for t in bundled.terms for d in bundled.descendants(t)}


def test_a_term_is_neither_its_ancestor_nor_its_descendant(bundled):
    for term_id in bundled.terms:
        assert term_id not in bundled.ancestors(term_id) | bundled.descendants(term_id)


def test_every_term_of_the_bundled_data_is_live(bundled):
    for adata in (datasets.pbmc3k(), datasets.pbmc_kang18()):
        for term_id in adata.obs["cell_type_ontology_term_id"].unique():
            assert bundled.name(term_id)
            assert ROOT in bundled.ancestors(term_id)


def test_known_facts_of_immunology_hold(bundled):
    t, cd4, cd8, b, nk = "CL:0000084", "CL:0000624", "CL:0000625", "CL:0000236", "CL:0000623"
    assert {t, "CL:0000542", ROOT} <= bundled.ancestors(cd4)
    assert cd8 in bundled.descendants(t)
    assert b not in bundled.descendants(t)
    assert bundled.name(bundled.lowest_common_ancestor([cd4, nk])) == "lymphocyte"
    assert bundled.lowest_common_ancestor([t, cd4]) == t


def test_the_lowest_common_ancestor_is_below_all_other_common_ones(bundled):
    rng = np.random.default_rng(1)
    cells = sorted(bundled.descendants("CL:0000988"))
    for ids in rng.choice(cells, (60, 3)):
        lowest = bundled.lowest_common_ancestor(ids)
        common = set.intersection(*({i} | naive_ancestors(bundled, i) for i in ids))
        assert lowest in common
        assert not bundled.descendants(lowest) & common
        assert bundled.lowest_common_ancestor(ids[::-1]) == lowest


def test_the_lowest_common_ancestor_of_equals_has_most_ancestors_then_the_smallest_id():
    def ontology(**more):
        terms = {
            "CL:0000000": Term("cell"),
            "CL:0000001": Term("a", parents=("CL:0000000",)),
            "CL:0000002": Term("b", parents=("CL:0000000",)),
            "CL:0000003": Term("x", parents=("CL:0000001", "CL:0000002")),
            "CL:0000004": Term("y", parents=("CL:0000001", "CL:0000002")),
        }
        return CellOntology("made up", terms | more)

    assert ontology().lowest_common_ancestor(["CL:0000003", "CL:0000004"]) == "CL:0000001"
    deeper = {
        "CL:0000005": Term("above b", parents=("CL:0000000",)),
        "CL:0000002": Term("b", parents=("CL:0000005",)),
    }
    found = ontology(**deeper).lowest_common_ancestor(["CL:0000003", "CL:0000004"])
    assert found == "CL:0000002"


def test_common_ancestors_of_nothing_and_of_strangers_are_refused(small):
    with pytest.raises(ValueError, match="at least one term"):
        small.lowest_common_ancestor([])
    with pytest.raises(ValueError, match=r"B cell \(CL:0000005\), round nucleus .* share no"):
        small.lowest_common_ancestor(["CL:0000005", "CL:0000008"])


@pytest.mark.parametrize("ask", ["name", "ancestors", "descendants"])
def test_an_unknown_id_is_named_with_near_misses(small, ask):
    with pytest.raises(KeyError, match=r"'CL:0000012' is no term of .*: .* \(CL:000000\d\)"):
        getattr(small, ask)("CL:0000012")
    with pytest.raises(KeyError, match=r"'T cells' is no term .* misses: T cell \(CL:0000002\)"):
        getattr(small, ask)("T cells")
    with pytest.raises(KeyError, match=r"'CL:0000020' \(old T cell\) is obsolete.*T cell"):
        getattr(small, ask)("CL:0000020")


def test_it_cannot_be_changed(small):
    with pytest.raises(AttributeError, match="cannot assign"):
        small.version = "other"
    with pytest.raises(TypeError, match="does not support item assignment"):
        small.terms["CL:0000009"] = Term("intruder")


def test_a_circle_is_refused_when_it_is_made():
    terms = {
        ROOT: Term("cell"),
        "CL:0000001": Term("hen", parents=("CL:0000002",)),
        "CL:0000002": Term("egg", parents=("CL:0000001",)),
    }
    with pytest.raises(ValueError, match=r"circle: (CL:000000[12]) is a .* is a \1"):
        CellOntology("made up", terms)


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_keeps_live_cell_terms_and_is_a_edges_only(tmp_path, compress):
    path = tmp_path / "mine.obo"
    path.write_bytes(gzip.compress(OBO.encode()) if compress else OBO.encode())
    ontology = CellOntology.load(path)
    assert ontology.version == "mine"
    assert dict(ontology.terms) == {
        "CL:0000000": Term("cell"),
        "CL:0000001": Term("round cell", ("ball",), ("CL:0000000",)),
        "CL:0000002": Term("small round cell", (), ("CL:0000001",)),
        "CL:0000004": Term("other cell", (), ("CL:0000000",)),
    }
    assert ontology.obsolete["CL:0000003"] == ("flat cell", ("CL:0000001",))


def test_imports_of_a_file_are_not_followed(tmp_path):
    (tmp_path / "more.obo").write_text(OBO)
    path = tmp_path / "importing.obo"
    header = f"format-version: 1.2\nimport: {tmp_path / 'more.obo'}\n"
    path.write_text(f"{header}\n[Term]\nid: CL:0000000\nname: cell\n")
    assert list(CellOntology.load(path).terms) == ["CL:0000000"]


def test_owl_files_are_read(tmp_path):
    path = tmp_path / "cl.owl"
    path.write_text(OWL)
    ontology = CellOntology.load(path)
    assert ontology.ancestors("CL:0000001") == {"CL:0000000"}
    assert ontology.name("CL:0000001") == "round cell"


BAD_FILES = {
    "text": ("hello\n", "cannot be read as an ontology"),
    "empty": ("", "cannot be read as an ontology"),
    "a_line_without_a_value": (OBO.replace("name: cell\n", "name\n"), "cannot be read"),
    "xml": ("<a></a>", "cannot be read as an ontology"),
    "another_ontology": (OBO.replace("CL:", "UBERON:"), "no live terms with ids like CL:"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, kind):
    text, message = BAD_FILES[kind]
    path = tmp_path / "bad.obo"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        CellOntology.load(path)


def test_a_file_without_the_root_is_not_the_cell_ontology(tmp_path):
    path = tmp_path / "part.obo"
    path.write_text("format-version: 1.2\n\n[Term]\nid: CL:0000001\nname: round cell\n")
    with pytest.raises(ValueError, match=r"CL:0000000 \('cell'\) is missing"):
        CellOntology.load(path)


def test_a_truncated_archive_is_named(tmp_path):
    path = tmp_path / "cut.obo.gz"
    path.write_bytes(gzip.compress(OBO.encode() * 50)[:200])
    with pytest.raises(ValueError, match=r"cut\.obo\.gz cannot be read"):
        CellOntology.load(path)


@pytest.mark.parametrize("name", ["absent.obo", "."])
def test_a_missing_file_is_named_with_the_cure(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"no ontology file .* leave `path` out"):
        CellOntology.load(tmp_path / name)


def test_the_bundled_one_is_read_once():
    assert CellOntology.load() is CellOntology.load()


def test_importing_the_layer_imports_neither_the_parser_nor_a_network():
    package = str(Path(ontology.__file__).parents[1])
    code = f"""if True:
        import sys, types
        parent = sys.modules["scvi_sctab"] = types.ModuleType("scvi_sctab")
        parent.__path__ = [{package!r}]  # so that its own imports do not count
        import scvi_sctab.ontology
        assert not {{"pronto", "torch", "scvi"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
