"""An audit finds labels that were exchanged, by models that never saw the cell."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scvi
from scipy.stats import norm

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.metrics import find_label_issues
from scvi_sctab.model._audit import assign_folds, fit_prior
from scvi_sctab.model._training_report import _can_audit

QUICK = {"max_epochs": 8, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def exchanged(_cuts):
    """Cells of which 15 monocytes are called T cells, and the audit of a model that is not trained."""
    cells = _cuts[0].copy()
    labels = cells.obs["cell_type"].astype(str)
    moved = labels.index[labels == "CD14 Mono"][::20][:15]
    labels[moved] = "CD4 Naive T"
    only = labels.index[(labels == "DC") & (cells.obs["donor_id"].astype(str) == "1015")]
    labels[only] = "of one donor"
    cells.obs["cell_type"] = labels.astype("category")
    with pytest.warns(UserWarning, match="'of one donor'"):
        SCTAB.setup_anndata(cells, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(cells)
    before = cells.obs.copy()
    audit = model.audit_labels(3, groupby=["condition"], **QUICK)
    assert not model.is_trained_
    pd.testing.assert_frame_equal(cells.obs, before)
    return model, audit, moved


def test_exchanged_cells_come_first(exchanged):
    _, audit, moved = exchanged
    first = audit.cells.sort_values("score", ascending=False).index[: len(moved)]
    assert len(set(first) & set(moved)) >= 12
    found = audit.cells.loc[moved]
    assert found["is_issue"].mean() >= 0.7
    pair = audit.pairs.set_index(["label", "suggested_label"]).loc[("CD4 Naive T", "CD14 Mono")]
    assert pair["n_cells"] >= 8
    assert {"LYZ", "FTL", "TYROBP", "CCL2", "CTSB", "S100A8", "CD63"} & {*pair["genes"]}


def test_counts_are_those_of_the_cells(exchanged):
    model, audit, _ = exchanged
    cells = audit.cells
    assert list(cells.index) == list(model.adata.obs_names)
    assert list(cells["label"].astype(str)) == list(model.adata.obs["cell_type"].astype(str))
    changed = cells["label"].astype(str) != cells["suggested_label"].astype(str)
    assert cells["is_issue"].equals(changed)
    assert audit.labels["n_issues"].sum() == audit.pairs["n_cells"].sum() == changed.sum()
    assert audit.labels["n_cells"].sum() == len(cells)
    audited = cells[audit.is_audited]
    obs = model.adata.obs.loc[audited.index]
    wrong = audited["predicted_label"].astype(str) != audited["label"].astype(str)
    for column, own in audit.groups.groupby("column"):
        own = own.set_index("group")
        counts = audited["is_issue"].groupby(obs[column].astype(str)).sum()
        assert own["n_issues"].to_dict() == counts.to_dict()
        assert own["n_cells"].sum() == len(audited) < len(cells)
        errors = wrong.groupby(obs[column].astype(str)).mean()
        assert own["error"].to_dict() == pytest.approx(errors.to_dict())
    assert list(dict.fromkeys(audit.groups["column"])) == ["donor_id", "condition"]
    assert f"{changed.sum():,} of {len(audited):,} labels contradict" in repr(audit)


def test_a_donor_is_in_one_fold(exchanged):
    model, audit, _ = exchanged
    folds = audit.cells["fold"].groupby(model.adata.obs["donor_id"].astype(str)).nunique()
    assert (folds == 1).all()
    assert audit.cells["fold"].nunique() == 3


def test_a_label_that_no_other_fold_has_is_no_issue(exchanged):
    _, audit, _ = exchanged
    own = audit.cells[audit.cells["label"] == "of one donor"]
    assert len(own) > 0
    assert own[["probability", "score"]].isna().all(axis=None)
    assert not own["is_issue"].any()
    assert audit.cells.drop(own.index)["score"].notna().all()
    row = audit.labels.loc["of one donor"]
    assert row[["share", "recall", "threshold"]].isna().all()
    assert (row["n_cells"], row["n_issues"]) == (len(own), 0)
    assert audit.labels.drop("of one donor")[["share", "recall"]].notna().all(axis=None)


def test_the_label_prior_keeps_frequent_labels_that_overlap_with_rare_ones():
    rng = np.random.default_rng(0)
    priors, means = [0.8, 0.15, 0.04, 0.01], np.array([0.0, 1.0, 2.0, 3.0])
    truth = rng.choice(4, 20_000, p=priors)
    # Class-balanced logits are log-densities without the label prior.
    logits = norm.logpdf(rng.normal(means[truth])[:, None], means)
    is_wrong = rng.random(len(truth)) < 0.01
    given = np.where(is_wrong, rng.choice(4, len(truth)), truth)
    is_wrong = given != truth
    scaling = fit_prior(logits, given, np.bincount(given))
    found, capped = (
        find_label_issues(given, each.probabilities(logits)).is_issue
        for each in (scaling, scaling._replace(moves_labels=False))
    )
    assert found.sum() < capped.sum() / 2
    assert is_wrong[found].mean() > 2 * is_wrong[capped].mean()


def test_cells_that_were_set_up_again_are_audited_as_they_were(reference):
    reference.obs["half"] = np.where(
        reference.obs["cell_type"].astype(str).str.contains("Mono"), "monocyte", "other"
    )
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference)
    scvi.settings.seed = 0
    expected = model.audit_labels(2, max_epochs=1, accelerator="cpu")
    SCTAB.setup_anndata(reference, labels_key="half", donor_key="condition")
    other = SCTAB(reference)
    scvi.settings.seed = 0
    found = model.audit_labels(2, max_epochs=1, accelerator="cpu")
    pd.testing.assert_frame_equal(found.cells, expected.cells)
    assert list(SCTAB(reference).labels) == list(other.labels) == ["monocyte", "other"]
    half = other.audit_labels(2, max_epochs=1, accelerator="cpu").cells
    assert list(half["label"].astype(str)) == list(reference.obs["half"])


def test_changed_labels_are_not_audited(reference):
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference)
    reference.obs["cell_type"] = reference.obs["cell_type"].to_numpy()[::-1]
    with pytest.raises(ValueError, match="has changed since"):
        model.audit_labels()


def test_donors_with_labels_of_their_own_are_refused_before_training(reference, monkeypatch):
    types = reference.obs["cell_type"].astype(str)
    reference.obs["donor"] = types.replace({"B": "NK"})
    with pytest.warns(UserWarning, match="donor"):
        SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor")
    model = SCTAB(reference)
    monkeypatch.setattr(SCTAB, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match="'donor' have labels of their own.*group_key="):
        model.audit_labels(2)


def test_a_column_of_groups_may_be_given_by_its_name(model):
    audit = model.audit_labels(2, groupby="condition", max_epochs=1, accelerator="cpu")
    assert list(dict.fromkeys(audit.groups["column"])) == ["donor_id", "condition"]


@pytest.mark.parametrize("groups", [None, np.arange(60) // 10])
def test_folds_are_the_same_each_time_and_hold_all_cells(groups):
    labels = np.arange(60) % 3
    folds = assign_folds(labels, groups, 3)
    assert np.bincount(folds).tolist() == [20, 20, 20]
    np.testing.assert_array_equal(folds, assign_folds(labels, groups, 3))
    if groups is not None:
        assert all(len(set(folds[groups == group])) == 1 for group in range(6))


def test_there_are_no_more_folds_than_donors():
    assert assign_folds(np.zeros(40, int), np.arange(40) % 2, 5).max() == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_folds": 1}, ValueError, "n_folds=1 of .* labelled cells: take two or more"),
        ({"groupby": ["leiden"]}, KeyError, "leiden"),
        ({"group_key": "lane"}, KeyError, "lane"),
        (
            {"train_size": 0.5},
            TypeError,
            "train_size: cells and checkpoints are those of the model",
        ),
        ({"max_epoch": 3}, TypeError, "max_epoch"),
        ({"early_stopping": True}, ValueError, "early_stopping: .* Give `max_epochs`"),
    ],
)
def test_what_cannot_be_audited_is_named(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.audit_labels(**arguments)


def test_a_model_without_its_cells_is_refused(model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"load it with them, `SCTAB.load\(path, adata\)`"):
        SCTAB.load(tmp_path / "model").audit_labels()


def test_a_column_of_one_value_holds_nothing_out(reference):
    reference.obs["study"] = "Kang"
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    with pytest.raises(ValueError, match="group_key='study' has one value"):
        SCTAB(reference).audit_labels(group_key="study")


def test_an_audit_of_other_cells_or_labels_is_no_part_of_a_report(exchanged, model):
    _, audit, _ = exchanged
    with pytest.raises(
        ValueError, match="of other labels than this model, such as 'of one donor'"
    ):
        model.training_report(audit=audit)
    cells = audit.cells[audit.cells["label"] != "of one donor"].copy()
    for name in ("label", "suggested_label", "predicted_label"):
        cells[name] = pd.Categorical(cells[name].astype(str), categories=model.labels)
    own = replace(audit, cells=cells)
    assert model.training_report(audit=own).audit.n_cells == len(cells)
    cells.index = [f"other {name}" for name in cells.index]
    with pytest.raises(ValueError, match="of other cells .* such as 'other "):
        model.training_report(audit=own)


def test_the_advice_to_audit_is_for_models_that_can_be(model, tmp_path, reference):
    assert _can_audit(model)
    assert model.training_report().can_audit
    assert model.training_report().provenance.call == "model.training_report()"
    assert (
        model.training_report(tmp_path / "a.html", name="Kang").provenance.call
        == 'model.training_report("a.html", name="Kang")'
    )
    assert "model.audit_labels()" in (tmp_path / "a.html").read_text()
    SCTABEnsemble.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    ensemble = SCTABEnsemble(reference, n_members=2)
    ensemble.train(max_epochs=1, accelerator="cpu")
    assert not ensemble.training_report(tmp_path / "b.html").can_audit
    assert "audit_labels()" not in (tmp_path / "b.html").read_text()


@pytest.mark.parametrize("name", ["has_pretrained_encoder_", "pretraining_history_"])
def test_a_model_on_a_trained_encoder_cannot_be_audited(name, model, monkeypatch):
    monkeypatch.setattr(model, name, True, raising=False)
    assert not _can_audit(model)
    with pytest.raises(ValueError, match="encoder of this model was trained before"):
        model.audit_labels()
