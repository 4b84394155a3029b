"""A query of new batches trains columns of the decoder, and nothing else."""

import numpy as np
import pandas as pd
import pytest
import torch
from tests.external.svae.conftest import NETWORK, TRAINER, fit, reference_of

from scvi_sctab.external import SpikeSlabVAE
from scvi_sctab.external.svae._query import grow_columns

COLUMNS = "decoder.px_decoder.fc_layers.Layer 0.0.weight"


@pytest.fixture
def query(screen):
    """Cells of known perturbations, a third of them of a new batch."""
    names = screen.obs["perturbation"].astype(str)
    return screen[(~names.str.contains("+", regex=False) & (names != "P007")).to_numpy()].copy()


def test_known_cells_are_decoded_as_before(trained, query):
    mapped = SpikeSlabVAE.load_query_data(query, trained)
    known = query[query.obs["batch"] != "batch_2"].copy()
    pd.testing.assert_frame_equal(
        mapped.get_normalized_expression(known), trained.get_normalized_expression(known)
    )
    np.testing.assert_allclose(
        mapped.get_latent_representation(query), trained.get_latent_representation(query)
    )


def test_training_changes_the_columns_of_the_new_batch_alone(trained, query):
    mapped = SpikeSlabVAE.load_query_data(query, trained)
    before = {name: t.clone() for name, t in mapped.module.state_dict().items()}
    mapped.train(2, **TRAINER)
    after = mapped.module.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {COLUMNS}
    changed = (after[COLUMNS] != before[COLUMNS]).any(dim=0)
    assert changed.nonzero().ravel().tolist() == [changed.numel() - 1]
    assert all(p.requires_grad for p in mapped.module.parameters())


def test_a_query_has_no_stages(trained, query):
    mapped = SpikeSlabVAE.load_query_data(query, trained)
    assert mapped.n_controls_ == trained.n_controls_ > 0
    with pytest.raises(ValueError, match="A query model .* finetune_epochs=2 would have no eff"):
        mapped.train(finetune_epochs=2)


def test_a_query_model_is_saved_and_trained_on(trained, query, tmp_path):
    SpikeSlabVAE.load_query_data(query, trained).save(tmp_path / "query")
    loaded = SpikeSlabVAE.load(tmp_path / "query", query)
    before = {name: t.clone() for name, t in loaded.module.state_dict().items()}
    loaded.train(1, **TRAINER)
    after = loaded.module.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {COLUMNS}


def test_the_reference_may_be_a_path_and_genes_in_another_order(trained, query, tmp_path):
    trained.save(tmp_path / "reference")
    shuffled = query[:, ::-1].copy()
    mapped = SpikeSlabVAE.load_query_data(shuffled, tmp_path / "reference")
    assert [*mapped.gene_names] == [*trained.gene_names]
    np.testing.assert_allclose(
        mapped.get_latent_representation(), trained.get_latent_representation(query), atol=1e-5
    )


def test_new_columns_are_means_of_known_ones():
    weight = torch.tensor([[9.0, 1.0, 3.0, 5.0, 7.0]])
    grown = grow_columns(weight, [2, 2], [4, 2])
    assert grown.tolist() == [[9, 1, 3, 2, 2, 5, 7]]


def test_the_second_batch_of_a_model_of_one_gets_columns():
    grown = grow_columns(torch.tensor([[9.0, 8.0]]), [1], [2])
    assert grown.tolist() == [[9, 8, 0, 0]]


def test_a_model_of_one_batch_maps_a_second(screen):
    reference = reference_of(screen)
    one = reference[reference.obs["batch"] == "batch_0"].copy()
    setup = {"perturbation_key": "perturbation", "control_category": "control",
             "batch_key": "batch"}  # fmt: skip
    model = fit(one, setup)
    mapped = SpikeSlabVAE.load_query_data(reference, model)
    pd.testing.assert_frame_equal(
        mapped.get_normalized_expression(one), model.get_normalized_expression(one)
    )
    mapped.train(1, **TRAINER)
    pd.testing.assert_frame_equal(
        mapped.get_normalized_expression(one), model.get_normalized_expression(one)
    )


def test_a_reference_without_batches_is_refused(singles):
    model = fit(singles)
    with pytest.raises(ValueError, match="set up without `batch_key`"):
        SpikeSlabVAE.load_query_data(singles, model)


def test_a_query_of_known_batches_is_refused(trained):
    with pytest.raises(ValueError, match="knows every value"):
        SpikeSlabVAE.load_query_data(trained.adata.copy(), trained)


def test_a_query_without_the_column_is_refused(trained, query):
    del query.obs["batch"]
    with pytest.raises(KeyError, match="batch_key='batch'"):
        SpikeSlabVAE.load_query_data(query, trained)


def test_another_class_is_refused(trained, query):
    with pytest.raises(TypeError, match="The reference is a int"):
        SpikeSlabVAE.load_query_data(query, 3)


def test_an_untrained_reference_is_refused(singles, query):
    SpikeSlabVAE.setup_anndata(singles, "perturbation", batch_key="batch")
    with pytest.raises(RuntimeError, match="not trained"):
        SpikeSlabVAE.load_query_data(query, SpikeSlabVAE(singles, **NETWORK))
