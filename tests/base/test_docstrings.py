"""Shared descriptions of parameters in docstrings."""

import inspect

import pytest

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.base import document_cells
from scvi_sctab.external import ProteinPredictor
from scvi_sctab.pretrain import MaskedAutoencoder


def test_entries_of_cells_are_described_and_nothing_else_changes():
    @document_cells
    def verb(adata=None, layer=None, weight=1):
        """Do something.

        Parameters
        ----------
        adata, layer
            As in :meth:`predict`.
        weight
            Weight of the cells.

        Raises
        ------
        ValueError
            As in :meth:`predict`.
        """

    lines = verb.__doc__.splitlines()
    assert lines[:2] == ["Do something.", ""]
    assert "adata, layer" not in lines
    assert lines[lines.index("layer") + 1].startswith("    Layer with the counts")
    assert lines[lines.index("weight") :] == [
        "weight",
        "    Weight of the cells.",
        "",
        "Raises",
        "------",
        "ValueError",
        "    As in :meth:`predict`.",
    ]


def test_a_parameter_without_a_shared_description_is_refused():
    def verb(adata=None, weight=1):
        """Do something.

        Parameters
        ----------
        adata, weight
            As in :meth:`predict`.
        """

    with pytest.raises(KeyError, match=r"No shared description of \['weight'\]"):
        document_cells(verb)


def test_a_function_without_a_docstring_is_left_alone():
    def verb(adata=None):
        pass

    assert document_cells(verb) is verb
    assert verb.__doc__ is None


@pytest.mark.parametrize(
    "verb",
    [
        SCTAB.annotate,
        SCTAB.get_novelty,
        SCTAB.get_markers,
        SCTAB.get_latent_representation,
        SCTABEnsemble.get_uncertainty,
        MaskedAutoencoder.get_latent_representation,
        MaskedAutoencoder.reconstruct,
        ProteinPredictor.predict_protein,
    ],
    ids=lambda verb: verb.__qualname__,
)
def test_verbs_describe_each_of_their_parameters(verb):
    lines = inspect.getdoc(verb).splitlines()
    for name in [*inspect.signature(verb).parameters][1:]:
        assert name in lines, name
        assert lines[lines.index(name) + 1].startswith("    ")
