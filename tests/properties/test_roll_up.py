"""Probabilities of terms follow the ontology, for any labels and any probabilities."""

from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvi_sctab.ontology import CellOntology, LabelHierarchy, match_labels

NAMES = [
    "B cell",
    "T cell",
    "CD4 T",
    "CD8 T",
    "NK",
    "CD14 Mono",
    "monocyte",
    "pDC",
    "platelet",
    "?",
]


@cache
def ontology():
    return CellOntology.load()


def build(labels):
    return LabelHierarchy.build(labels, match_labels(labels)["term_id"], ontology())


@st.composite
def labels_and_probabilities(draw):
    labels = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    raw = draw(hnp.arrays(np.float64, (3, len(labels)), elements=st.floats(0.001, 1)))
    return labels, raw / raw.sum(axis=1, keepdims=True)


@given(case=labels_and_probabilities(), level=st.floats(0.05, 1))
def test_no_term_has_less_than_its_descendants(case, level):
    labels, probabilities = case
    hierarchy = build(labels)
    rolled = hierarchy.roll_up(probabilities)
    position = {term: row for row, term in enumerate(hierarchy.terms)}
    for term, row in position.items():
        for ancestor in ontology().ancestors(term):
            if ancestor in position:
                assert (rolled[:, position[ancestor]] >= rolled[:, row]).all()
    np.testing.assert_allclose(rolled[:, 0], 1, atol=1e-7)  # all are cells
    deepest = hierarchy.deepest(probabilities, level)
    reached = rolled[np.arange(3), deepest]
    assert ((reached >= level) | (deepest == 0)).all()
    # Nothing below it reaches the level.
    for cell, row in enumerate(deepest):
        below = [
            position[term]
            for term in position
            if hierarchy.terms[row] in ontology().ancestors(term)
            and hierarchy.members[position[term]].sum() < hierarchy.members[row].sum()
        ]
        assert (rolled[cell, below] < level).all()


@given(case=labels_and_probabilities(), data=st.data())
def test_the_common_ancestor_holds_the_set(case, data):
    labels, _ = case
    hierarchy = build(labels)
    sets = data.draw(hnp.arrays(bool, (4, len(labels))))
    rows = hierarchy.lowest_common_ancestor(sets)
    for chosen, row in zip(sets, rows, strict=True):
        if not chosen.any():
            assert row == -1
            continue
        assert hierarchy.members[row][chosen].all()
        holding = hierarchy.members[:, chosen].all(axis=1)
        assert hierarchy.members[row].sum() == hierarchy.members[holding].sum(axis=1).min()
