"""What a registry says, without working it out at each access."""

import numpy as np
import pytest
from scvi import REGISTRY_KEYS

from scvi_sctab.base import RegisteredMixin, _registered


class Registered(RegisteredMixin):
    """A model that has a registry, and nothing else of a model."""

    registry = None

    def __init__(self, genes):
        state = {"column_names": np.array(genes, dtype=object)}
        self.registry = {"field_registries": {REGISTRY_KEYS.X_KEY: {"state_registry": state}}}

    @classmethod
    def setup_anndata(cls):
        """Do nothing."""

    def train(self):
        """Do nothing."""


GENES = [f"ENSG{i:011}" for i in range(12)]
VERSIONED = [f"{gene}.{i}" for i, gene in enumerate(GENES)]


def test_genes_are_read_once_for_a_registry(monkeypatch):
    model = Registered(VERSIONED)
    genes = model.gene_names
    assert list(genes) == GENES

    def refuse(_):
        raise AssertionError("Genes were read again.")

    monkeypatch.setattr(_registered, "check_genes", refuse)
    assert model.gene_names is genes


def test_genes_of_another_registry_are_read_anew():
    model = Registered(GENES)
    assert list(model.gene_names) == GENES
    model.registry = Registered(GENES[::-1]).registry
    assert list(model.gene_names) == GENES[::-1]


def test_genes_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        Registered(GENES).gene_names[0] = "TP53"
