"""Statements about cells of another laboratory than the reference's."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi

from scvi_sctab import SCTAB
from scvi_sctab.benchmark import Laboratory, simulate_laboratory
from scvi_sctab.metrics import CellLogits
from scvi_sctab.model import _annotator
from scvi_sctab.pretrain import MaskedAutoencoder

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
STEPS = {"max_epochs": 25, **QUIET}
ELSEWHERE = Laboratory(capture_sd=0.8, depth=0.4, ambient=0.15, doublet_rate=0)


@pytest.fixture
def held_out(reference, model):
    return reference[model.validation_indices].copy()


@pytest.fixture
def elsewhere(held_out):
    return simulate_laboratory(held_out, ELSEWHERE)


def coverage(sets, truth):
    return sets.to_numpy()[np.arange(len(sets)), sets.columns.get_indexer(truth)].mean()


def test_sets_of_cells_of_another_laboratory_are_widened(model, elsewhere, recwarn):
    truth = elsewhere.obs["cell_type"]
    sets = model.get_prediction_sets(elsewhere)
    logits = CellLogits.concatenate(list(model._logits_of(model._select(elsewhere))))
    as_before = model.annotation.prediction_sets(
        model.annotation.probabilities(logits.logits), 0.1
    )
    as_before = pd.DataFrame(as_before, columns=sets.columns)
    assert coverage(as_before, truth) < 0.87  # of a stated 0.9
    assert coverage(sets, truth) > coverage(as_before, truth) + 0.03
    assert (sets.to_numpy() | ~as_before.to_numpy()).all()


def test_annotate_has_the_same_sets(model, elsewhere, recwarn):
    sets = model.get_prediction_sets(elsewhere)
    named = model.annotate(elsewhere)["prediction_set"].astype(str)
    sizes = named.map(lambda name: 0 if name == "no label" else name.count(" | ") + 1)
    np.testing.assert_array_equal(sizes, sets.sum(axis=1))


def test_the_held_out_cells_keep_their_sets(model, held_out, recwarn):
    state, _ = model._look_at(model._select(held_out))
    assert state.calibration.widening == pytest.approx(1, abs=1e-4)


def test_a_large_query_is_judged_by_a_sample_of_it(model, elsewhere, monkeypatch, recwarn):
    whole = model.get_prediction_sets(elsewhere)
    monkeypatch.setattr(_annotator, "_MAX_CELLS", 99)
    monkeypatch.setattr(_annotator, "spread_cells", lambda n_cells: np.arange(0, n_cells - 10))
    read = []
    logits_of = type(model)._logits_of
    monkeypatch.setattr(
        type(model),
        "_logits_of",
        lambda self, cells, batch_size=None: read.append(len(cells)) or logits_of(self, cells),
    )
    sampled = model.get_prediction_sets(elsewhere)
    assert read == [90, elsewhere.n_obs]
    assert (whole == sampled).to_numpy().mean() > 0.98


def test_a_saved_model_widens_sets_alike(model, elsewhere, tmp_path, recwarn):
    model.save(tmp_path / "model")
    again = SCTAB.load(tmp_path / "model", accelerator="cpu")
    pd.testing.assert_frame_equal(
        again.get_prediction_sets(elsewhere), model.get_prediction_sets(elsewhere)
    )


def test_status_follows_its_rule(model, elsewhere, recwarn):
    shallow = simulate_laboratory(elsewhere[:40], Laboratory(0, 0.1, 0, 0))
    frame = model.annotate(shallow)
    n_molecules = np.asarray(shallow.X.sum(axis=1)).ravel()
    assert 0 < (n_molecules < 50).sum() < 40
    one_label = ~frame["prediction_set"].astype(str).str.contains(r" \| |^no label$")
    expected = np.where(one_label, "confident", "ambiguous")
    expected = np.where(frame["novel"], "novel", expected)
    expected = np.where(n_molecules < 50, "low_quality", expected)
    assert frame["status"].tolist() == expected.tolist()
    assert list(frame["status"].cat.categories) == [
        "confident",
        "ambiguous",
        "novel",
        "low_quality",
    ]


def test_confident_cells_are_right_more_often(model, elsewhere, recwarn):
    frame = model.annotate(elsewhere)
    right = frame["label"].astype(str) == elsewhere.obs["cell_type"].astype(str)
    confident = frame["status"] == "confident"
    assert right[confident].mean() > right[~confident].mean() + 0.2


@pytest.fixture(scope="module")
def across(_cuts):
    """A model that was calibrated across two conditions, as if they were studies."""
    scvi.settings.seed = 0
    reference = _cuts[0].copy()
    reference.obs["study"] = np.where(reference.obs["condition"] == "stim", "one", "two")
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference)
    model.train(**STEPS)
    labels, before = model.predict(), model.calibration
    model.calibrate_across("study", **STEPS)
    # Novelty stays that of the held-out cells.
    np.testing.assert_array_equal(model.calibration.distance, before.distance)
    np.testing.assert_array_equal(model.calibration.centers.centers, before.centers.centers)
    return model, labels


def test_whole_studies_are_left_out_in_turn(across):
    model, labels = across
    calibration = model.calibration
    studies = model.adata.obs["study"].astype("category").cat.codes
    assert np.bincount(calibration.groups).tolist() == np.bincount(studies).tolist()
    own = model.labels[calibration.truth]
    expected = np.concatenate(
        [model.adata.obs["cell_type"][model.adata.obs["study"] == s] for s in ("one", "two")]
    )
    np.testing.assert_array_equal(own, expected)
    np.testing.assert_array_equal(model.predict(), labels)


def test_cells_that_were_set_up_again_are_left_out_as_they_were(reference):
    reference.obs["half"] = np.where(reference.obs["cell_type"] == "CD14 Mono", "one", "two")
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference)
    quick = {"max_epochs": 1, "accelerator": "cpu"}
    model.train(**quick)
    calibrations = []
    for _ in range(2):
        scvi.settings.seed = 0
        model.calibrate_across("condition", **quick)
        calibrations.append(model.calibration)
        SCTAB.setup_anndata(reference, labels_key="half")
    before, after = calibrations
    np.testing.assert_array_equal(after.truth, before.truth)
    np.testing.assert_allclose(after.probability, before.probability, rtol=1e-5)
    assert list(SCTAB(reference).labels) == ["one", "two"]


def test_the_rate_is_kept_within_each_study(across):
    model, _ = across
    calibration = model.calibration
    grid = np.linspace(0, 1, 10_001)
    accepted = calibration.sets(grid[:, None], 0.1).ravel()
    threshold = grid[accepted.argmax()]
    of_study = [calibration.probability[calibration.groups == g] for g in (0, 1)]
    coverage = [(p >= threshold).mean() for p in of_study]
    assert min(coverage) == pytest.approx(0.9, abs=0.01)


def test_a_calibration_across_studies_is_saved(across, tmp_path):
    model, _ = across
    model.save(tmp_path / "model")
    again = SCTAB.load(tmp_path / "model", model.adata, accelerator="cpu")
    assert again.annotation == model.annotation
    np.testing.assert_array_equal(again.calibration.groups, model.calibration.groups)


def test_what_cannot_be_left_out_is_refused(model, reference, tmp_path):
    with pytest.raises(KeyError, match="studdy"):
        model.calibrate_across("studdy")
    model.adata.obs["one study"] = "a"
    try:
        with pytest.raises(ValueError, match="Fewer than two values of 'one study'"):
            model.calibrate_across("one study")
    finally:
        del model.adata.obs["one study"]
    model.save(tmp_path / "model")
    alone = SCTAB.load(tmp_path / "model", accelerator="cpu")
    with pytest.raises(ValueError, match="are not here"):
        alone.calibrate_across("donor_id")
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    with pytest.raises(RuntimeError, match="not trained"):
        SCTAB(reference).calibrate_across("donor_id", **QUIET)


def test_arguments_of_split_and_checkpoints_are_the_models_own(across):
    model, _ = across
    for name in ("train_size", "checkpoint_dir", "resume", "datamodule"):
        with pytest.raises(
            TypeError, match=f"{name}: cells and checkpoints are those of the model"
        ):
            model.calibrate_across("study", **{name: 1})


def test_arguments_of_the_splitter_are_passed_on(across):
    model, _ = across
    before = model.calibration
    steps = {"max_epochs": 2, **QUIET}
    model.calibrate_across("study", datasplitter_kwargs={"num_workers": 0}, **steps)
    assert len(model.calibration.truth) == len(before.truth)


@pytest.mark.parametrize("kind", ["taken over", "pretrained"])
def test_an_encoder_that_knows_all_studies_is_refused(reference, kind):
    reference.obs["study"] = reference.obs["condition"].astype(str)
    if kind == "taken over":
        MaskedAutoencoder.setup_anndata(reference)
        encoder = MaskedAutoencoder(reference, widths=(16, 8))
        encoder.train(max_epochs=1, **QUIET)
        model = SCTAB.from_pretrained(encoder, "cell_type", freeze_encoder=True)
    else:
        SCTAB.setup_anndata(reference, labels_key="cell_type")
        model = SCTAB(reference)
        model.pretrain(max_epochs=1, **QUIET)
    model.train(max_epochs=2, **QUIET)
    with pytest.raises(ValueError, match="encoder of this model was trained before"):
        model.calibrate_across("study", **QUIET)


def test_empty_droplets_do_not_widen_the_sets_of_cells(model, held_out, recwarn):
    droplets = simulate_laboratory(held_out, Laboratory(0, 0.01, 0.2, 0))
    droplets.obs_names = "droplet " + droplets.obs_names
    mixed = anndata.concat([held_out, droplets])
    assert (model.annotate(droplets)["status"] == "low_quality").mean() > 0.9
    alone = model.get_prediction_sets(held_out)
    beside = model.get_prediction_sets(mixed)[: held_out.n_obs]
    assert (alone == beside).to_numpy().mean() > 0.99


def test_few_cells_keep_the_sets_of_held_out_ones(model, elsewhere, recwarn):
    few = model._select(elsewhere[:20].copy())
    state, _ = model._look_at(few)
    assert state.calibration.widening == 1


def test_a_study_is_left_out_with_its_batches_and_coarse_labels_stay_coarse(reference):
    """What is predicted is a new laboratory: no cell, and no batch, of it was trained on."""
    siblings, asked = [], []

    class Watched(SCTAB):
        def train(self, *args, **kwargs):
            if "datasplitter_kwargs" in kwargs:
                siblings.append((self, kwargs["datasplitter_kwargs"]["external_indexing"]))
            super().train(*args, **kwargs)

        def _labeled_logits(self, cells, *args):
            asked.append((self, cells))
            return super()._labeled_logits(cells, *args)

    reference.obs["study"] = reference.obs["condition"].astype(str)
    finer = ["CD4 Naive T", "CD4 Memory T", "CD8 T"]
    Watched.setup_anndata(
        reference, labels_key="cell_type", batch_key="study", donor_key="donor_id"
    )
    model = Watched(reference, coarse_labels={"T activated": finer})
    model.train(max_epochs=2, **QUIET)
    model.calibrate_across("study", max_epochs=2, **QUIET)
    study = model.adata.obs["study"].to_numpy(str)
    assert [sorted(set(study[np.concatenate(parts[:2])])) for _, parts in siblings] == [
        ["stim"],
        ["ctrl"],
    ]
    for (sibling, _), left_out in zip(siblings, ("ctrl", "stim"), strict=True):
        assert sibling.coarse_labels == {"T activated": finer}
        predicted = [c for who, c in asked if who is sibling][-1]
        assert set(study[predicted.positions]) == {left_out}
        assert (sibling._conditions_of(predicted.adata) == -1).all()
    assert "T activated" not in model.labels[model.calibration.truth]


def test_cells_are_left_out_where_they_are_now(model, reference, tmp_path):
    trained_on = []

    class Watched(SCTAB):
        def train(self, *args, **kwargs):
            trained_on.extend(kwargs["datasplitter_kwargs"]["external_indexing"][0])
            super().train(*args, **kwargs)

    model.save(tmp_path / "model")
    order = np.random.default_rng(0).permutation(reference.n_obs)
    moved = reference[order].copy()
    moved.obs["study"] = moved.obs["condition"].astype(str)
    again = Watched.load(tmp_path / "model", moved, accelerator="cpu")
    again.calibrate_across("study", max_epochs=2, **QUIET)
    assert set(moved.obs_names[trained_on]) == set(reference.obs_names[model.train_indices])
    calibration = again.calibration
    expected = [moved.obs["cell_type"][moved.obs["study"] == s] for s in ("ctrl", "stim")]
    np.testing.assert_array_equal(again.labels[calibration.truth], np.concatenate(expected))
