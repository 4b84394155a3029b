"""SCTAB on the latent space of SCVI and SCANVI, with surgery through their own covariates."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scvi.model import SCANVI, SCVI

from scvi_sctab import SCTAB

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
FOR_SURGERY = {"encode_covariates": True, "use_layer_norm": "both", "use_batch_norm": "none"}
SMALL = {"n_hidden": 24, "n_latent": 6}


@pytest.fixture(scope="module")
def halves(_cuts):
    adata = _cuts[0].copy()
    adata.obs["sample"] = (
        adata.obs["donor_id"].astype(str) + "_" + adata.obs["condition"].astype(str)
    )
    counts = adata.obs["cell_type"].value_counts()
    adata = adata[adata.obs["cell_type"].isin(counts.index[counts > 20])].copy()
    adata.obs["site"] = np.where(np.arange(adata.n_obs) % 2, "east", "west")
    of_query = adata.obs["condition"] == "stim"
    query = adata[of_query].copy()
    query.obs["site"] = np.where(np.arange(query.n_obs) % 3, "north", "west")
    return adata[~of_query].copy(), query


def trained(adata, setup, **network):
    SCVI.setup_anndata(adata, **setup)
    model = SCVI(adata, **SMALL, **network)
    model.train(max_epochs=80, **QUIET)
    return model


@pytest.fixture(scope="module")
def _scvi_model(halves):
    scvi.settings.seed = 0
    return trained(halves[0].copy(), {"batch_key": "sample"}, **FOR_SURGERY)


@pytest.fixture
def scvi_model(_scvi_model):
    """Shared: do not train it further."""
    return _scvi_model


@pytest.fixture
def unlabelled(halves):
    query = halves[1].copy()
    query.obs = query.obs[["sample", "site"]].copy()
    return query


def test_labels_are_learnt_on_the_latent_space_and_the_lower_bound_is_kept(scvi_model):
    latent = scvi_model.get_latent_representation()
    model = SCTAB.from_pretrained(scvi_model, "cell_type")
    model.train(max_epochs=60, **QUIET)
    truth = model.adata.obs["cell_type"].to_numpy().astype(str)
    majority = pd.Series(truth).value_counts(normalize=True).iloc[0]
    assert (model.predict() == truth).mean() > majority + 0.1
    assert model.get_latent_representation().shape == (len(truth), model.module.encoder.n_output)
    np.testing.assert_array_equal(scvi_model.get_latent_representation(), latent)
    before, after = scvi_model.module.state_dict(), model.module.space.vae.state_dict()
    decoder = [name for name in after if name.startswith("decoder.")]
    assert any(not torch.equal(before[name], after[name]) for name in decoder)


def test_a_frozen_encoder_stays_exactly_as_it_is(scvi_model):
    model = SCTAB.from_pretrained(scvi_model, "cell_type", freeze_encoder=True)
    model.train(max_epochs=3, **QUIET)
    before = scvi_model.module.state_dict()
    for name, tensor in model.module.space.vae.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_latent_read_is_that_of_the_model_it_came_from(scvi_model):
    model = SCTAB.from_pretrained(scvi_model, "cell_type", freeze_encoder=True)
    model.module.eval()
    counts = torch.tensor(model.adata.X[:50].toarray())
    codes = torch.from_numpy(model._conditions_of(model.adata)[:50])
    latent, loss = model.module.space(counts, codes)
    expected = scvi_model.get_latent_representation(model.adata, indices=np.arange(50))
    np.testing.assert_allclose(latent.detach().numpy(), expected, atol=1e-5)
    assert float(loss) == 0


def test_scanvi_hands_over_its_encoder_and_takes_labels_back(halves):
    scvi.settings.seed = 0
    adata = halves[0].copy()
    base = trained(adata, {"batch_key": "sample"})
    scanvi = SCANVI.from_scvi_model(base, "unknown", labels_key="cell_type")
    scanvi.train(max_epochs=3, **QUIET)
    model = SCTAB.from_pretrained(scanvi)
    assert list(model.labels) == sorted(adata.obs["cell_type"].unique())
    model.train(max_epochs=40, **QUIET)
    annotation = model.annotate()
    sure = annotation["probability"] > annotation["probability"].median()
    labels = annotation["label"].astype(str).where(sure, "unknown")
    labels = labels.where(labels.map(labels.value_counts()) > 5, "unknown")
    adata.obs["sctab"] = labels.to_numpy()
    again = SCANVI.from_scvi_model(base, "unknown", labels_key="sctab")
    again.train(max_epochs=1, **QUIET)
    assert set(again.predict()) <= set(model.labels)


@pytest.mark.parametrize(
    ("setup", "network"),
    [
        pytest.param({"batch_key": "sample"}, {}, id="batch"),
        pytest.param(
            {"batch_key": "sample", "categorical_covariate_keys": ["site"]}, {}, id="covariate"
        ),
        pytest.param({"categorical_covariate_keys": ["site"]}, {}, id="covariate only"),
        pytest.param({"batch_key": "condition"}, {}, id="one batch"),
        pytest.param({"batch_key": "sample"}, {"dispersion": "gene-batch"}, id="dispersion"),
        pytest.param(
            {"batch_key": "sample", "categorical_covariate_keys": ["site"]},
            {"batch_representation": "embedding"},
            id="embedding",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Not adapted")
@pytest.mark.usefixtures("unguarded")
def test_surgery_leaves_the_reference_exactly(halves, setup, network):
    scvi.settings.seed = 0
    reference, query = halves[0].copy(), halves[1].copy()
    base = trained(reference, setup, **FOR_SURGERY, **network)
    model = SCTAB.from_pretrained(base, "cell_type")
    model.train(max_epochs=3, **QUIET)
    del query.obs["cell_type"]
    before = model.predict(soft=True)
    mapped = SCTAB.load_query_data(query, model)
    pd.testing.assert_frame_equal(mapped.predict(reference, soft=True), before, rtol=1e-5)
    untrained = mapped.predict(soft=True)
    old = {name: tensor.clone() for name, tensor in mapped.module.state_dict().items()}
    mapped.train(max_epochs=3, **QUIET)
    assert (mapped.predict(reference, soft=True) - before).abs().to_numpy().max() < 1e-6
    assert (mapped.predict(soft=True) - untrained).abs().to_numpy().max() > 1e-4
    assert mapped.surgery_report().reference_kept
    for name, tensor in mapped.module.state_dict().items():
        assert name in mapped.surgery_["new_entries"] or torch.equal(tensor, old[name]), name


@pytest.mark.filterwarnings("ignore:Not adapted")
@pytest.mark.usefixtures("unguarded")
def test_no_policy_moves_a_frozen_encoder(scvi_model, unlabelled):
    model = SCTAB.from_pretrained(scvi_model, "cell_type", freeze_encoder=True)
    model.train(max_epochs=1, **QUIET)
    mapped = SCTAB.load_query_data(unlabelled, model, policy="all")
    old = {name: tensor.clone() for name, tensor in mapped.module.state_dict().items()}
    mapped.train(max_epochs=1, **QUIET)
    new = mapped.module.state_dict()
    assert not torch.equal(new["final_mapping.weight"], old["final_mapping.weight"])
    assert all(torch.equal(new[name], old[name]) for name in old if name.startswith("space."))


def test_genes_cannot_be_asked_of_a_latent_space(scvi_model):
    model = SCTAB.from_pretrained(scvi_model, "cell_type", freeze_encoder=True)
    model.train(max_epochs=1, **QUIET)
    delete = partial(model.deletion_test, {})
    for ask in (model.get_attention, model.get_markers, model.get_attributions, delete):
        with pytest.raises(ValueError, match="attends to no genes"):
            ask()


@pytest.mark.filterwarnings("ignore:Not adapted")
@pytest.mark.usefixtures("unguarded")
def test_a_model_on_a_latent_space_is_saved_whole(scvi_model, unlabelled, tmp_path):
    model = SCTAB.from_pretrained(scvi_model, "cell_type")
    model.train(max_epochs=1, **QUIET)
    mapped = SCTAB.load_query_data(unlabelled, model)
    mapped.train(max_epochs=1, **QUIET)
    for original, adata in ((model, model.adata), (mapped, unlabelled)):
        original.save(tmp_path / "saved", overwrite=True)
        loaded = SCTAB.load(tmp_path / "saved")
        pd.testing.assert_frame_equal(
            loaded.predict(adata, soft=True), original.predict(adata, soft=True), rtol=1e-5
        )


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # by SCVI
def test_batches_keep_the_order_that_surgery_left_them_in(scvi_model, unlabelled, halves):
    unlabelled.obs["sample"] = "a, before all others"
    SCVI.prepare_query_anndata(unlabelled, scvi_model)
    mapped = SCVI.load_query_data(unlabelled, scvi_model)
    mapped.train(max_epochs=1, plan_kwargs={"weight_decay": 0.0}, **QUIET)
    unlabelled.obs["cell_type"] = halves[1].obs["cell_type"].to_numpy()
    model = SCTAB.from_pretrained(mapped, "cell_type", freeze_encoder=True)
    assert model.conditions[0].categories[-1] == "a, before all others"
    counts = torch.tensor(model.adata.X[:50].toarray())
    codes = torch.from_numpy(model._conditions_of(model.adata)[:50])
    model.module.eval()
    latent, _ = model.module.space(counts, codes)
    expected = mapped.get_latent_representation(indices=np.arange(50))
    np.testing.assert_allclose(latent.detach().numpy(), expected, atol=1e-5)


def test_a_cell_of_an_unknown_batch_is_refused_where_the_encoder_needs_to_know(
    scvi_model, unlabelled
):
    model = SCTAB.from_pretrained(scvi_model, "cell_type", freeze_encoder=True)
    model.train(max_epochs=1, **QUIET)
    with pytest.raises(ValueError, match="depends on 'sample'.*load_query_data"):
        model.predict(unlabelled)


def test_encoders_that_cannot_be_followed_are_refused(halves, scvi_model):
    adata = halves[0].copy()
    adata.obs["depth"] = np.random.default_rng(0).random(adata.n_obs)
    model = trained(adata, {"continuous_covariate_keys": ["depth"]})
    with pytest.raises(ValueError, match="continuous_covariate_keys"):
        SCTAB.from_pretrained(model, "cell_type")
    SCVI.setup_anndata(adata)
    with pytest.raises(RuntimeError, match="Train the encoder"):
        SCTAB.from_pretrained(SCVI(adata), "cell_type")
    with pytest.raises(TypeError, match="not a int"):
        SCTAB.from_pretrained(3, "cell_type")
    with pytest.raises(ValueError, match="labels_key"):
        SCTAB.from_pretrained(scvi_model)
