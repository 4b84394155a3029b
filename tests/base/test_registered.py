"""What a model reads of its registry."""

from scvi_sctab.base import _registered
from scvi_sctab.pretrain import MaskedAutoencoder


def test_genes_are_checked_once_and_a_copy_is_given(unlabelled, monkeypatch):
    unlabelled.var_names = [f"ENSG{i:011}.3" for i in range(unlabelled.n_vars)]
    MaskedAutoencoder.setup_anndata(unlabelled)
    model = MaskedAutoencoder(unlabelled, widths=(16, 8))
    monkeypatch.setattr(_registered, "check_genes", lambda names: 1 / 0)
    names = model.gene_names
    assert names[0] == "ENSG00000000000"
    names[0] = "another"
    assert model.gene_names[0] == "ENSG00000000000"


def test_genes_are_those_of_the_registry_that_a_model_has_now(unlabelled):
    MaskedAutoencoder.setup_anndata(unlabelled)
    model = MaskedAutoencoder(unlabelled, widths=(16, 8))
    first = list(model.gene_names)
    other = unlabelled[:, ::-1].copy()
    MaskedAutoencoder.setup_anndata(other)
    model.registry_ = MaskedAutoencoder(other, widths=(16, 8)).registry
    assert list(model.gene_names) == first[::-1]
