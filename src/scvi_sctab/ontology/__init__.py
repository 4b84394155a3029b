"""The Cell Ontology: matching of labels to terms, and probabilities of terms."""

from scvi_sctab.ontology._cell_ontology import ROOT, CellOntology
from scvi_sctab.ontology._consensus import consensus
from scvi_sctab.ontology._hierarchy import LabelHierarchy
from scvi_sctab.ontology._label_files import read_labels
from scvi_sctab.ontology._labels import match_labels, wrong_targets
from scvi_sctab.ontology._reading import ObsoleteTerm, Term

__all__ = [
    "ROOT",
    "CellOntology",
    "LabelHierarchy",
    "ObsoleteTerm",
    "Term",
    "consensus",
    "match_labels",
    "read_labels",
    "wrong_targets",
]
