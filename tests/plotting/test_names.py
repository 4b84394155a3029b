"""Long names are shortened in the middle, and stay different."""

import pytest

from scvi_sctab.plotting._names import fit, shorten, text_width, with_notes


def test_names_of_forty_characters_stay_and_longer_ones_keep_both_ends():
    exact, longer = "x" * 40, "naive thymus-derived CD4-positive, alpha-beta T cell"
    texts = shorten([exact, longer])
    assert texts[0] == exact
    assert texts[1].startswith("naive thymus-derived…")
    assert len(texts[1]) <= 40
    assert texts[1].endswith("alpha-beta T cell")


@pytest.mark.parametrize("n_characters", [6, 12, 20, 40])
def test_names_that_differ_only_where_they_are_cut_stay_different(n_characters):
    names = [f"CD8-positive, alpha-beta {kind} T cell, CD45RO-positive" for kind in "abcdefghij"]
    texts = shorten(names, n_characters)
    assert len(set(texts)) == len(names)
    assert max(map(len, texts)) <= n_characters


def test_a_name_that_occurs_twice_is_the_same_text_twice(long_labels):
    first, second = shorten([long_labels(1)[0]] * 2)
    assert first == second


def test_fitting_names_take_the_room_they_are_given_with_their_notes(long_labels):
    names, notes = long_labels(40), [" (n = 1,203)"] * 40
    texts = fit(names, 8, 150, notes)
    widths = [text_width(text, 8) for text in texts]
    assert 100 < max(widths) <= 150
    assert all(text.endswith(" (n = 1,203)") for text in texts)
    assert len(set(texts)) == 40
    assert fit(names, 8, 1000, notes) == with_notes(names, notes)
