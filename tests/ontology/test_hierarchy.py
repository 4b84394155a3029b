"""Arrays of the hierarchy against sets and loops."""

import json

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.ontology import ROOT, CellOntology, LabelHierarchy, match_labels

LABELS = ["B", "T", "CD4", "CD8", "CD4 memory", "odd"]
TERMS = {
    "B": "CL:0000005",
    "T": "CL:0000002",
    "CD4": "CL:0000003",
    "CD8": "CL:0000004",
    "CD4 memory": "CL:0000006",
}


@pytest.fixture
def hierarchy(small):
    return LabelHierarchy.build(LABELS, TERMS, small)


@pytest.fixture(scope="module")
def blood(bundled):
    """Every second kind of leukocyte as a label, and three labels of unknown kind."""
    ids = sorted(bundled.descendants("CL:0000738"))[::2]
    labels = [bundled.name(i) for i in ids]
    terms = dict(zip(labels, ids, strict=True))
    return LabelHierarchy.build([*labels, "odd", "odder", "oddest"], terms, bundled), terms


def naive_own_and_above(ontology, terms, label):
    return {terms[label]} | ontology.ancestors(terms[label]) if terms.get(label) else set()


def random_probabilities(n_labels, n_cells=500, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(n_labels, 0.05), n_cells).astype(dtype)


def test_terms_are_those_of_the_labels_and_all_their_ancestors(blood, bundled):
    hierarchy, terms = blood
    expected = {ROOT}.union(*(naive_own_and_above(bundled, terms, label) for label in terms))
    assert set(hierarchy.terms) == expected
    assert len(hierarchy.terms) == len(expected)
    assert [bundled.name(t) for t in hierarchy.terms] == hierarchy.names.tolist()
    for i, term in enumerate(hierarchy.terms):
        for j, label in enumerate(hierarchy.labels):
            belongs = term == ROOT or term in naive_own_and_above(bundled, terms, label)
            assert hierarchy.members[i, j] == belongs
    own = [hierarchy.terms[i] if i >= 0 else None for i in hierarchy.own]
    assert own == [terms.get(label) for label in hierarchy.labels]
    assert hierarchy.n_ancestors.tolist() == [len(bundled.ancestors(t)) for t in hierarchy.terms]


def test_a_term_comes_after_all_that_it_is_a_kind_of_and_cell_first(blood, bundled):
    hierarchy, _ = blood
    position = {term: i for i, term in enumerate(hierarchy.terms)}
    assert hierarchy.names[0] == "cell"
    assert hierarchy.members[0].all()
    for term, i in position.items():
        assert all(position[above] < i for above in bundled.ancestors(term))
    n_members = hierarchy.members.sum(axis=1)
    assert (np.diff(n_members) <= 0).all()


def test_the_order_of_terms_does_not_depend_on_that_of_labels(hierarchy, small):
    turned = LabelHierarchy.build(LABELS[::-1], TERMS, small)
    assert turned.terms.tolist() == hierarchy.terms.tolist()
    np.testing.assert_array_equal(turned.members[:, ::-1], hierarchy.members)


def test_child_matrix_is_the_closure_with_identity_for_the_unmatched(blood, bundled):
    hierarchy, terms = blood
    children, finer = hierarchy.child_matrix(), hierarchy.finer()
    for y, truth in enumerate(hierarchy.labels):
        for p, predicted in enumerate(hierarchy.labels):
            above = bundled.ancestors(terms[predicted]) if predicted in terms else set()
            below = truth in terms and terms[truth] in above
            assert finer[y, p] == below
            assert children[y, p] == (y == p or below)
    np.testing.assert_array_equal(hierarchy.coarse(), finer.any(axis=1))
    assert hierarchy.coarse().any()
    assert not hierarchy.coarse().all()


def test_labels_with_the_same_term_accept_each_other_but_neither_is_finer(small):
    terms = {"T1": "CL:0000002", "T2": "CL:0000002", "CD4": "CL:0000003"}
    hierarchy = LabelHierarchy.build(["T1", "T2", "CD4"], terms, small)
    expected = [[1, 1, 1], [1, 1, 1], [0, 0, 1]]
    np.testing.assert_array_equal(hierarchy.child_matrix(), np.array(expected, bool))
    np.testing.assert_array_equal(hierarchy.finer(), [[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert hierarchy.coarse().tolist() == [True, True, False]


def test_a_label_of_the_root_does_not_accept_what_has_no_term(small):
    hierarchy = LabelHierarchy.build(["any", "T", "odd"], {"any": ROOT, "T": "CL:0000002"}, small)
    expected = [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(hierarchy.child_matrix(), np.array(expected, bool))


def test_labels_without_any_term_belong_to_cell_only(small):
    hierarchy = LabelHierarchy.build(["a", "b"], {"a": ""}, small)
    assert hierarchy.terms.tolist() == [ROOT]
    np.testing.assert_array_equal(hierarchy.child_matrix(), np.eye(2, dtype=bool))
    assert hierarchy.deepest([[0.5, 0.5]], 0.9).tolist() == [0]


def test_what_is_no_cell_in_the_ontology_belongs_to_cell_all_the_same(small):
    hierarchy = LabelHierarchy.build(["nucleus"], {"nucleus": "CL:0000008"}, small)
    assert hierarchy.names.tolist() == ["cell", "round nucleus"]
    assert hierarchy.members.all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_roll_up_sums_over_members_and_never_falls_towards_the_root(blood, bundled, dtype):
    hierarchy, _ = blood
    probabilities = random_probabilities(len(hierarchy.labels), dtype=dtype)
    rolled = hierarchy.roll_up(probabilities)
    exact = probabilities.astype(np.longdouble) @ hierarchy.members.T.astype(np.longdouble)
    np.testing.assert_allclose(rolled, np.minimum(exact, 1).astype(float), atol=1e-8)
    assert rolled.max() <= 1
    position = {term: i for i, term in enumerate(hierarchy.terms)}
    for term, i in position.items():
        for above in bundled.ancestors(term):
            assert (rolled[:, position[above]] >= rolled[:, i]).all()


def test_the_order_of_labels_does_not_change_a_bit_of_the_sums(blood, bundled):
    hierarchy, terms = blood
    probabilities = random_probabilities(len(hierarchy.labels), dtype=np.float64)
    order = np.random.default_rng(5).permutation(len(hierarchy.labels))
    shuffled = LabelHierarchy.build(hierarchy.labels[order], terms, bundled)
    np.testing.assert_array_equal(
        hierarchy.roll_up(probabilities), shuffled.roll_up(probabilities[:, order])
    )


def test_terms_with_the_same_labels_get_the_same_bits(blood):
    hierarchy, _ = blood
    rolled = hierarchy.roll_up(random_probabilities(len(hierarchy.labels), dtype=np.float64))
    _, first, inverse = np.unique(
        hierarchy.members, axis=0, return_index=True, return_inverse=True
    )
    assert len(first) < len(hierarchy.terms)
    np.testing.assert_array_equal(rolled, rolled[:, first[inverse.ravel()]])


HAND = {
    "sure_of_a_leaf": ([0, 0, 0, 0.9, 0, 0.1], "CD8 T cell"),
    "cd4_or_cd8": ([0, 0, 0.5, 0.5, 0, 0], "T cell"),
    "cd4_of_any_kind": ([0, 0, 0.5, 0, 0.4, 0.1], "CD4 T cell"),
    "t_or_b": ([0.5, 0.2, 0.2, 0, 0, 0.1], "lymphocyte"),
    "a_label_without_a_term": ([0, 0, 0, 0, 0, 1], "cell"),
    "anything": ([0.2, 0.1, 0.1, 0.1, 0.1, 0.4], "cell"),
    # "memory T cell" has the same label and one ancestor less
    "of_terms_with_the_same_labels_the_deeper": ([0, 0, 0, 0, 1, 0], "CD4 memory T cell"),
    "the_level_itself_suffices": ([0, 0, 0, 0.8, 0, 0.2], "CD8 T cell"),
}


@pytest.mark.parametrize("case", HAND)
def test_the_deepest_term_that_reaches_the_level_is(hierarchy, case):
    probabilities, expected = HAND[case]
    row = hierarchy.deepest([probabilities], level=0.8)
    assert hierarchy.names[row].tolist() == [expected]


def test_of_terms_equally_deep_the_more_probable_wins(hierarchy):
    for cd8, b, expected in ((0.51, 0.49, "CD8 T cell"), (0.3, 0.7, "CD8 T cell")):
        row = hierarchy.deepest([[b, 0, 0, cd8, 0, 0]], level=0.3)
        assert hierarchy.names[row].tolist() == [expected]  # CD8 T has an ancestor more than B


def test_of_terms_with_as_many_labels_and_ancestors_the_more_probable_wins(small):
    terms = {"CD4": "CL:0000003", "CD8": "CL:0000004"}
    hierarchy = LabelHierarchy.build(["CD4", "CD8"], terms, small)
    for p in (0.4, 0.6):
        row = hierarchy.deepest([[p, 1 - p]], level=0.3)
        assert hierarchy.names[row].tolist() == ["CD4 T cell" if p > 0.5 else "CD8 T cell"]


def naive_deepest(hierarchy, probability, level):
    rolled = hierarchy.roll_up(probability[None])[0]
    rows = [i for i in range(len(rolled)) if rolled[i] >= level or i == 0]
    n_members = hierarchy.members.sum(axis=1)
    return min(rows, key=lambda i: (n_members[i], -hierarchy.n_ancestors[i], -rolled[i], i))


@pytest.mark.parametrize("level", [0.1, 0.5, 0.7, 1.0])
def test_deepest_is_that_of_a_loop(blood, level):
    hierarchy, _ = blood
    probabilities = random_probabilities(len(hierarchy.labels), 300, seed=3)
    expected = [naive_deepest(hierarchy, p, level) for p in probabilities]
    np.testing.assert_array_equal(hierarchy.deepest(probabilities, level), expected)


def test_blocks_of_cells_change_nothing(blood, monkeypatch):
    hierarchy, _ = blood
    probabilities = random_probabilities(len(hierarchy.labels), 100)
    sets = probabilities > 0.1
    whole = hierarchy.deepest(probabilities, 0.8), hierarchy.lowest_common_ancestor(sets)
    monkeypatch.setattr("scvi_sctab.ontology._hierarchy._BLOCK_CELLS", 7)
    np.testing.assert_array_equal(hierarchy.deepest(probabilities, 0.8), whole[0])
    np.testing.assert_array_equal(hierarchy.lowest_common_ancestor(sets), whole[1])
    assert hierarchy.deepest(probabilities[:0], 0.8).shape == (0,)


def test_no_more_than_a_block_is_held_at_a_time(blood, monkeypatch):
    hierarchy, _ = blood
    sizes = []
    whole = LabelHierarchy.roll_up
    monkeypatch.setattr(
        LabelHierarchy, "roll_up", lambda self, p: sizes.append(len(p)) or whole(self, p)
    )
    monkeypatch.setattr("scvi_sctab.ontology._hierarchy._BLOCK_CELLS", 40)
    hierarchy.deepest(random_probabilities(len(hierarchy.labels), 100), 0.8)
    assert sizes == [40, 40, 20]


SETS = {
    "one_label": (["CD8"], "CD8 T cell"),
    "a_coarse_label": (["T"], "T cell"),
    "label_and_kind_of_it": (["T", "CD4"], "T cell"),
    "siblings": (["CD4 memory", "CD8"], "T cell"),
    "across": (["CD8", "B"], "lymphocyte"),
    "with_a_label_without_a_term": (["CD8", "odd"], "cell"),
    "the_label_without_a_term": (["odd"], "cell"),
}


@pytest.mark.parametrize("case", SETS)
def test_the_lowest_common_ancestor_of_a_set_is(hierarchy, case):
    chosen, expected = SETS[case]
    rows = hierarchy.lowest_common_ancestor([np.isin(LABELS, chosen), [False] * 6])
    assert rows[1] == -1
    assert hierarchy.names[rows[0]] == expected


def test_the_lowest_common_ancestor_of_sets_is_that_of_a_loop(blood):
    hierarchy, _ = blood
    sets = np.random.default_rng(0).random((200, len(hierarchy.labels))) < 0.012
    n_members = hierarchy.members.sum(axis=1)
    for cell, row in zip(sets, hierarchy.lowest_common_ancestor(sets), strict=True):
        holding = [i for i, m in enumerate(hierarchy.members) if not (cell & ~m).any()]
        key = {i: (n_members[i], -hierarchy.n_ancestors[i], i) for i in holding}
        assert row == (min(holding, key=key.get) if cell.any() else -1)


def test_it_survives_json_and_needs_no_ontology(hierarchy):
    saved = hierarchy.to_dict()
    for part in (
        saved,
        json.loads(json.dumps({k: np.asarray(v).tolist() for k, v in saved.items()})),
    ):
        again = LabelHierarchy.from_dict(part)
        for key in saved:
            before, after = getattr(hierarchy, key), getattr(again, key)
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
    assert {type(value) for value in saved.values()} == {list, np.ndarray}


def test_its_arrays_cannot_be_changed(hierarchy):
    with pytest.raises(ValueError, match="read-only"):
        hierarchy.members[0, 0] = False
    hierarchy.to_dict()["members"][0, 0] = False
    assert hierarchy.members[0, 0]


def test_what_matched_can_be_built_at_once(bundled):
    labels = ["T cell", "NK", "mystery"]
    matches = match_labels(labels, bundled, {"NK": "natural killer cell"})
    hierarchy = LabelHierarchy.build(labels, matches["term_id"], bundled)
    assert hierarchy.names[hierarchy.own[:2]].tolist() == ["T cell", "natural killer cell"]
    assert hierarchy.own[2] == -1


def test_bad_labels_are_refused(small):
    with pytest.raises(ValueError, match=r"Labels are duplicated: \['T'\]"):
        LabelHierarchy.build(["T", "T"], TERMS, small)
    with pytest.raises(ValueError, match="has 1 to 4,096 labels, not 0"):
        LabelHierarchy.build([], TERMS, small)
    with pytest.raises(KeyError, match="'CL:0000012' is no term"):
        LabelHierarchy.build(["T"], {"T": "CL:0000012"}, small)


@pytest.mark.parametrize("ask", ["roll_up", "deepest"])
def test_what_are_not_probabilities_of_the_labels_is_refused(hierarchy, ask):
    def call(values):
        return hierarchy.roll_up(values) if ask == "roll_up" else hierarchy.deepest(values, 0.5)

    with pytest.raises(ValueError, match=r"each of the 6 labels is needed, the shape is \(1, 5\)"):
        call(np.full((1, 5), 0.2))
    for bad in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="negative, infinite or not numbers"):
            call([[bad, 0, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"add up to 6, more than 1"):
        call([[1, 1, 1, 1, 1, 1]])


def test_bad_levels_and_sets_are_refused(hierarchy):
    for level in (0, -1, 1.1, np.nan):
        with pytest.raises(ValueError, match=rf"level is {level}"):
            hierarchy.deepest(np.full((1, 6), 1 / 6), level)
    with pytest.raises(ValueError, match="true or false for each label, not float64"):
        hierarchy.lowest_common_ancestor(np.ones((2, 6)))
    with pytest.raises(ValueError, match=r"6 labels is needed, the shape is \(6,\)"):
        hierarchy.lowest_common_ancestor(np.ones(6, dtype=bool))


DAMAGE = {
    "missing": (lambda d: d.pop("own"), "has the fields"),
    "unknown": (lambda d: d.update(more=[]), "has the fields"),
    "shape": (lambda d: d.update(members=d["members"][:, :3]), r"`members` has shape \(8, 3\)"),
    "root": (lambda d: d["terms"].__setitem__(0, "CL:0000001"), "first term has to be CL:0000000"),
    "not_all_cells": (lambda d: d["members"].__setitem__((0, 0), False), "with all labels"),
    "rows": (lambda d: d["own"].__setitem__(0, 8), "rows that there are not"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_dict_is_refused(hierarchy, kind):
    damage, message = DAMAGE[kind]
    saved = hierarchy.to_dict()
    damage(saved)
    with pytest.raises(ValueError, match=message):
        LabelHierarchy.from_dict(saved)


def test_an_ontology_of_another_release_gives_a_hierarchy_of_its_own(small):
    terms = dict(small.terms)
    terms["CL:0000004"] = terms["CL:0000004"]._replace(parents=("CL:0000001",))
    other = LabelHierarchy.build(LABELS, TERMS, CellOntology("next", terms))
    assert not pd.DataFrame(other.child_matrix(), LABELS, LABELS).loc["T", "CD8"]
