"""An ensemble answers as the mean of its members."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab._constants import CONDITIONS_KEY, ENSEMBLE_FILE, PICKLE_FILE
from scvi_sctab.explanation._network import dense_expression, logits_of
from scvi_sctab.model import _ensemble_files

QUIET = {"max_epochs": 8, "enable_progress_bar": False, "accelerator": "cpu"}
WITHOUT = "CD14 Mono"


@pytest.fixture(scope="module")
def _cells(_cuts):
    cells = _cuts[0][(_cuts[0].obs["cell_type"] != WITHOUT).to_numpy()].copy()
    cells.obs["sample"] = cells.obs["condition"].astype(str)
    return cells


@pytest.fixture(scope="module")
def _trained_ensemble(_cells):
    scvi.settings.seed = 0
    reference = _cells.copy()
    SCTABEnsemble.setup_anndata(
        reference, labels_key="cell_type", donor_key="donor_id", batch_key="sample"
    )
    ensemble = SCTABEnsemble(reference, n_members=3)
    ensemble.train(**QUIET)
    return ensemble


@pytest.fixture
def query(_cells):
    cells = _cells[::2].copy()
    cells.obs["sample"] = "new " + cells.obs["sample"]
    return cells


@pytest.fixture
def ensemble(_trained_ensemble):
    """Shared: do not train it further."""
    return _trained_ensemble


@pytest.fixture
def held_out(ensemble):
    return ensemble.adata[ensemble.validation_indices].copy()


def of_members(ensemble, adata):
    """Probabilities of each member, at its temperature."""
    every = np.arange(adata.n_obs)
    logits = [
        next(m._logits_of(m._select(adata, every), adata.n_obs)).logits for m in ensemble.members
    ]
    temperatures = [m.calibration.scaling.temperature for m in ensemble.members]
    return np.stack([softmax(x / t, axis=1) for x, t in zip(logits, temperatures, strict=True)])


def test_probabilities_are_the_calibrated_mean_of_the_members(ensemble, held_out):
    each = of_members(ensemble, held_out)
    assert np.abs(each[0] - each[1]).max() > 0.01  # members differ
    mean = each.mean(axis=0)
    expected = ensemble.calibration.scaling.probabilities(np.log(mean))
    np.testing.assert_allclose(ensemble.predict(held_out, soft=True), expected, atol=1e-5)
    np.testing.assert_array_equal(ensemble.predict(held_out), ensemble.labels[mean.argmax(axis=1)])


def test_members_hold_out_the_same_cells_and_start_apart(ensemble):
    first, second, _ = ensemble.members
    np.testing.assert_array_equal(first.validation_indices, second.validation_indices)
    again = SCTABEnsemble(ensemble.adata, n_members=2).members
    start = [m.module.encoder.initial_splitter.specifics for m in again]
    weights = [next(part.parameters()) for part in start]
    assert not np.allclose(weights[0].detach(), weights[1].detach())


def test_training_is_the_same_for_the_same_seed(ensemble):
    scvi.settings.seed = 0
    again = SCTABEnsemble(ensemble.adata, n_members=1)
    again.train(**QUIET)
    pd.testing.assert_frame_equal(
        again.members[0].predict(soft=True), ensemble.members[0].predict(soft=True)
    )


def test_uncertainty_splits_into_two_parts_that_add_up(ensemble, held_out):
    uncertainty = ensemble.get_uncertainty(held_out)
    each = of_members(ensemble, held_out)
    log_k = np.log(len(ensemble.labels))
    mean = each.mean(axis=0)
    np.testing.assert_allclose(uncertainty["total"], -(mean * np.log(mean)).sum(1) / log_k, 1e-4)
    np.testing.assert_allclose(
        uncertainty["aleatoric"], -(each * np.log(each)).sum(2).mean(0) / log_k, 1e-4
    )
    np.testing.assert_allclose(
        uncertainty["total"], uncertainty["aleatoric"] + uncertainty["epistemic"], atol=1e-9
    )
    assert (uncertainty["epistemic"] >= 0).all()
    assert uncertainty["total"].between(0, 1).all()
    wrong = ensemble.predict(held_out) != held_out.obs["cell_type"].to_numpy()
    assert roc_auc_score(wrong, uncertainty["total"]) > 0.6


def test_an_ensemble_annotates_as_a_model_does(ensemble, held_out):
    annotation = ensemble.annotate(held_out)
    assert list(annotation) == list(ensemble.members[0].annotate(held_out))
    sets = ensemble.get_prediction_sets(held_out)
    assert sets.shape == (held_out.n_obs, len(ensemble.labels))
    assert ((annotation["novelty_p_value"] <= 0.05) == annotation["novel"]).all()
    assert 0 < ensemble.evaluate(held_out).loc["macro average", "f1"] <= 1
    width = ensemble.members[0].get_latent_representation(held_out).shape[1]
    assert ensemble.get_latent_representation(held_out).shape == (held_out.n_obs, 3 * width)
    assert ensemble.get_uncertainty(held_out, []).shape == (0, 3)
    assert "SCTABEnsemble of 3" in repr(ensemble)
    refined = ensemble.refine(held_out)
    np.testing.assert_array_equal(refined["raw_label"], ensemble.predict(held_out))
    assert refined["probability"].between(0, 1).all()


def test_a_saved_ensemble_states_the_same_without_any_pickle(ensemble, held_out, tmp_path):
    path = tmp_path / "ensemble"
    ensemble.save(path, save_anndata=True)
    for file in path.rglob(PICKLE_FILE):
        file.unlink()
    again = SCTABEnsemble.load(path)
    pd.testing.assert_frame_equal(again.annotate(held_out), ensemble.annotate(held_out))
    assert all(member.adata is again.adata for member in again.members)
    assert SCTABEnsemble.load(path, adata=False).adata is None
    assert [p.name for p in tmp_path.iterdir()] == ["ensemble"]


def test_saving_does_not_destroy_what_is_there(ensemble, tmp_path, monkeypatch):
    path = tmp_path / "ensemble"
    ensemble.save(path)
    with pytest.raises(ValueError, match="already exists and was left as it is"):
        ensemble.save(path)
    before = content_of(path)
    monkeypatch.setattr(_ensemble_files, "_save_own", lambda ensemble, path, members: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ensemble.save(path, overwrite=True)
    monkeypatch.undo()
    replace = Path.replace

    def fail(self, target):
        if self.name == ENSEMBLE_FILE:
            raise OSError("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        ensemble.save(path, overwrite=True)
    monkeypatch.undo()
    assert content_of(path) == before
    modes = {file.stat().st_mode for file in path.rglob("*.safetensors")}
    assert len(modes) == 1
    SCTABEnsemble.from_members(ensemble.members[:2]).save(path, overwrite=True)
    assert len(SCTABEnsemble.load(path, adata=False).members) == 2


def content_of(path):
    """Content of each file below a folder."""
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_files_that_are_no_ensemble_are_refused(ensemble, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no ensemble in"):
        SCTABEnsemble.load(tmp_path)
    (tmp_path / ENSEMBLE_FILE).write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not an ensemble or is damaged"):
        SCTABEnsemble.load(tmp_path)


@pytest.mark.usefixtures("unguarded")
def test_a_query_is_mapped_onto_every_member(ensemble, query):
    before = ensemble.predict(soft=True)
    fewer = query[:, ::-1][:, 10:].copy()
    reports = SCTABEnsemble.load_query_data(fewer, ensemble).surgery_report()
    assert [len(report.missing_genes) for report in reports] == [10] * 3
    mapped = SCTABEnsemble.load_query_data(query[:, ::-1].copy(), ensemble)
    mapped.train(enable_progress_bar=False, accelerator="cpu")
    assert len(mapped.surgery_report()) == 3
    assert mapped.calibration is ensemble.calibration
    annotation = mapped.annotate()
    np.testing.assert_allclose(
        annotation["reference_probability"],
        ensemble.annotate(query)["probability"],
        atol=1e-5,
    )
    assert (annotation["probability"] != annotation["reference_probability"]).any()
    pd.testing.assert_frame_equal(ensemble.predict(soft=True), before)
    # The ensemble was calibrated, whether its members were or not.
    for member in mapped.members:
        member.calibration_ = None
    mapped.train(enable_progress_bar=False, accelerator="cpu")
    assert mapped.calibration is ensemble.calibration
    with pytest.raises(TypeError, match="The reference is a SCTAB, not a SCTABEnsemble"):
        SCTABEnsemble.load_query_data(query, ensemble.members[0])


def test_members_must_be_of_one_reference(ensemble, model):
    with pytest.raises(ValueError, match="Member 1 has other labels than the first one"):
        SCTABEnsemble.from_members([ensemble.members[0], model])
    with pytest.raises(ValueError, match="at least one member"):
        SCTABEnsemble.from_members([])
    with pytest.raises(ValueError, match="n_members=0: an ensemble has at least one"):
        SCTABEnsemble(ensemble.adata, n_members=0)


@pytest.fixture
def cells(_cells):
    cells = _cells.copy()
    SCTABEnsemble.setup_anndata(cells, labels_key="cell_type", batch_key="sample")
    return cells


def test_ensembles_of_other_seeds_share_no_member(cells):
    starts = []
    for scvi.settings.seed in (0, 1):
        members = SCTABEnsemble(cells, n_members=2).members
        starts += [m.module.final_mapping.weight.detach().numpy() for m in members]
    assert len({start.tobytes() for start in starts}) == 4


def test_joined_models_are_calibrated_on_what_all_held_out(cells, ensemble):
    members = [SCTAB(cells), SCTAB(cells)]
    for seed, member in enumerate(members):
        member.train(datasplitter_kwargs={"seed": seed}, **QUIET | {"max_epochs": 1})
    held_out = [set(member.validation_indices) for member in members]
    joined = SCTABEnsemble.from_members(members)
    assert set(joined.validation_indices) == held_out[0] & held_out[1]
    assert len(joined.validation_indices) < len(held_out[0])
    elsewhere = SCTABEnsemble.from_members([members[0], ensemble.members[0]])
    assert elsewhere.validation_indices is None


def test_an_untrained_ensemble_says_so(reference):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    with pytest.raises(RuntimeError, match="not trained"):
        SCTABEnsemble(reference, n_members=2).predict(reference)


def test_markers_and_attention_are_means_over_the_members(ensemble, query):
    cells = np.arange(30)
    predicted = pd.Categorical(ensemble.predict(query, cells))
    each = [m.get_attention(query, cells).toarray() for m in ensemble.members]
    assert np.abs(each[0] - each[1]).max() > 0.01
    attention = ensemble.get_attention(query, cells)
    np.testing.assert_allclose(attention.toarray(), np.mean(each, axis=0), atol=1e-6)
    n_genes = len(ensemble.gene_names)
    markers = ensemble.get_markers(query, indices=cells, n_genes=n_genes)
    for group, of_group in markers.groupby("group"):
        expected = pd.Series(0.0, ensemble.gene_names)
        for member in ensemble.members:
            weight = member.module.linear_skip.weight.detach().numpy()
            code = list(ensemble.labels).index(group)
            expected += (weight[code] - weight.mean(axis=0)) / len(ensemble.members)
        found = of_group.set_index("gene").loc[ensemble.gene_names]
        np.testing.assert_allclose(
            found["contribution"], expected * found["expression"], rtol=1e-3, atol=1e-5
        )
        looked = np.mean(each, axis=0)[predicted == group].mean(axis=0)
        np.testing.assert_allclose(found["attention"], looked, atol=1e-6)


def dense_input(tensors):
    return dense_expression(tensors), tensors[CONDITIONS_KEY]


def test_members_with_other_coarse_labels_are_refused(reference):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    coarse = [{"B": ["NK"]}, {"B": ["NK", "DC"]}]
    members = [SCTAB(reference, coarse_labels=labels) for labels in coarse]
    with pytest.raises(ValueError, match="Member 1 has other coarse_labels than the first one"):
        SCTABEnsemble.from_members(members)
    joined = SCTABEnsemble.from_members([members[0], SCTAB(reference, coarse_labels=coarse[0])])
    assert joined.coarse_labels == coarse[0]


def test_deletion_is_what_becomes_of_the_mean_of_the_members(ensemble, query):
    cells = np.arange(0, query.n_obs, 30)
    scores = ensemble.get_attention(query, cells)
    table = ensemble.deletion_test({"attention": scores}, query, cells, [10], batch_size=7)
    deleted = query[cells].copy()
    parts = [next(m._map_cells(dense_input, m._select(deleted), 500)) for m in ensemble.members]
    x, conditions = parts[0]
    assert all(torch.equal(x, other) for other, _ in parts)  # members read the same
    order = np.argsort(np.where(x > 0, -scores.toarray(), np.inf), axis=1, kind="stable")
    without = x.clone()
    without[np.arange(len(cells))[:, None], order[:, :10]] = 0

    def mean(x):
        with torch.no_grad():
            logits = [logits_of(m.module, x, conditions) for m in ensemble.members]
        return torch.stack(logits).softmax(dim=2).mean(dim=0).numpy()

    before, after = mean(x), mean(without)
    label, rows = before.argmax(axis=1), np.arange(len(cells))
    drop = before[rows, label] - after[rows, label]
    found = table.set_index("ranking").loc["attention"]
    assert found["drop"] == pytest.approx(drop.mean(), abs=1e-4)
    assert found["changed"] == pytest.approx((after.argmax(axis=1) != label).mean())


def test_attributions_are_the_mean_over_the_members_for_the_label_of_the_ensemble(ensemble, query):
    pytest.importorskip("captum", reason="attributions are captum's")
    predicted = ensemble.predict(query)
    apart = np.flatnonzero(ensemble.members[0].predict(query) != predicted)[:1]
    cells = np.append(apart, 0)  # a cell on which a member disagrees
    assert len(cells) == 2
    options = {"method": "input_x_gradient"}
    found = ensemble.get_attributions(query, cells, **options).toarray()
    for row, cell in zip(found, cells, strict=True):
        each = [
            m.get_attributions(query, [cell], label=predicted[cell], **options).toarray()[0]
            for m in ensemble.members
        ]
        np.testing.assert_allclose(row, np.mean(each, axis=0), atol=1e-5)


def test_the_encoders_of_members_have_more_of_a_say_than_one_alone(ensemble, query):
    SCTABEnsemble.setup_anndata(query, labels_key="cell_type")
    one = SCTAB(query).module.encoder_weight
    assert all(member.module.encoder_weight > one for member in ensemble.members)
    asked = SCTABEnsemble(query, n_members=1, encoder_weight=0.1)
    assert asked.members[0].module.encoder_weight == 0.1


def test_an_ensemble_that_is_not_trained_does_not_embed(reference):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    with pytest.raises(RuntimeError, match="not trained"):
        SCTABEnsemble(reference, n_members=2).get_latent_representation()


def test_a_failure_of_a_later_member_withdraws_the_calibration(reference, monkeypatch):
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    team = SCTABEnsemble(reference, n_members=2)
    team.train(**QUIET)
    assert team.calibration is not None

    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(team.members[1], "train", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        team.train(**QUIET)
    assert team.calibration is None


def test_ctrl_c_before_a_member_has_learnt_keeps_those_before(reference, monkeypatch):
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    team = SCTABEnsemble(reference, n_members=3)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(team.members[1], "train", interrupt)
    team.train(**QUIET)
    assert len(team.members) == 1
    assert len(team.predict()) == reference.n_obs
