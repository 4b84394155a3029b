"""The life of a model on real PBMCs: set up, build, train, predict, explain."""

import logging
from dataclasses import fields
from inspect import signature

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scvi_sctab import SCTAB
from scvi_sctab._config import PRESETS, NetworkConfig
from scvi_sctab.metrics import f1_macro
from scvi_sctab.nn import count_molecules
from scvi_sctab.train import RandomDepths

STEPS = {"max_epochs": 6, "enable_progress_bar": False, "accelerator": "cpu"}


def build(adata, **setup):
    SCTAB.setup_anndata(adata, **{"labels_key": "cell_type", **setup})
    return SCTAB(adata)


def test_held_out_donors_are_recognised(reference):
    unseen = reference.obs["donor_id"].isin(["1244", "1016"]).to_numpy()
    train, test = reference[~unseen].copy(), reference[unseen].copy()
    model = build(train, donor_key="donor_id")
    model.train(max_epochs=40, enable_progress_bar=False)
    predicted = model.predict(test)
    shuffled = np.random.default_rng(0).permutation(predicted)
    assert f1_macro(test.obs["cell_type"], predicted) > 0.55
    assert f1_macro(test.obs["cell_type"], shuffled) < 0.2


def test_predictions_of_permuted_genes_are_bit_identical(model, query):
    order = np.random.default_rng(0).permutation(query.n_vars)
    expected = model.predict(query, soft=True)
    pd.testing.assert_frame_equal(
        model.predict(query[:, order].copy(), soft=True), expected, check_exact=True
    )


@pytest.mark.parametrize("form", ["csc", "dense", "integer"])
def test_predictions_do_not_depend_on_how_counts_are_stored(model, query, form):
    expected = model.predict(query, soft=True)
    x = query.X
    query.X = {"csc": x.tocsc(), "dense": x.toarray(), "integer": x.astype(np.int64)}[form]
    pd.testing.assert_frame_equal(model.predict(query, soft=True), expected, check_exact=True)


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_backed_queries_predict_as_those_in_memory(model, query, tmp_path, form, recwarn):
    expected = model.predict(query, soft=True)
    query.X = {"csr": query.X, "csc": query.X.tocsc(), "dense": query.X.toarray()}[form]
    query.write_h5ad(tmp_path / "query.h5ad")
    backed = ad.read_h5ad(tmp_path / "query.h5ad", backed="r")
    pd.testing.assert_frame_equal(model.predict(backed, soft=True), expected, check_exact=True)
    cells = [7, 3, 3, 100]
    np.testing.assert_array_equal(
        model.predict(backed, cells), expected.idxmax(axis=1).iloc[cells]
    )
    told = [str(w.message) for w in recwarn if "by columns (CSC)" in str(w.message)]
    assert bool(told) == (form == "csc")


def test_predictions_do_not_depend_on_the_batch_size(model, query):
    pd.testing.assert_frame_equal(
        model.predict(query, soft=True, batch_size=50), model.predict(query, soft=True), rtol=1e-4
    )


def test_missing_genes_count_as_zero(model, query):
    zeroed = query.copy()
    zeroed.X = query.X @ sparse.diags((np.arange(query.n_vars) >= 20).astype(np.float32))
    pd.testing.assert_frame_equal(
        model.predict(query[:, 20:].copy(), soft=True), model.predict(zeroed, soft=True)
    )


def test_indices_choose_and_order_cells(model, query):
    everything = model.predict(query, soft=True)
    chosen = model.predict(query, [5, 2, 9], soft=True)
    pd.testing.assert_frame_equal(chosen, everything.iloc[[5, 2, 9]], rtol=1e-4)
    mask = np.arange(query.n_obs) < 4
    assert len(model.predict(query, mask)) == 4
    assert model.predict(query, []).shape == (0,)
    assert model.predict(query, [], soft=True).shape == (0, len(model.labels))
    pd.testing.assert_index_equal(
        model.annotate(query, []).columns, model.annotate(query, [5]).columns
    )


@pytest.mark.filterwarnings("ignore:These cells differ")  # another study
def test_annotations_agree_with_probabilities(model, query):
    probabilities, annotation = model.predict(query, soft=True), model.annotate(query)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(annotation["label"], probabilities.idxmax(axis=1))
    np.testing.assert_array_equal(annotation["label"], model.predict(query))
    np.testing.assert_allclose(annotation["probability"], probabilities.max(axis=1))
    assert annotation["uncertainty"].between(0, 1).all()
    assert (annotation["label"].astype(str) != annotation["runner_up"].astype(str)).all()
    assert annotation["uncertainty"].corr(annotation["probability"]) < -0.7
    joined = query.obs.join(annotation)
    assert list(joined.index) == list(query.obs_names)


def test_attention_is_sparse_and_sums_to_one(model, query):
    attention = model.get_attention(query)
    assert isinstance(attention, sparse.csr_matrix)
    assert attention.shape == (query.n_obs, len(model.gene_names))
    np.testing.assert_allclose(np.asarray(attention.sum(axis=1)).ravel(), 1, rtol=1e-5)
    assert attention.nnz < 0.5 * query.n_obs * query.n_vars


def test_markers_of_known_types_are_the_textbook_ones(model, query):
    markers = model.get_markers(query, "cell_type", n_genes=15).groupby("group")["gene"].agg(set)
    assert {"CD79A", "CD74"} & markers["B"]
    assert {"NKG7", "GNLY"} & markers["NK"]
    assert {"LYZ", "S100A8", "S100A9"} & markers["CD14+ Mono"]


def test_markers_add_up_to_the_logits_of_the_linear_path(model, query):
    markers = model.get_markers(query, n_genes=len(model.gene_names))
    probabilities = model.predict(query)
    assert set(markers["group"]) == set(probabilities)
    skip = model.module.linear_skip.weight.detach().numpy()
    weight = skip - skip.mean(axis=0)
    row = markers[(markers["group"] == "B") & (markers["gene"] == "CD74")].iloc[0]
    gene = list(model.gene_names).index("CD74")
    expected = weight[list(model.labels).index("B"), gene] * row["expression"]
    assert row["contribution"] == pytest.approx(expected, rel=1e-4)


def test_embedding_has_the_width_of_the_encoder(model, query):
    latent = model.get_latent_representation(query)
    assert latent.shape == (query.n_obs, model.module.encoder.n_output)
    assert latent.std(axis=0).max() > 0


def test_evaluation_is_on_held_out_donors(model, reference):
    report = model.evaluate()
    assert report.loc["accuracy", "n_cells"] == len(model.validation_indices)
    donors = reference.obs["donor_id"].to_numpy()
    assert not set(donors[model.validation_indices]) & set(donors[model.train_indices])
    with pytest.warns(UserWarning, match="trained on"):
        whole = model.evaluate(reference, indices=np.arange(reference.n_obs))
    assert whole.loc["macro average", "f1"] == pytest.approx(
        f1_macro(reference.obs["cell_type"], model.predict(reference))
    )


def test_the_best_weights_of_the_second_half_are_restored(reference):
    model = build(reference, donor_key="donor_id")
    model.train(max_epochs=12, enable_progress_bar=False)
    history = model.history["validation_f1_macro"]["validation_f1_macro"].iloc[6:]
    best = history[::-1].idxmax()
    held_out = model.validation_indices
    right = model.predict(indices=held_out) == reference.obs["cell_type"].iloc[held_out]
    accuracy = model.history["validation_accuracy"]["validation_accuracy"]
    assert right.mean() == pytest.approx(accuracy[best], abs=1e-6)


def test_unlabelled_cells_are_not_learnt_from_but_are_predicted(reference):
    hidden = reference.obs["donor_id"].isin(["1015"]).to_numpy()
    reference.obs["cell_type"] = reference.obs["cell_type"].astype(str)
    reference.obs.loc[hidden, "cell_type"] = "unknown"
    model = build(reference, donor_key="donor_id")
    model.train(**STEPS)
    assert "unknown" not in model.labels
    assert not set(np.flatnonzero(hidden)) & {*model.train_indices, *model.validation_indices}
    assert "unknown" not in set(model.predict())
    with pytest.warns(UserWarning, match="trained on"):
        report = model.evaluate(indices=np.arange(reference.n_obs))
    assert report.loc["accuracy", "n_cells"] == (~hidden).sum()


def test_unlabelled_cells_in_a_split_of_ones_own_do_not_change_the_loss(reference):
    reference.obs["cell_type"] = reference.obs["cell_type"].astype(str)
    reference.obs.iloc[::2, reference.obs.columns.get_loc("cell_type")] = "unknown"
    model = build(reference)
    cells = np.arange(reference.n_obs)
    split = {"external_indexing": [cells[:-100], cells[-100:]]}
    model.train(**STEPS, datasplitter_kwargs=split)
    assert np.isfinite(model.history["train_loss"].to_numpy(dtype=float)).all()
    np.testing.assert_array_equal(model.train_indices, cells[:-100])


@pytest.mark.parametrize("dtype", ["category", str, object])
def test_labels_may_be_strings_or_categories(reference, dtype):
    reference.obs["cell_type"] = reference.obs["cell_type"].astype(dtype)
    model = build(reference)
    model.train(max_epochs=1, enable_progress_bar=False)
    assert set(model.predict()) <= set(reference.obs["cell_type"].astype(str))


def test_an_unlabelled_category_of_another_name_is_honoured(reference):
    reference.obs["cell_type"] = reference.obs["cell_type"].astype(str)
    reference.obs.iloc[:50, reference.obs.columns.get_loc("cell_type")] = "n/a"
    model = build(reference, unlabeled_category="n/a")
    assert "n/a" not in model.labels
    assert len(model.labels) == 11


@pytest.mark.filterwarnings(
    "ignore:Training will be faster when sparse matrix is formatted as CSR"
)
@pytest.mark.parametrize("form", ["csc", "dense", "layer"])
def test_training_takes_counts_of_every_form(reference, form):
    setup = {}
    if form == "layer":
        reference.layers["counts"] = reference.X.copy()
        reference.X = reference.X.log1p()
        setup = {"layer": "counts"}
    else:
        reference.X = reference.X.tocsc() if form == "csc" else reference.X.toarray()
    model = build(reference, **setup)
    model.train(max_epochs=1, enable_progress_bar=False)
    assert model.predict().shape == (reference.n_obs,)


def test_the_same_seed_gives_the_same_model(reference):
    predictions = []
    for _ in range(2):
        import scvi

        scvi.settings.seed = 7
        model = build(reference.copy(), donor_key="donor_id")
        model.train(max_epochs=2, enable_progress_bar=False)
        predictions.append(model.predict(soft=True))
    pd.testing.assert_frame_equal(*predictions, check_exact=True)


def test_training_goes_on_from_where_it_stopped(reference):
    model = build(reference)
    model.train(max_epochs=3, enable_progress_bar=False)
    first = model.history["train_loss"].to_numpy(dtype=float).ravel()
    model.train(max_epochs=3, enable_progress_bar=False)
    both = model.history["train_loss"].to_numpy(dtype=float).ravel()
    assert len(both) == 6
    assert both[3] < first[0]
    assert all(module.training is False for module in model.module.modules())


def test_models_on_one_anndata_keep_to_their_own_labels(reference):
    model = build(reference)
    other = (reference.obs["cell_type"] == "B").map({True: "B", False: "other"})
    reference.obs["other"] = other.astype(str)
    build(reference, labels_key="other")
    model.train(**STEPS)
    assert (model.predict() == reference.obs["cell_type"].astype(str)).mean() > 0.5


def test_the_small_preset_weighs_classes_to_the_power_of_three_quarters(reference):
    model = build(reference)
    seen = {}
    plan_cls = model._training_plan_cls

    class Spy(plan_cls):
        def __init__(self, module, **arguments):
            seen.update(arguments)
            super().__init__(module, **arguments)

    model._training_plan_cls = Spy
    model.train(max_epochs=1, enable_progress_bar=False)
    labels = reference.obs["cell_type"].iloc[model.train_indices].value_counts()
    weights = pd.Series(seen["class_weights"].numpy(), index=model.labels)[labels.index]
    ratio = weights.iloc[-1] / weights.iloc[0]
    assert ratio == pytest.approx((labels.iloc[0] / labels.iloc[-1]) ** 0.75, rel=1e-5)
    assert (weights * labels).sum() / labels.sum() == pytest.approx(1, rel=1e-5)


def test_early_stopping_stops_where_it_is_asked_for(reference):
    model = build(reference)
    stop = {"early_stopping": True, "early_stopping_patience": 2, "early_stopping_min_delta": 1.0}
    model.train(max_epochs=25, enable_progress_bar=False, **stop)
    assert len(model.history["train_loss"]) <= 4
    stopping = model.trainer.early_stopping_callback
    assert (stopping.monitor, stopping.mode) == ("validation_f1_macro", "max")


@pytest.mark.parametrize("where", ["train", "datasplitter_kwargs"])
def test_sizes_may_be_given_either_way(reference, where):
    sizes = {"validation_size": 0.25, "batch_size": 64, "shuffle_set_split": False}
    arguments = (
        sizes if where == "train" else {"datasplitter_kwargs": {**sizes, "train_size": 0.75}}
    )
    model = build(reference)
    model.train(max_epochs=1, enable_progress_bar=False, **arguments)
    share = len(model.validation_indices) / reference.n_obs
    assert share == pytest.approx(0.25, abs=0.02)


def test_training_on_all_cells_needs_no_validation(reference):
    model = build(reference)
    model.train(**STEPS, train_size=1.0)
    assert len(model.train_indices) == reference.n_obs
    assert "validation_f1_macro" not in model.history


def test_the_paper_preset_is_the_published_network_and_augments(reference):
    model = build(reference, donor_key="donor_id")
    assert model.preset_ == "small"
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    paper = SCTAB(reference, preset="paper", n_d=8, n_a=4)
    assert paper.module.linear_skip is None
    assert len(paper.module.encoder.initial_splitter.specifics.glu_layers) == 5
    paper.train(max_epochs=1, enable_progress_bar=False, batch_size=128)
    assert paper.predict().shape == (reference.n_obs,)


def test_augmentation_vectors_come_from_training_donors_only(reference, monkeypatch):
    seen = {}

    def spy(blocks, labels, donors, seed):
        seen["cells"] = sum(block.shape[0] for block in blocks)
        seen["donors"] = set(donors)
        return np.zeros((0, reference.n_vars), dtype=np.float32)

    monkeypatch.setattr("scvi_sctab.model._training.donor_difference_vectors", spy)
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference, preset="paper", n_d=8, n_a=4)
    model.train(max_epochs=1, enable_progress_bar=False, batch_size=128)
    codes = reference.obs["_scvi_donor"].to_numpy()
    assert seen["donors"] == set(codes[model.train_indices])
    assert seen["cells"] == len(model.train_indices)


def test_augmentation_can_be_asked_for_and_left_out(reference, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "scvi_sctab.model._training.donor_difference_vectors",
        lambda blocks, *rest: asked.append(1) or np.zeros((0, reference.n_vars), np.float32),
    )
    brief = {"max_epochs": 1, "enable_progress_bar": False, "batch_size": 128}
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    SCTAB(reference).train(**brief)
    SCTAB(reference, preset="paper", n_d=8, n_a=4).train(augment=False, **brief)
    assert not asked
    SCTAB(reference).train(augment=True, **brief)
    assert asked
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    with pytest.raises(ValueError, match="augment=True takes differences between donors"):
        SCTAB(reference).train(augment=True, **brief)


def test_the_auto_preset_says_what_it_took(reference, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("scvi.sctab"), "info", said.append)
    model = build(reference)
    assert len(said) == 1
    assert said[0].startswith(
        f"preset='auto' took 'small' for {reference.n_obs:,} labelled cells."
    )
    assert "preset='few'" in said[0]
    said.clear()
    monkeypatch.setattr("scvi_sctab.model._sctab.FEW_UP_TO_N_CELLS", 500)
    build(reference)
    assert said == [f"preset='auto' took 'small' for {reference.n_obs:,} labelled cells."]
    print(model)
    assert "preset 'small': tabnet + linear path, 300 genes, 11 labels" in capsys.readouterr().out


def test_many_labelled_cells_get_the_published_network(reference, monkeypatch):
    monkeypatch.setattr("scvi_sctab._config.PAPER_FROM_N_CELLS", 500)
    model = build(reference)
    assert model.preset_ == "paper"
    assert model.module.encoder.n_d == 128


@pytest.mark.parametrize(
    ("encoder", "idle"),
    [
        ("linear", {"n_steps": 7}),
        ("mlp", {"mask_type": "sparsemax"}),
        ("selu", {"n_d": 8}),
        ("tabnet", {"widths": (8, 4)}),
        (None, {"widths": (8, 4)}),
    ],
)
def test_a_hyperparameter_that_does_not_apply_is_refused(reference, encoder, idle):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    (name,) = idle
    pattern = rf"{name}: no hyperparameter of encoder='{encoder or 'tabnet'}', which has \["
    with pytest.raises(TypeError, match=pattern):
        SCTAB(reference, encoder=encoder, **idle)


def test_hyperparameters_are_in_the_signature(reference):
    known = signature(SCTAB).parameters
    for field in fields(NetworkConfig):
        assert known[field.name].default is None  # the preset's
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    assert not {"pretrained", "first_query_batches"} & set(known)


@pytest.mark.parametrize("encoder", ["linear", "mlp", "selu"])
def test_a_model_of_any_encoder_is_loaded_with_what_applies_to_others(
    reference, encoder, tmp_path
):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    model = SCTAB(reference, encoder=encoder)
    model.train(max_epochs=1, enable_progress_bar=False)
    model.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(reference), model.predict())


def test_hyperparameters_can_be_changed_and_wrong_ones_are_named(reference):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    assert SCTAB(reference, n_d=9).module.encoder.n_d == 9
    with pytest.raises(TypeError, match=r"no hyperparameters \['n_dd'\].*'n_d'"):
        SCTAB(reference, n_dd=9)
    with pytest.raises(ValueError, match="preset='big' is none of 'auto', 'paper', 'small'"):
        SCTAB(reference, preset="big")


@pytest.mark.parametrize("encoder", ["mlp", "linear"])
def test_other_encoders_train_and_say_that_they_have_no_attention(reference, encoder):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    model = SCTAB(reference, encoder=encoder, linear_skip=False)
    model.train(max_epochs=1, enable_progress_bar=False)
    assert model.predict().shape == (reference.n_obs,)
    with pytest.raises(ValueError, match="no attention; build the model with encoder='tabnet'"):
        model.get_attention()


def test_the_documented_defaults_are_those_of_the_published_network():
    published = PRESETS["paper"].network
    assert published == NetworkConfig()
    assert (published.n_d, published.n_a, published.n_steps) == (128, 64, 1)
    assert (published.n_shared, published.n_independent) == (3, 5)
    assert (published.gamma, published.epsilon) == (1.3, 1e-15)
    assert (published.virtual_batch_size, published.momentum) == (256, 0.02)
    assert (published.mask_type, published.lambda_sparse) == ("entmax", 1e-5)
    assert not published.linear_skip


def test_the_reference_is_left_as_it_was_but_for_the_hosts_columns(reference):
    before = reference.copy()
    model = build(reference, donor_key="donor_id")
    model.train(max_epochs=1, enable_progress_bar=False)
    model.annotate()
    assert set(reference.obs.columns) - set(before.obs.columns) == {
        "_scvi_batch",
        "_scvi_labels",
        "_scvi_donor",
    }
    assert (reference.X != before.X).nnz == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_labels(model, query):
    expected = model.predict(query)
    model.to_device("cuda:0")
    try:
        assert (model.predict(query) == expected).mean() > 0.99
    finally:
        model.to_device("cpu")


def test_depth_augmentation_trains_on_thinned_cells_of_a_reference_only(
    reference, query, monkeypatch
):
    seen = []
    forward = RandomDepths.forward

    def record(self, counts):
        thinned = forward(self, counts)
        seen.append((count_molecules(counts), count_molecules(thinned)))
        return thinned

    monkeypatch.setattr(RandomDepths, "forward", record)
    SCTAB.setup_anndata(reference, labels_key="cell_type", batch_key="donor_id")
    model = SCTAB(reference)
    model.train(max_epochs=1, enable_progress_bar=False)
    assert not seen
    model = SCTAB(reference)
    model.train(max_epochs=1, depth_augmentation=True, enable_progress_bar=False)
    before, after = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert 500 < len(before) <= len(model.train_indices)
    assert (after < before).float().mean() == pytest.approx(0.5, abs=0.15)
    query.obs["donor_id"] = "other"
    mapped = SCTAB.load_query_data(query, model)
    with pytest.raises(ValueError, match="nor is any augmented"):
        mapped.train(depth_augmentation=True)
