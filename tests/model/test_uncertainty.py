"""What a model states about its errors, on real cells."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from scvi_sctab import SCTAB
from scvi_sctab.annotation import _calibrate, scaling_method

QUIET = {"max_epochs": 25, "enable_progress_bar": False, "accelerator": "cpu"}
SHIFT = "These cells differ from those that the model was calibrated on"


def raw_logits(model, adata):
    parts = [e.logits for e in model._logits_of(model._select(adata))]
    return np.concatenate(parts)


@pytest.fixture
def held_out(reference, model):
    return reference[model.validation_indices].copy()


def test_training_calibrates_on_the_held_out_cells(model, held_out):
    scaling = model.calibration.scaling
    assert len(model.calibration.truth) == held_out.n_obs
    logits, soft = raw_logits(model, held_out), model.predict(held_out, soft=True)
    np.testing.assert_allclose(soft, scaling.probabilities(logits), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(model.predict(held_out), model.labels[logits.argmax(axis=1)])
    truth = model.calibration.truth
    rows = np.arange(len(truth))
    assert scaling.temperature > 1
    assert (
        np.log(soft.to_numpy()[rows, truth]).mean()
        > np.log(softmax(logits, axis=1)[rows, truth]).mean() + 0.01
    )


def test_labels_are_as_frequent_as_among_the_cells_trained_on(model, monkeypatch):
    told = []

    def record(centers, held_out, labels, method, counts, left_out):
        told.append((method, counts))
        return model.calibration

    monkeypatch.setattr(_calibrate.Calibration, "fit", record)
    own = model.calibration_
    model.calibrate()
    model.calibration_ = own
    trained_on = model.adata.obs["cell_type"].iloc[model.train_indices]
    ((method, counts),) = told
    assert method == "prior"
    np.testing.assert_array_equal(counts, trained_on.value_counts()[model.labels])


def test_frequencies_count_where_the_cells_hold_every_label(model):
    counts = np.ones(len(model.labels), int)
    assert scaling_method(model.annotation, counts) == "prior"
    counts[3] = 0
    assert scaling_method(model.annotation, counts) == "temperature"


def test_sets_cover_the_held_out_cells_as_stated(model, held_out):
    sets = model.get_prediction_sets(held_out, error_rate=0.2)
    truth = held_out.obs["cell_type"].to_numpy()
    hit = sets.to_numpy()[np.arange(len(sets)), pd.Index(sets.columns).get_indexer(truth)]
    # On the very cells of the calibration the rate is met to a cell.
    assert 0.8 <= hit.mean() <= 0.8 + 2 / len(sets)
    wider = model.get_prediction_sets(held_out, error_rate=0.02)
    assert (sets.to_numpy() <= wider.to_numpy()).all()
    assert sets.index.equals(held_out.obs_names)


def test_annotations_hold_sets_and_novelty(model, held_out):
    annotation = model.annotate(held_out, error_rate=0.05, false_alarm_rate=0.2)
    sets = model.get_prediction_sets(held_out, error_rate=0.05)
    for text, (_, row), label in zip(
        annotation["prediction_set"], sets.iterrows(), annotation["label"], strict=True
    ):
        members = text.split(" | ") if text else []
        assert set(members) == set(row.index[row])
        assert not members or label not in members or members[0] == label
    p = model.get_novelty(held_out)
    np.testing.assert_allclose(annotation["novelty_p_value"], p)
    np.testing.assert_array_equal(annotation["novel"], p <= 0.2)
    assert annotation["novel"].mean() == pytest.approx(0.2, abs=0.03)


def test_cells_of_an_unknown_type_are_novel(reference):
    new = (reference.obs["cell_type"] == "B").to_numpy()
    known = reference[~new].copy()
    SCTAB.setup_anndata(known, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(known)
    model.train(**QUIET)
    p = model.get_novelty(reference)  # mostly cells that were trained on
    unseen = np.isin(reference.obs_names, known.obs_names[model.validation_indices])
    assert (p[new] <= 0.05).mean() > 3 * (p[unseen] <= 0.05).mean()


def test_another_study_is_called_shifted_and_the_same_one_is_not(model, held_out, query):
    assert not model.get_shift(held_out)["shifted"].any()
    assert model.get_shift(query)["shifted"].any()
    for verb in (model.annotate, model.get_prediction_sets, model.get_novelty):
        verb(held_out)  # a warning would be an error
        with pytest.warns(UserWarning, match=SHIFT):
            verb(query)
        verb(query[:50].copy())  # too few to tell


def test_labelled_cells_of_another_study_calibrate_the_model_for_it(model, reference, query):
    own = model.calibration_
    names = {"B cells": "B", "CD14+ Monocytes": "CD14 Mono", "NK cells": "NK"}
    query.obs["truth"] = (
        query.obs["cell_type"]
        .astype(str)
        .replace(names)
        .where(
            query.obs["cell_type"] != "DC"  # missing, which is no label
        )
    )
    known = query.obs["truth"].isin(model.labels).sum()
    try:
        model.calibrate(query, "truth")
        assert len(model.calibration.truth) == known
        # How frequent labels are is not known from cells that lack some.
        assert not model.calibration.scaling.bias.any()
        compared = query.obs["truth"].isin(model.labels).to_numpy()
        assert not model.get_shift(query, compared)["shifted"].any()
        # Labels that these cells lack are known as before.
        is_cd8 = (reference.obs["cell_type"] == "CD8 T").to_numpy()
        assert (model.get_novelty(reference, is_cd8) <= 0.05).mean() < 0.2
        model.calibrate(query, "truth", method="vector")
        assert model.calibration.scaling.bias.any()
        with pytest.raises(ValueError, match="are too few to calibrate on"):
            model.calibrate(query, "truth", indices=range(20))
        with pytest.raises(KeyError, match="labels_key"):
            model.calibrate(query, "no such column")
        with pytest.raises(
            ValueError, match="method='isotonic' is none of 'temperature', 'prior'"
        ):
            model.calibrate(query, "truth", method="isotonic")
        # Without any calibration half of the cells show where labels lie.
        model.calibration_ = None
        with pytest.warns(UserWarning, match=r"hold no 'B Activated', .*: they will look novel"):
            model.calibrate(query, "truth")
        assert len(model.calibration.truth) == known // 2
        # Cells of more labels tell more than that.
        model.calibrate(reference, indices=model.validation_indices)
        assert len(model.calibration.centers.centers) > 3
    finally:
        model.calibration_ = own


def test_a_saved_model_states_the_same(model, held_out, tmp_path):
    model.save(tmp_path / "model")
    again = SCTAB.load(tmp_path / "model", adata=False)
    pd.testing.assert_frame_equal(again.annotate(held_out), model.annotate(held_out))


def test_without_held_out_cells_nothing_is_stated(reference):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    model = SCTAB(reference)
    model.train(train_size=1, **QUIET | {"max_epochs": 1})
    assert model.calibration is None
    assert not {"prediction_set", "novel"} & {*model.annotate(reference)}
    for verb in (model.get_prediction_sets, model.get_novelty, model.get_shift):
        with pytest.raises(RuntimeError, match="not calibrated: too few cells were held out"):
            verb(reference)
    with pytest.raises(ValueError, match="No cells were held out"):
        model.calibrate()


def test_rates_that_are_none_are_refused(model, held_out):
    with pytest.raises(ValueError, match="error_rate=0 is not between"):
        model.annotate(held_out, error_rate=0)
    with pytest.raises(ValueError, match=r"false_alarm_rate=1.2 is not between"):
        model.annotate(held_out, false_alarm_rate=1.2)
    with pytest.raises(ValueError, match="error_rate=2 is not between"):
        model.get_prediction_sets(held_out, error_rate=2)


def test_no_cells_give_no_rows(model, held_out):
    assert model.get_novelty(held_out, []).shape == (0,)
    assert model.get_prediction_sets(held_out, []).shape == (0, len(model.labels))
    with pytest.raises(ValueError, match="no cell to compare"):
        model.get_shift(held_out, [])


@pytest.mark.usefixtures("unguarded")
def test_a_query_keeps_the_calibration_of_a_reference_that_it_leaves_alone(reference):
    reference.obs["sample"] = reference.obs["condition"].astype(str)
    SCTAB.setup_anndata(
        reference, labels_key="cell_type", donor_key="donor_id", batch_key="sample"
    )
    model = SCTAB(reference)
    model.train(**QUIET | {"max_epochs": 3})
    query = reference[::2].copy()
    query.obs["sample"] = "new"
    query.obs["cell_type"] = "unknown"
    epochs = {"batch": None, "head": 1}
    for policy, max_epochs in epochs.items():
        mapped = SCTAB.load_query_data(query, model, policy=policy)
        assert mapped.calibration is model.calibration
        mapped.train(**QUIET | {"max_epochs": max_epochs})
        assert (mapped.calibration is not None) == (policy == "batch")
    with pytest.raises(RuntimeError, match="a query has changed the reference's parameters"):
        mapped.get_novelty()
