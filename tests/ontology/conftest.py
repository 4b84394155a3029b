"""A small ontology whose answers can be read off."""

import pytest

from scvi_sctab.ontology import CellOntology, ObsoleteTerm, Term


def cl(number):
    return f"CL:{number:07d}"


@pytest.fixture
def small():
    """cell > lymphocyte > {T > {CD4, CD8, memory T}, B}; CD4 memory is a CD4 and a memory T."""
    terms = {
        cl(0): Term("cell"),
        cl(1): Term("lymphocyte", parents=(cl(0),)),
        cl(2): Term("T cell", ("T lymphocyte", "thymic one"), (cl(1),)),
        cl(3): Term("CD4 T cell", ("helper",), (cl(2),)),
        cl(4): Term("CD8 T cell", ("killer",), (cl(2),)),
        cl(5): Term("B cell", ("thymic one",), (cl(1),)),
        cl(6): Term("CD4 memory T cell", parents=(cl(3), cl(7))),
        cl(7): Term("memory T cell", ("B cell",), (cl(2),)),
        cl(8): Term("round nucleus"),
    }
    obsolete = {
        cl(20): ObsoleteTerm("old T cell", (cl(2),)),
        cl(21): ObsoleteTerm("no cell", ()),
    }
    return CellOntology("made up", terms, obsolete)


@pytest.fixture(scope="session")
def bundled():
    return CellOntology.load()
