"""What all self-supervised models do: train, save, load, map, vote, hand over."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from scvi_sctab import SCTAB
from scvi_sctab.pretrain import BYOL, BarlowTwins, MaskedAutoencoder
from scvi_sctab.train import RestoreBestWeights

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"widths": (32, 24, 8)}
MODELS = [MaskedAutoencoder, BarlowTwins, BYOL]


def trained(cls, adata, max_epochs=3, **arguments):
    cls.setup_anndata(adata)
    model = cls(adata, **SMALL, **arguments)
    model.train(max_epochs=max_epochs, **QUIET)
    return model


@pytest.mark.parametrize("cls", MODELS)
def test_both_forms_bring_a_model_back(cls, unlabelled, tmp_path):
    model = trained(cls, unlabelled)
    latent = model.get_latent_representation()
    assert latent.shape == (unlabelled.n_obs, 8)
    model.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", adata=False)
    np.testing.assert_array_equal(loaded.get_latent_representation(unlabelled), latent)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="runs code"):
        cls.load(tmp_path / "model")
    pickled = cls.load(tmp_path / "model", unlabelled, allow_pickle=True)
    np.testing.assert_array_equal(pickled.get_latent_representation(), latent)


def test_a_model_of_another_class_is_refused(autoencoder, tmp_path, reference):
    autoencoder.save(tmp_path / "model")
    with pytest.raises(ValueError, match="holds a MaskedAutoencoder, not a BYOL"):
        BYOL.load(tmp_path / "model")
    with pytest.raises(TypeError, match="is a MaskedAutoencoder, not a BarlowTwins"):
        BarlowTwins.load_query_data(reference, autoencoder)


def test_the_target_of_byol_moves_while_it_trains(unlabelled):
    BYOL.setup_anndata(unlabelled)
    model = BYOL(unlabelled, **SMALL)
    before = [p.clone() for p in model.module.target_encoder.parameters()]
    model.train(max_epochs=2, **QUIET)
    after = list(model.module.target_encoder.parameters())
    assert all((a != b).any() for a, b in zip(after, before, strict=True))
    assert not any(p.requires_grad for p in after)
    assert "validation_embedding_spread" in model.history


def test_without_held_out_cells_it_trains_on_all_and_keeps_the_last_weights(unlabelled):
    MaskedAutoencoder.setup_anndata(unlabelled)
    model = MaskedAutoencoder(unlabelled, **SMALL)
    before = [p.clone() for p in model.module.parameters()]
    model.train(max_epochs=2, train_size=1, **QUIET)
    assert len(model.history["train_loss"]) == 2
    assert "validation_loss" not in model.history
    after = list(model.module.parameters())
    assert any((a != b).any() for a, b in zip(after, before, strict=True))


@pytest.mark.filterwarnings("ignore:All cells look alike")  # it may collapse at this rate
def test_byol_whose_losses_do_not_compare_trains_to_its_end_and_keeps_the_last_weights(unlabelled):
    BYOL.setup_anndata(unlabelled)
    model = BYOL(unlabelled, **SMALL)
    # Worse from the first epoch on, by losses that are logged all the same.
    model.train(max_epochs=9, plan_kwargs={"lr": 1.0}, **QUIET)
    assert len(model.history["validation_loss"]) == 9
    assert not [c for c in model.trainer.callbacks if isinstance(c, RestoreBestWeights)]


def test_a_query_trains_on_from_the_weights_of_the_reference(autoencoder, query):
    before = autoencoder.get_latent_representation(query)
    model = MaskedAutoencoder.load_query_data(query, autoencoder)
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    assert list(model.adata.var_names) == list(autoencoder.gene_names)
    model.train(max_epochs=2, **QUIET)
    assert (model.get_latent_representation() != before).any()
    np.testing.assert_array_equal(autoencoder.get_latent_representation(query), before)


def test_neighbours_vote_as_those_of_scikit_learn(autoencoder, reference, query):
    labels = autoencoder.predict_knn(query, reference, "cell_type")
    known = autoencoder.get_latent_representation(reference)
    latent = autoencoder.get_latent_representation(query)
    truth = reference.obs["cell_type"].astype(str).to_numpy()
    voters = KNeighborsClassifier(5).fit(known, truth)
    np.testing.assert_array_equal(labels, voters.predict(latent))
    shares = autoencoder.predict_knn(query, reference, "cell_type", soft=True)
    assert shares.index.equals(query.obs_names)
    np.testing.assert_allclose(shares.to_numpy(), voters.predict_proba(latent))


def test_cells_without_a_label_do_not_vote(autoencoder, reference, query):
    hidden = reference.copy()
    some = np.arange(hidden.n_obs) % 2 == 0
    hidden.obs["cell_type"] = hidden.obs["cell_type"].astype(str).where(some, "unknown")
    labels = autoencoder.predict_knn(query, hidden, "cell_type")
    expected = autoencoder.predict_knn(query, reference[some].copy(), "cell_type")
    np.testing.assert_array_equal(labels, expected)
    with pytest.raises(ValueError, match="5 neighbours vote, but 3 cells"):
        autoencoder.predict_knn(query, reference[:3].copy(), "cell_type")
    with pytest.raises(ValueError, match="n_neighbors=0: at least one"):
        autoencoder.predict_knn(query, reference, "cell_type", n_neighbors=0)


def test_cells_that_would_vote_for_themselves_are_named(autoencoder, reference):
    with pytest.raises(
        ValueError, match=f"10 cells are in the reference.*{reference.obs_names[5]}"
    ):
        autoencoder.predict_knn(reference[5:15].copy(), reference, "cell_type")
    # Barcodes alone may coincide.
    other = reference[5:15].copy()
    other.obs_names = reference.obs_names[:10]
    rest = reference[20:].copy()
    rest.obs_names = [*reference.obs_names[:10], *rest.obs_names[10:]]
    assert len(autoencoder.predict_knn(other, rest, "cell_type")) == 10


def test_cells_are_asked_for_where_a_model_has_none(autoencoder, tmp_path):
    autoencoder.save(tmp_path / "model")
    loaded = MaskedAutoencoder.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match=r"MaskedAutoencoder\.load\(path, adata\)"):
        loaded.train()
    with pytest.raises(ValueError, match="say which cells"):
        SCTAB.from_pretrained(loaded, "cell_type")
    untrained = MaskedAutoencoder(registry=autoencoder.registry)
    with pytest.raises(RuntimeError, match="not trained"):
        untrained.get_latent_representation(autoencoder.adata)


def test_no_cells_at_a_time_and_no_epochs_are_refused(autoencoder, unlabelled):
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size={batch_size}: take at least one"):
            autoencoder.get_latent_representation(batch_size=batch_size)
    MaskedAutoencoder.setup_anndata(unlabelled)
    model = MaskedAutoencoder(unlabelled, **SMALL)
    for max_epochs in (0, -1):
        with pytest.raises(ValueError, match=f"max_epochs={max_epochs}: train for at least one"):
            model.train(max_epochs, **QUIET)
    with pytest.raises(ValueError, match="two cells per step.*batch_size=0"):
        model.train(batch_size=0, **QUIET)
    assert not model.is_trained


def test_a_class_is_no_model(reference):
    with pytest.raises(TypeError, match="takes a trained SCVI"):
        SCTAB.from_pretrained(MaskedAutoencoder, "cell_type", adata=reference)


def standardised(z):
    return (z - z.mean(axis=0)) / z.std(axis=0)


def test_sctab_starts_from_the_standardised_latent_space(autoencoder, reference):
    model = SCTAB.from_pretrained(autoencoder, "cell_type", adata=reference, linear_skip=False)
    model.is_trained_ = True
    latent = autoencoder.get_latent_representation(reference)
    np.testing.assert_allclose(
        model.get_latent_representation(), standardised(latent), rtol=1e-3, atol=1e-3
    )
    np.testing.assert_array_equal(autoencoder.get_latent_representation(reference), latent)


def test_a_frozen_encoder_stays_and_a_tuned_one_moves(autoencoder, reference):
    for frozen in (True, False):
        model = SCTAB.from_pretrained(
            autoencoder, "cell_type", freeze_encoder=frozen, adata=reference
        )
        before = {k: v.clone() for k, v in model.module.encoder.state_dict().items()}
        model.train(max_epochs=4, **QUIET)
        same = [torch.equal(v, before[k]) for k, v in model.module.encoder.state_dict().items()]
        assert all(same) is frozen
        assert any(same) is frozen


def test_a_frozen_encoder_classifies_cells_and_comes_back_from_disk(
    autoencoder, reference, tmp_path
):
    model = SCTAB.from_pretrained(
        autoencoder, "cell_type", freeze_encoder=True, adata=reference, linear_skip=False
    )
    model.train(max_epochs=40, **QUIET)
    labels = model.predict()
    truth = model.adata.obs["cell_type"].astype(str).to_numpy()
    majority = pd.Series(truth).value_counts(normalize=True).iloc[0]
    # Eight frozen dimensions after 30 epochs: .43, .40 and .49 with seeds 0 to 2, majority .31.
    assert (labels == truth).mean() > majority + 0.05
    model.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model", adata=False)
    np.testing.assert_array_equal(loaded.predict(reference), labels)
    assert not any(p.requires_grad for p in loaded.module.encoder.parameters())


def test_what_shapes_a_pretrained_encoder_is_not_changed(autoencoder, reference):
    build = partial(SCTAB.from_pretrained, autoencoder, "cell_type", adata=reference)
    with pytest.raises(ValueError, match=r"has widths=\(32, 24, 8\); leave widths out"):
        build(widths=(16, 8))
    with pytest.raises(ValueError, match="has encoder='selu'"):
        build(encoder="mlp")
    assert build(widths=[32, 24, 8]).module.encoder.n_output == 8


def test_a_pretrained_tabnet_keeps_its_attention(unlabelled, reference):
    MaskedAutoencoder.setup_anndata(unlabelled)
    tabnet = MaskedAutoencoder(unlabelled, encoder="tabnet")
    tabnet.train(max_epochs=2, **QUIET)
    model = SCTAB.from_pretrained(tabnet, "cell_type", adata=reference)
    weights = model.module.encoder.state_dict()
    for name, tensor in tabnet.module.encoder.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    model.train(max_epochs=2, **QUIET)
    assert model.get_attention(indices=range(5)).shape == (5, reference.n_vars)


def test_what_a_frozen_encoder_remembers_of_batches_stays_and_it_drops_nothing(
    unlabelled, reference
):
    MaskedAutoencoder.setup_anndata(unlabelled)
    tabnet = MaskedAutoencoder(unlabelled, encoder="tabnet")
    tabnet.train(max_epochs=2, **QUIET)
    model = SCTAB.from_pretrained(tabnet, "cell_type", freeze_encoder=True, adata=reference)
    before = {name: b.clone() for name, b in model.module.encoder.named_buffers()}
    assert before
    model.train(max_epochs=2, **QUIET)
    for name, buffer in model.module.encoder.named_buffers():
        assert torch.equal(buffer, before[name]), name
    model.module.train()
    assert not any(part.training for part in model.module.encoder.modules())
    assert model.module.final_mapping.training


def test_a_query_is_mapped_onto_a_model_with_a_pretrained_encoder(autoencoder, reference, query):
    model = SCTAB.from_pretrained(
        autoencoder, "cell_type", freeze_encoder=True, adata=reference, batch_key="condition"
    )
    model.train(max_epochs=10, **QUIET)
    before = model.predict(reference, soft=True)
    query.obs["condition"] = "pbmc3k"
    query.obs = query.obs[["condition"]].copy()
    mapped = SCTAB.load_query_data(query, model)
    mapped.train(**QUIET)
    np.testing.assert_allclose(mapped.predict(reference, soft=True), before, atol=1e-6)
    assert len(mapped.predict()) == query.n_obs


def test_what_brings_its_own_cells_takes_no_others(reference):
    from scvi.model import SCVI

    SCVI.setup_anndata(reference)
    model = SCVI(reference, n_latent=4, n_hidden=8)
    model.train(max_epochs=1, **QUIET)
    with pytest.raises(ValueError, match="brings its own cells and batches"):
        SCTAB.from_pretrained(model, "cell_type", adata=reference)
