"""Models of few labelled cells, which are solved at once."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.data import normalized_expression
from scvi_sctab.metrics import f1_macro

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
N_PER_LABEL = 8


def _few(reference, n_per_label=N_PER_LABEL, seed=0):
    """The reference with a few labels of each type, all other cells unlabelled."""
    cells, rng = reference.copy(), np.random.default_rng(seed)
    truth = cells.obs["cell_type"].astype(str).to_numpy()
    labels = np.full(len(truth), "unknown", dtype=object)
    for label in np.unique(truth):
        drawn = rng.permutation(np.flatnonzero(truth == label))[:n_per_label]
        labels[drawn] = label
    cells.obs["few"] = labels.astype(str)
    return cells, truth


@pytest.fixture
def few(reference):
    return _few(reference)


@pytest.fixture
def solved(few):
    return _solve(few[0])


def _solve(cells, **setup):
    SCTAB.setup_anndata(cells, labels_key="few", **setup)
    model = SCTAB(cells, preset="few")
    model.train(**QUIET)
    return model


def test_it_is_better_than_a_logistic_regression_and_a_trained_network(reference):
    scores = []
    for seed in range(3):
        cells, truth = _few(reference, seed=seed)
        model = _solve(cells)
        of_genes = normalized_expression(cells)
        known = (cells.obs["few"] != "unknown").to_numpy()
        regression = LogisticRegression(class_weight="balanced", max_iter=1000)
        regression.fit(of_genes[known], truth[known])
        small = SCTAB(cells, preset="small")
        small.train(max_epochs=40, **QUIET)
        predicted = (
            model.predict(cells),
            regression.predict(of_genes),
            small.predict(cells),
        )
        scores.append([f1_macro(truth[~known], labels[~known]) for labels in predicted])
    ours, *theirs = np.mean(scores, axis=0)
    assert ours > max(theirs)


def test_the_weights_of_the_model_are_the_solution(solved):
    cells = solved.adata
    genes = normalized_expression(cells).toarray()
    module = solved.module
    with torch.no_grad():
        linear = genes @ module.linear_skip.weight.numpy().T + module.linear_skip.bias.numpy()
        linear += solved.get_latent_representation(cells) @ module.final_mapping.weight.numpy().T
    logits = solved._labeled_logits(solved._select(None), None, None)[0].logits
    known = solved._left_out.positions
    truth = solved._label_codes()[known]
    assert (linear[known].argmax(axis=1) == truth).mean() > 0.9
    # Cells that are left out are less certain than those that were fitted.
    np.testing.assert_array_equal(logits, solved._left_out.logits)
    own, others = (x[np.arange(len(truth)), truth] for x in (linear[known], logits))
    assert others.mean() < own.mean()
    # Cells of another object are not known, and get what the weights say.
    same = solved.adata[known].copy()
    again = solved._labeled_logits(solved._select(same), None, None)[0].logits
    np.testing.assert_allclose(again, linear[known], rtol=1e-4, atol=1e-3)


def test_the_latent_space_has_the_principal_directions_of_all_cells(solved):
    genes = normalized_expression(solved.adata)
    expected = TruncatedSVD(64, random_state=0).fit(genes).components_
    latent = solved.get_latent_representation()
    np.testing.assert_allclose(latent, genes @ expected.T, rtol=1e-3, atol=1e-3)


def test_statements_come_from_cells_that_are_left_out(few, solved, query):
    assert solved.calibration is not None
    assert len(solved.calibration.truth) == len(solved.train_indices)
    assert len(solved.validation_indices) == 0
    annotation = solved.annotate(solved.adata)
    others = (few[0].obs["few"] == "unknown").to_numpy()
    sets = solved.get_prediction_sets(solved.adata, error_rate=0.1)
    covered = sets.to_numpy()[np.arange(len(sets)), sets.columns.get_indexer(few[1])]
    assert covered[others].mean() > 0.8
    assert annotation["novel"][others].mean() < 0.15
    assert annotation["novel"][~others].mean() < 0.15
    scores = solved.evaluate()
    predicted = solved.predict(solved.adata)
    right = pd.Series(predicted == few[1])
    assert scores.loc["accuracy", "f1"] == pytest.approx(right[~others].mean())
    # It is near that of other cells, and below: a label has a cell less without the one left out.
    recall = [right[part].groupby(few[1][part]).mean().mean() for part in (~others, others)]
    assert recall[1] - 0.2 < recall[0] < recall[1] + 0.05
    before = solved.calibration
    solved.calibrate()
    np.testing.assert_allclose(solved.calibration.probability, before.probability)


@pytest.mark.filterwarnings("ignore:These cells differ")  # another study
def test_a_saved_model_predicts_the_same_and_calibrates_again(solved, query, tmp_path):
    solved.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model", solved.adata)
    own, again = (model.predict(solved.adata, soft=True) for model in (solved, loaded))
    np.testing.assert_allclose(again, own, atol=1e-4)
    expected = solved.annotate(query)
    assert loaded.annotate(query).equals(expected)
    loaded.calibrate()
    assert loaded.annotate(query).equals(expected)
    with pytest.raises(ValueError, match="no AnnData of its own"):
        SCTAB.load(tmp_path / "model", adata=False).calibrate()
    part = SCTAB.load(tmp_path / "model", solved.adata[::2].copy())
    with pytest.raises(ValueError, match="that this model was fitted to are not here"):
        part.calibrate()


def test_other_cells_of_the_same_study_are_not_a_shift(few, solved):
    others = few[0][(few[0].obs["few"] == "unknown").to_numpy()].copy()
    assert not solved.get_shift(others)["shifted"].any()


def test_unlabelled_cells_teach_the_components(few, solved, query):
    labelled = few[0][few[0].obs["few"] != "unknown"].copy()
    alone = _solve(labelled)
    assert not np.allclose(
        alone.predict(query, soft=True), solved.predict(query, soft=True), atol=1e-3
    )


def test_cells_can_be_held_out(few):
    cells = few[0]
    SCTAB.setup_anndata(cells, labels_key="few")
    model = SCTAB(cells, preset="few")
    model.train(train_size=0.3, **QUIET)
    n_labelled = int((cells.obs["few"] != "unknown").sum())
    assert len(model.validation_indices) + len(model.train_indices) == n_labelled
    assert len(model.calibration.truth) == len(model.validation_indices) >= 50
    assert 0 < model.evaluate().loc["macro average", "f1"] <= 1


def test_training_again_with_other_cells_leaves_nothing_of_the_first(few, solved, query):
    fresh = SCTAB(few[0], preset="few")
    half = np.sort(solved.train_indices)[::2]
    split = {"external_indexing": [half, np.zeros(0, int), np.zeros(0, int)]}
    for model in (solved, fresh):
        model.train(datasplitter_kwargs=split, **QUIET)
    assert solved.predict(query, soft=True).equals(fresh.predict(query, soft=True))
    assert solved.trained_on(solved.adata).sum() == len(half)


def test_copies_of_a_cell_do_not_predict_each_other(few):
    cells = few[0][few[0].obs["few"] != "unknown"].copy()
    twice = anndata.concat([cells, cells], index_unique="-")
    once, copied = _solve(cells), _solve(twice)
    assert len(copied._left_out.positions) == len(once._left_out.positions) == cells.n_obs


@pytest.mark.filterwarnings("ignore:Labels that the panel")
def test_an_encoder_that_was_trained_before_is_a_third_view(few, autoencoder, query):
    model = SCTAB.from_pretrained(autoencoder, "few", adata=few[0], preset="few")
    before = {name: value.clone() for name, value in model.module.encoder.state_dict().items()}
    model.train(**QUIET)
    for name, value in model.module.encoder.state_dict().items():
        assert torch.equal(value, before[name])
    others = (few[0].obs["few"] == "unknown").to_numpy()
    assert f1_macro(few[1][others], model.predict(few[0])[others]) > 0.5
    assert len(model.predict(query)) == query.n_obs
    genes = model.gene_names[:150]
    assert model.restrict(genes).predict(query).shape == (query.n_obs,)


def test_a_network_that_was_pretrained_here_is_a_view_too(few):
    SCTAB.setup_anndata(few[0], labels_key="few")
    model = SCTAB(few[0], preset="few", encoder="mlp", n_d=8)
    with pytest.raises(ValueError, match=r"encoder='mlp' needs it"):
        model.train(**QUIET)
    model.pretrain(max_epochs=1, **QUIET)
    model.train(**QUIET)
    assert model.is_trained
    assert len(model._left_out.positions) == len(model.train_indices)


@pytest.mark.filterwarnings("ignore:Labels that the panel")
def test_a_panel_is_solved_anew(solved, query):
    genes = solved.gene_names[::3]
    restricted = solved.restrict(genes)
    cells = solved.adata[:, genes].copy()
    anew = _solve(cells)
    np.testing.assert_allclose(
        restricted.predict(query, soft=True), anew.predict(query, soft=True), atol=1e-3
    )
    assert restricted.calibration is not None
    record = restricted.panel_record
    assert 0 < record.macro_f1 <= record.macro_f1_before + 0.05


def test_a_query_is_mapped(few, query, unguarded):
    model = _solve(few[0], batch_key="donor_id")
    query.obs["donor_id"] = "query"
    mapped = SCTAB.load_query_data(query, model)
    mapped.train(**QUIET)
    before, after = (m.predict(query, soft=True) for m in (model, mapped))
    assert not np.allclose(before, after)
    assert (before.idxmax(axis=1) == after.idxmax(axis=1)).mean() > 0.7
    assert mapped.calibration is not None


def test_conditions_do_not_move_the_components(few, query):
    cells = few[0]
    model = _solve(cells, batch_key="donor_id")
    without = _solve(cells.copy())
    np.testing.assert_allclose(
        model.predict(query, soft=True), without.predict(query, soft=True), atol=1e-5
    )
    assert not any(p.any() for p in model.module.batch_embedding.parameters())


def test_folds_of_an_audit_are_solved(few):
    model = _solve(few[0])
    audit = model.audit_labels(n_folds=2)
    assert len(audit.cells) == len(model.train_indices)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_epochs", 3),
        ("early_stopping", True),
        ("augment", True),
        ("depth_augmentation", True),
        ("batch_size", 64),
        ("precision", "bf16-mixed"),
        ("callbacks", [object()]),
        ("plan_kwargs", {"lr": 1.0}),
    ],
)
def test_arguments_of_steps_are_refused(few, argument, value):
    SCTAB.setup_anndata(few[0], labels_key="few", donor_key="donor_id")
    model = SCTAB(few[0], preset="few")
    with pytest.raises(ValueError, match=f"{argument}: preset='few' is solved at once"):
        model.train(**{argument: value}, **QUIET)
    assert not model.is_trained


def test_states_of_a_training_are_refused(few, tmp_path):
    SCTAB.setup_anndata(few[0], labels_key="few")
    with pytest.raises(ValueError, match="checkpoint_dir: preset='few'"):
        SCTAB(few[0], preset="few").train(checkpoint_dir=tmp_path / "state", **QUIET)


def test_what_has_no_solution_is_refused(few, monkeypatch):
    SCTAB.setup_anndata(few[0], labels_key="few")
    with pytest.raises(ValueError, match="leave out `linear_skip`"):
        SCTAB(few[0], preset="few", linear_skip=False).train(**QUIET)
    coarse = {"B": ["NK"]}
    with pytest.raises(ValueError, match="coarse labels"):
        SCTAB(few[0], preset="few", coarse_labels=coarse).train(**QUIET)
    with pytest.raises(ValueError, match="all members would be the same"):
        SCTABEnsemble(few[0], "few", n_members=2)
    monkeypatch.setattr(
        "scvi_sctab.model._few_labels.FEW_LABELS",
        type("Config", (), {"max_cells": 10}),
    )
    with pytest.raises(ValueError, match=r"up to 10 labelled cells"):
        SCTAB(few[0], preset="few").train(**QUIET)


def test_a_small_reference_is_told_of_the_preset(few, caplog):
    SCTAB.setup_anndata(few[0], labels_key="few")
    SCTAB(few[0])
    assert "preset='few' is solved in a second" in caplog.text
