"""Training of the encoder without labels."""

import numpy as np
import pandas as pd
import pytest
import torch

from scvi_sctab import SCTAB

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def build(adata, **kwargs):
    SCTAB.setup_anndata(adata, labels_key="cell_type", batch_key="donor_id")
    return SCTAB(adata, **kwargs)


def test_labels_do_not_matter_and_the_head_does_not_move(reference):
    shuffled = reference.copy()
    labels = reference.obs["cell_type"].to_numpy()
    shuffled.obs["cell_type"] = np.random.default_rng(0).permutation(labels)
    states = []
    for adata in (reference, shuffled):
        torch.manual_seed(0)
        model = build(adata)
        head = model.module.final_mapping.weight.detach().clone()
        torch.manual_seed(1)
        model.pretrain(max_epochs=2, **QUIET)
        assert not model.module.linear_skip.weight.any()
        assert torch.equal(model.module.final_mapping.weight, head)
        states.append(model.module.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], msg=name)


def test_hidden_genes_are_reconstructed_better_and_better(reference):
    model = build(reference)
    before = model.module.encoder.state_dict()[
        "initial_splitter.shared.glu_layers.0.fc.weight"
    ].clone()
    model.pretrain(max_epochs=60, **QUIET)
    losses = model.pretraining_history_["train_loss"].to_numpy().ravel()
    assert losses[-5:].mean() < 0.97 * losses[:5].mean()
    after = model.module.encoder.state_dict()["initial_splitter.shared.glu_layers.0.fc.weight"]
    assert not torch.equal(before, after)
    assert model.module.reconstruction is None
    with pytest.raises(RuntimeError, match="not trained"):
        model.predict()
    model.train(max_epochs=2, **QUIET)
    assert "validation_f1_macro" in model.history
    assert len(model.predict()) == reference.n_obs


def test_a_decoder_that_was_asked_for_stays_and_is_saved(reference, query, tmp_path):
    model = build(reference, reconstruction_weight=0.5)
    model.pretrain(max_epochs=1, **QUIET)
    bias = model.module.reconstruction.decoder.final_mapping.bias.detach().clone()
    model.train(max_epochs=2, **QUIET)
    assert not torch.equal(model.module.reconstruction.decoder.final_mapping.bias, bias)
    model.save(tmp_path / "saved")
    loaded = SCTAB.load(tmp_path / "saved", adata=False)
    pd.testing.assert_frame_equal(
        loaded.predict(query, soft=True), model.predict(query, soft=True), check_exact=True
    )


def test_surgery_by_reconstruction_trains_the_rows_of_the_query_only(reference):
    of_query = reference.obs["donor_id"].isin(["1488", "1015"]).to_numpy()
    query, reference = reference[of_query].copy(), reference[~of_query].copy()
    model = build(reference, reconstruction_weight=0.5)
    model.train(max_epochs=5, train_size=1, **QUIET)
    before = model.predict(soft=True)
    query.obs = query.obs[["donor_id"]]
    mapped = SCTAB.load_query_data(query, model)
    mapped.train(max_epochs=3, **QUIET)
    pd.testing.assert_frame_equal(mapped.predict(reference, soft=True), before, check_exact=True)
    moved = mapped.surgery_report().parameters.set_index("parameter")["new_moved"]
    assert moved["batch_embedding.rows.0"] > 0
    assert moved["reconstruction.batch_embedding.rows.0"] > 0
    assert mapped.surgery_report().reference_kept


def test_what_cannot_be_pretrained_says_so(reference, tmp_path):
    model = build(reference)
    model.save(tmp_path / "saved")
    with pytest.raises(ValueError, match="no AnnData to train on"):
        SCTAB.load(tmp_path / "saved", adata=False).pretrain()
    model.train(max_epochs=1, train_size=1, **QUIET)
    with pytest.raises(ValueError, match="trained already"):
        model.pretrain()
    frozen = build(reference, encoder="selu", freeze_encoder=True)
    with pytest.raises(ValueError, match="encoder of this model is frozen"):
        frozen.pretrain()
