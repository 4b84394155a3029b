"""Label issues and errors of groups are what the formulas give, cell by cell."""

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.metrics import find_label_issues, group_errors


def by_hand(labels, p):
    """Thresholds, suggestions and scores by the formulas, with loops."""
    n_labels = p.shape[1]
    thresholds = [
        np.mean([p[i, k] for i in range(len(p)) if labels[i] == k]) if k in labels else np.inf
        for k in range(n_labels)
    ]
    scores = [1 - row[own] / thresholds[own] for row, own in zip(p, labels, strict=True)]
    counted = []
    for row, own in zip(p, labels, strict=True):
        reached = [k for k in range(n_labels) if row[k] >= thresholds[k]]
        best = max(reached, key=lambda k: row[k], default=None)
        counted.append(None if best is None or row[best] < row[own] else best)
    suggested = list(labels)
    for label in set(labels):
        own = [i for i in range(len(p)) if labels[i] == label]
        known = [counted[i] for i in own if counted[i] is not None]
        n_wrong = round(sum(k != label for k in known) / max(len(known), 1) * len(own))
        others = [i for i in own if p[i].argmax() != label]
        for i in sorted(others, key=lambda i: p[i, label])[:n_wrong]:
            suggested[i] = p[i].argmax()
    return thresholds, suggested, scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_labels", [2, 3, 8])
def test_issues_are_those_of_the_formulas(seed, n_labels):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(n_labels, 0.4), size=120)
    labels = np.where(rng.random(120) < 0.8, p.argmax(axis=1), rng.integers(n_labels, size=120))
    p = np.column_stack([p, np.zeros(120)])  # a label without a cell
    p[:, -1] = 0.3 * p[:, 0]
    p /= p.sum(axis=1, keepdims=True)
    issues = find_label_issues(labels, p)
    thresholds, suggested, scores = by_hand(labels, p)
    np.testing.assert_allclose(issues.thresholds, thresholds)
    assert issues.suggested.tolist() == suggested
    np.testing.assert_allclose(issues.score, scores)
    assert issues.is_issue.tolist() == [
        one != own for one, own in zip(suggested, labels, strict=True)
    ]
    assert issues.is_issue.any()
    assert issues.joint.sum() <= 120
    assert n_labels not in issues.suggested


def test_a_label_that_is_hard_to_predict_is_asked_for_less():
    p = [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.55, 0.45], [0.45, 0.55]]
    issues = find_label_issues([0, 0, 1, 1, 1, 0], p)
    assert issues.thresholds == pytest.approx([0.75, 1.25 / 3])
    # The fifth cell counts as its label though the other one is more probable.
    assert issues.joint.tolist() == [[2, 1], [0, 1]]
    assert issues.suggested.tolist() == [0, 0, 1, 1, 1, 1]


def test_a_rare_label_that_is_less_probable_than_the_given_one_is_not_suggested():
    p = [[0.99, 0.01], [0.99, 0.01], [0.9, 0.1], [0.98, 0.02]]
    issues = find_label_issues([0, 0, 0, 1], p)  # 0.1 reaches 0.02, and 0.9 not 0.96
    assert issues.suggested[:3].tolist() == [0, 0, 0]


def test_cells_of_a_label_that_is_never_predicted_do_not_come_first():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    p = np.full((120, 3), [0.05, 0.9, 0.05])
    p[:40] = [0.9, 0.05, 0.05]
    p[80:] = np.where(rng.random((40, 1)) < 0.5, [0.9, 0.08, 0.02], [0.08, 0.9, 0.02])
    labels[:3] = 1
    issues = find_label_issues(labels, p)
    assert set(np.argsort(-issues.score, kind="stable")[:3]) == {0, 1, 2}


def test_no_cell_and_one_label_have_no_issue():
    assert not find_label_issues(np.zeros(0, int), np.zeros((0, 3))).is_issue.size
    assert not find_label_issues([0, 0], [[1.0], [1.0]]).is_issue.any()


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        ([0], [[0.5, 0.5], [1, 0]], r"There are \(1,\) labels and \(2, 2\) probabilities"),
        ([0, 2], [[0.5, 0.5], [1, 0]], "The label of cell 1 has the code 2, .* columns 0 to 1"),
        ([0, -1], [[0.5, 0.5], [1, 0]], "Leave out cells without a label"),
        (["a", "b"], [[0.5, 0.5], [1, 0]], "pass codes of the columns, 0 to 1"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0]], r"not in \[0, 1\]: nan of cell 1 and label 0"),
        ([0, 1], [[0.5, 1.5], [1, 0]], r"1.5 of cell 0 and label 1"),
    ],
)
def test_what_does_not_fit_is_named(labels, p, message):
    with pytest.raises(ValueError, match=message):
        find_label_issues(labels, p)


def donors(n_wrong, n_cells=200):
    """Two labels, one of them hard, in three donors; the third has only the hard one."""
    groups = np.repeat(["a", "b", "c"], n_cells)
    labels = np.tile(["easy", "hard"], 3 * n_cells // 2)
    labels[groups == "c"] = "hard"
    wrong = (labels == "hard") & (np.arange(3 * n_cells) % 10 < 4)
    wrong[np.flatnonzero((groups == "a") & (labels == "easy"))[:n_wrong]] = True
    return groups, labels, wrong


@pytest.mark.parametrize(("n_wrong", "expected"), [(0, set()), (60, {"a"})])
def test_a_donor_stands_out_for_errors_and_not_for_hard_labels(n_wrong, expected):
    groups, labels, wrong = donors(n_wrong)
    table = group_errors(groups, labels, wrong)
    assert set(table.index[table["stands_out"]]) == expected
    for name, row in table.iterrows():
        own = groups == name
        assert row["n_cells"] == own.sum()
        assert row["error"] == pytest.approx(wrong[own].mean())
        rates = pd.Series(wrong[~own]).groupby(labels[~own]).mean()
        assert row["expected"] == pytest.approx(np.mean([rates[label] for label in labels[own]]))


def test_cells_without_a_group_and_a_single_group_are_left_alone():
    table = group_errors(["a", None, "b", np.nan], list("xxxx"), [True, True, False, True])
    assert table["n_cells"].to_dict() == {"a": 1, "b": 1}
    assert not group_errors(["a"] * 90, ["x"] * 90, [True] * 90)["stands_out"].any()
    assert group_errors([], [], []).empty
    own_label = group_errors(list("ab"), list("xy"), [True, False])
    assert own_label["expected"].to_dict() == {"a": 1.0, "b": 0.0}


def draw_groups(rng, n_groups, n_cells, n_labels, low, high):
    """Groups of random composition, whose cells are wrong as their labels make expected."""
    rates = rng.uniform(low, high, n_labels)
    shares = rng.dirichlet(np.full(n_labels, 0.3), size=n_groups)
    labels = np.concatenate([rng.choice(n_labels, n_cells, p=own) for own in shares])
    return np.repeat(np.arange(n_groups), n_cells), labels, rng.random(len(labels)) < rates[labels]


@pytest.mark.parametrize(
    ("n_groups", "n_cells", "n_labels"), [(5, 400, 10), (20, 60, 10), (3, 30, 4)]
)
@pytest.mark.parametrize(("low", "high"), [(0.05, 0.5), (0.1, 0.1)])
def test_groups_stand_out_by_chance_as_rarely_as_stated(n_groups, n_cells, n_labels, low, high):
    rng = np.random.default_rng(0)
    drawn = (draw_groups(rng, n_groups, n_cells, n_labels, low, high) for _ in range(150))
    alarms = [group_errors(*cells)["stands_out"].any() for cells in drawn]
    assert np.mean(alarms) <= 0.05


def test_a_group_with_more_errors_stands_out_unless_few_others_have_its_label():
    groups, labels = np.repeat(list("abc"), 100), np.tile(list("xy"), 150)
    wrong = np.where(groups == "a", np.arange(300) % 5 < 2, np.arange(300) % 10 == 0)
    table = group_errors(groups, labels, wrong)
    assert table.index[table["stands_out"]].tolist() == ["a"]
    groups = np.repeat(list("abc"), [100, 1, 100])
    labels = np.repeat(list("xxy"), [100, 1, 100])
    few = group_errors(groups, labels, (groups == "a") & (np.arange(201) % 5 < 2))
    assert few.loc["a", "error"] - few.loc["a", "expected"] == pytest.approx(0.4)
    assert not few["stands_out"].any()
