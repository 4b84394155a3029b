"""An audit finds labels that were exchanged, by models that never saw the cell."""

import numpy as np
import pandas as pd
import pytest

from scvi_sctab import SCTAB
from scvi_sctab.model._audit import assign_folds

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
    for column, own in audit.groups.groupby("column"):
        counts = cells["is_issue"].groupby(model.adata.obs[column].astype(str)).sum()
        assert own.set_index("group")["n_issues"].to_dict() == counts.to_dict()
    assert list(dict.fromkeys(audit.groups["column"])) == ["donor_id", "condition"]
    assert f"{changed.sum():,} of {len(cells):,} labels contradict" in repr(audit)


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
    ],
)
def test_what_cannot_be_audited_is_named(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.audit_labels(**arguments)


def test_a_model_without_its_cells_is_refused(model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"load it with them, `SCTAB.load\(path, adata\)`"):
        SCTAB.load(tmp_path / "model").audit_labels()
