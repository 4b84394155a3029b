"""Ontology-aware scores against loops over sets."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from scvi_sctab.metrics import (
    classification_report,
    hierarchical_scores,
    ontology_corrected,
    ontology_cross_entropy,
    ontology_report,
)
from scvi_sctab.ontology import CellOntology, LabelHierarchy

TERMS = {
    "T": "CL:0000084",
    "CD4 T": "CL:0000624",
    "CD8 T": "CL:0000625",
    "naive CD4 T": "CL:0000895",
    "B": "CL:0000236",
}
LABELS = [*TERMS, "odd"]


@pytest.fixture(scope="module")
def ontology():
    return CellOntology.load()


@pytest.fixture(scope="module")
def hierarchy(ontology):
    return LabelHierarchy.build(LABELS, TERMS, ontology)


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    return rng.choice(LABELS, 400), rng.choice(LABELS, 400)


@pytest.fixture
def probabilities():
    values = np.random.default_rng(1).dirichlet(np.full(len(LABELS), 0.3), 400)
    return pd.DataFrame(values, columns=LABELS)


def is_right(ontology, truth, predicted):
    if truth == predicted:
        return True
    if "odd" in (truth, predicted):
        return False
    return TERMS[truth] in ontology.ancestors(TERMS[predicted])


def test_the_published_example_comes_out(ontology):
    # 0 is the parent of 1: predictions [1, 0, 2, 1] of truths [0, 1, 1, 1].
    names = {"0": "CL:0000084", "1": "CL:0000624", "2": "CL:0000236"}
    hierarchy = LabelHierarchy.build(list(names), names, ontology)
    corrected = ontology_corrected(list("0111"), list("1021"), hierarchy)
    assert corrected.predicted.tolist() == list("0021")
    assert corrected.truth.tolist() == list("1111")


def test_the_correction_is_that_of_a_loop(labels, ontology, hierarchy):
    truth, predicted = labels
    corrected = ontology_corrected(truth, predicted, hierarchy)
    for y, p, new_y, new_p in zip(truth, predicted, *corrected, strict=True):
        expected = (p, y) if is_right(ontology, y, p) else (y, p)
        assert (new_y, new_p) == expected


def test_the_report_has_the_scores_of_sklearn_on_corrected_predictions(
    labels, ontology, hierarchy
):
    truth, predicted = labels
    report = ontology_report(truth, predicted, hierarchy)
    right = [is_right(ontology, y, p) for y, p in zip(truth, predicted, strict=True)]
    corrected = np.where(right, truth, predicted)
    assert report.loc["accuracy", "f1"] == pytest.approx(np.mean(right))
    assert report.loc["macro average", "f1"] == pytest.approx(
        sk.f1_score(truth, corrected, average="macro")
    )
    assert report.loc["macro average", "n_cells"] == len(truth)


def test_an_ancestor_of_the_truth_is_wrong_and_a_kind_of_it_right(hierarchy):
    assert ontology_report(["CD4 T"], ["T"], hierarchy).loc["accuracy", "f1"] == 0
    assert ontology_report(["T"], ["naive CD4 T"], hierarchy).loc["accuracy", "f1"] == 1
    assert ontology_report(["CD8 T"], ["CD4 T"], hierarchy).loc["accuracy", "f1"] == 0


def test_without_kinds_of_each_other_nothing_is_corrected(labels, ontology):
    truth, predicted = labels
    flat = LabelHierarchy.build(LABELS, {}, ontology)
    pd.testing.assert_frame_equal(
        ontology_report(truth, predicted, flat), classification_report(truth, predicted)
    )


def test_the_cross_entropy_is_taken_against_the_prediction_where_it_is_accepted(
    labels, probabilities, ontology, hierarchy
):
    truth, _ = labels
    losses = []
    for y, (_, row) in zip(truth, probabilities.iterrows(), strict=True):
        best = row.idxmax()
        losses.append(-np.log(row[best if is_right(ontology, y, best) else y]))
    loss = ontology_cross_entropy(truth, probabilities, hierarchy)
    assert loss == pytest.approx(np.mean(losses))


def test_without_kinds_of_each_other_the_cross_entropy_is_that_of_sklearn(
    labels, probabilities, hierarchy, ontology
):
    truth, _ = labels
    flat = LabelHierarchy.build(LABELS, {}, ontology)
    ordered = probabilities[sorted(LABELS)]
    expected = sk.log_loss(truth, ordered.to_numpy(), labels=sorted(LABELS))
    assert ontology_cross_entropy(truth, probabilities, flat) == pytest.approx(expected)
    assert ontology_cross_entropy(truth, ordered, flat) == pytest.approx(expected)
    assert ontology_cross_entropy(truth, probabilities, hierarchy) < expected


def test_a_probability_of_zero_gives_a_finite_loss(hierarchy):
    sure = pd.DataFrame(np.eye(len(LABELS), dtype=np.float32)[:1], columns=LABELS)
    loss = ontology_cross_entropy(["B"], sure, hierarchy)
    assert loss == pytest.approx(-np.log(np.finfo(np.float32).eps))


def naive_scores(truth, predicted, ontology):
    """Precision and recall over multisets of ancestors; hF1 of :cite:p:`Kosmopoulos15`."""

    def above(label):
        if label == "odd":
            return {"odd"}
        return ({TERMS[label]} | ontology.ancestors(TERMS[label])) - {"CL:0000000"}

    shared = sum(len(above(y) & above(p)) for y, p in zip(truth, predicted, strict=True))
    precision = shared / sum(len(above(p)) for p in predicted)
    recall = shared / sum(len(above(y)) for y in truth)
    return [precision, recall, 2 * precision * recall / (precision + recall)]


def test_hierarchical_scores_are_those_of_a_loop_over_sets(labels, ontology, hierarchy):
    scores = hierarchical_scores(*labels, hierarchy)
    assert list(scores.index) == ["precision", "recall", "f1"]
    np.testing.assert_allclose(scores, naive_scores(*labels, ontology))


def test_a_near_miss_scores_between_right_and_wrong(hierarchy):
    right = hierarchical_scores(["CD4 T"], ["CD4 T"], hierarchy)
    near = hierarchical_scores(["CD4 T"], ["CD8 T"], hierarchy)
    far = hierarchical_scores(["CD4 T"], ["B"], hierarchy)
    wrong = hierarchical_scores(["CD4 T"], ["odd"], hierarchy)
    assert right.tolist() == [1, 1, 1]
    assert wrong.tolist() == [0, 0, 0]
    assert 1 > near["f1"] > far["f1"] > 0
    coarse = hierarchical_scores(["CD4 T"], ["T"], hierarchy)
    assert coarse["precision"] == 1 > coarse["recall"]


def test_a_label_without_a_term_is_right_if_it_is_predicted(hierarchy):
    assert hierarchical_scores(["odd"], ["odd"], hierarchy).tolist() == [1, 1, 1]


def test_the_root_earns_nothing(ontology):
    hierarchy = LabelHierarchy.build(
        ["cell", "B"], {"cell": "CL:0000000", "B": TERMS["B"]}, ontology
    )
    assert hierarchical_scores(["B", "cell"], ["cell", "cell"], hierarchy).tolist() == [0, 0, 0]


def test_hierarchical_scores_on_a_tree_are_those_of_hiclass():
    hiclass = pytest.importorskip("hiclass.metrics")
    from scvi_sctab.ontology import Term

    ids = [f"CL:{i:07d}" for i in range(7)]
    parents = [(), (ids[0],), (ids[0],), (ids[1],), (ids[1],), (ids[2],), (ids[2],)]
    tree = CellOntology("tree", {i: Term(i, parents=p) for i, p in zip(ids, parents, strict=True)})
    leaves = ids[3:]
    hierarchy = LabelHierarchy.build(leaves, dict(zip(leaves, leaves, strict=True)), tree)
    truth, predicted = np.random.default_rng(0).choice(leaves, (2, 100))
    paths = [
        np.array([[*tree.terms[leaf].parents, leaf] for leaf in side])
        for side in (truth, predicted)
    ]
    expected = [getattr(hiclass, score)(*paths) for score in ("precision", "recall", "f1")]
    np.testing.assert_allclose(hierarchical_scores(truth, predicted, hierarchy), expected)


SCORES = [ontology_corrected, ontology_report, hierarchical_scores]


@pytest.mark.parametrize("score", SCORES)
def test_labels_that_the_hierarchy_lacks_are_named_with_the_cure(score, hierarchy):
    with pytest.raises(
        ValueError, match=r"labels of the hierarchy: 'NK'\. Build it over the labels"
    ):
        score(["B", "NK"], ["B", "T"], hierarchy)
    with pytest.raises(ValueError, match=r"labels of the hierarchy: 'NK', 'pDC'"):
        score(["B", "pDC"], ["NK", "B"], hierarchy)
    with pytest.raises(ValueError, match="1 true labels but 2 predicted"):
        score(["B"], ["B", "T"], hierarchy)


def test_a_truth_without_a_column_of_probabilities_is_named(hierarchy, probabilities):
    narrow = probabilities[["CD4 T", "B"]].iloc[:2]
    assert np.isfinite(ontology_cross_entropy(["B", "B"], narrow, hierarchy))
    with pytest.raises(ValueError, match="No column of probabilities for: 'odd'"):
        ontology_cross_entropy(["odd", "B"], narrow, hierarchy)


def test_truth_and_predictions_are_matched_by_the_names_of_cells(hierarchy):
    names = pd.Index(["c1", "c2", "c3"])
    labels = pd.Series(list(hierarchy.labels[:3]), names)
    predicted = labels.iloc[[2, 0, 1]]
    assert (ontology_corrected(labels, predicted, hierarchy).predicted == labels).all()
    soft = pd.DataFrame(np.eye(3), names, labels).loc[predicted.index]
    assert ontology_cross_entropy(labels, soft, hierarchy) == pytest.approx(0)
