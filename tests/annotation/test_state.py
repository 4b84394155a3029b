"""State is replaced as a whole, compared by value, and comes back from plain values."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pytest

from scvi_sctab._constants import QUERY_POLICIES
from scvi_sctab.annotation import AnnotationState, same_values
from scvi_sctab.metrics import Calibration, CellLogits, fit_centers
from scvi_sctab.model._records import QueryRecord, QueryTraining, ReferenceStatistics
from scvi_sctab.nn import NewEntries
from scvi_sctab.ontology import CellOntology, LabelHierarchy

LABELS = np.array(["B", "CD4 T", "CD8 T", "T"])
TERMS = {"B": "CL:0000236", "CD4 T": "CL:0000624", "CD8 T": "CL:0000625", "T": "CL:0000084"}


def draw_logits(n_cells, seed):
    codes = np.arange(n_cells) % 3
    rng = np.random.default_rng(seed)
    logits = 4 * np.eye(4)[codes] + rng.normal(size=(n_cells, 4))
    logits[:, 3] = -1e4
    return CellLogits(logits, logits, logits), codes


@pytest.fixture
def state():
    trained, codes = draw_logits(200, seed=0)
    held_out, truth = draw_logits(100, seed=1)
    centers = fit_centers(trained.features, codes)
    return AnnotationState(
        LABELS,
        Calibration.fit(centers, held_out, truth, "temperature"),
        LabelHierarchy.build(LABELS, TERMS, CellOntology.load()),
        {"T": ["CD4 T", "CD8 T"]},
    )


def test_a_state_comes_back_from_plain_values(state):
    again = AnnotationState.from_dict(state.to_dict())
    assert again == state
    assert hash(again) == hash(state)
    logits, _ = draw_logits(20, seed=2)
    expected = state.probabilities(logits.logits)
    np.testing.assert_array_equal(again.probabilities(logits.logits), expected)
    np.testing.assert_array_equal(
        again.prediction_sets(expected, 0.1), state.prediction_sets(expected, 0.1)
    )


def test_states_differ_where_a_part_does(state):
    for change in (
        {"calibration": None},
        {"hierarchy": None},
        {"coarse_labels": {"T": ["CD4 T"]}},
        {"labels": LABELS[::-1]},
    ):
        assert replace(state, **change) != state, change
    assert state != "state"


def test_a_state_cannot_be_changed(state):
    with pytest.raises(FrozenInstanceError):
        state.calibration = None


def test_a_coarse_label_is_neither_predicted_nor_in_a_set(state):
    assert state.predictable.tolist() == [True, True, True, False]
    assert state.accepted[3].tolist() == [False, True, True, False]
    assert replace(state, coarse_labels={}).accepted is None
    even = np.full((2, 4), 0.25, np.float32)
    assert not state.prediction_sets(even, 0.01)[:, 3].any()


def test_a_model_that_grew_knows_of_new_labels_that_they_are_cells(state):
    grown = state.for_labels(np.array([*LABELS, "Mast"]))
    assert grown.hierarchy.members[:, 4].sum() == 1
    assert grown.hierarchy.members[0, 4]
    assert grown.hierarchy.own[4] == -1
    assert grown.calibration is state.calibration


def test_the_three_stages_of_a_probability():
    trained, codes = draw_logits(300, seed=0)
    three = AnnotationState(LABELS[:3])
    part = CellLogits(*(a[:, :3] for a in (trained.logits,) * 3))
    counts = np.array([200, 50, 50])
    rare = np.concatenate([np.flatnonzero(codes == k)[: counts[k] // 2] for k in range(3)])
    calibration = Calibration.fit(
        fit_centers(part.features, codes), part.take(rare), codes[rare], "prior", counts
    )
    calibrated = replace(three, calibration=calibration)
    balanced = calibrated.class_balanced(part.logits)
    temperature = calibration.scaling.temperature
    raised = np.exp(part.logits / temperature)
    np.testing.assert_allclose(balanced, raised / raised.sum(axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(
        calibrated.with_label_prior(balanced),
        calibrated.probabilities(part.logits),
        rtol=1e-4,
        atol=1e-25,  # below, probabilities are clipped before their logarithm
    )
    # Without a calibration all three are the softmax.
    np.testing.assert_allclose(
        three.with_label_prior(three.class_balanced(part.logits)), three.probabilities(part.logits)
    )


def test_a_state_without_calibration_names_the_cure():
    with pytest.raises(RuntimeError, match=r"not calibrated.*model\.calibrate\(adata\)"):
        AnnotationState(LABELS).calibrated()


@pytest.fixture
def record():
    return QueryRecord(
        policy="head",
        new_entries={"a": NewEntries(0, [3]), "b": None},
        missing_genes=["CD3D"],
        reference_categories={"donor": ["1", "2"]},
        reference_labels=["B", "T"],
        known_batches={"donor": ["1"]},
    )


def test_a_query_record_comes_back_from_plain_values_before_and_after_training(record):
    assert record.patterns == QUERY_POLICIES["head"]
    assert record.to_dict()["training"] == {}
    moved = pd.DataFrame({"parameter": ["a"], "old_moved": [0.5]})
    trained = record.after(QueryTraining(True, 0.25, False, moved))
    for one in (record, trained):
        again = QueryRecord.from_dict(one.to_dict())
        assert again == one
        assert again.new_entries["a"].positions == [3]
    assert trained != record
    assert not record.training.trained  # replaced, not changed


def test_a_record_of_an_early_version_has_what_it_lacks_by_default(record):
    saved = record.to_dict() | {"training": {"trained": True, "changed_labels": 0.1}}
    training = QueryRecord.from_dict(saved).training
    assert training.trained
    assert not training.seems_sorted


def test_statistics_come_back_from_plain_values():
    statistics = ReferenceStatistics(1.5, 3.0)
    assert ReferenceStatistics.from_dict(statistics.to_dict()) == statistics


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), True),
        (np.array([1, 2]), np.array([1.0, 2.0]), False),
        (np.array(["a"]), np.array(["b"]), False),
        ({"a": [1]}, {"b": [1]}, False),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]}), True),
        (pd.DataFrame({"a": [1]}), {"a": [1]}, False),
        (None, {}, False),
    ],
)
def test_values_are_compared_whatever_holds_them(one, other, same):
    assert same_values(one, other) is same
