"""Summaries of held-out cells, on frames whose scores are known."""

import pandas as pd
import pytest

from scvi_sctab.models._held_out import Split, donor_folds, list_splits, summarize
from scvi_sctab.models._recipes import DONOR, LABELS, RECIPES, STUDY


def rows(truth, label, probability, p_value, covered=True):
    return pd.DataFrame(
        {
            "truth": truth,
            "label": label,
            "probability": probability,
            "p_value": p_value,
            "covered": covered,
            "set_size": 1,
        }
    )


def test_scores_are_of_the_held_out_cells():
    known = rows(
        ["a", "a", "b", "b"], ["a", "b", "b", "b"], [0.9, 0.6, 0.9, 0.4], [0.5, 0.04, 1, 1]
    )
    unseen = rows(["a", "a"], ["b", "b"], [0.95, 0.2], [0.01, 0.5])
    splits = [Split("donors", ("d",)), Split("s"), Split("types", ("d",), ("a",))]
    found = summarize(splits, [known, known.iloc[:2].assign(covered=False), unseen])
    donors, study = found["splits"]
    assert (donors["split"], donors["accuracy"], donors["coverage"]) == (
        "donors, in turn",
        0.75,
        1,
    )
    assert donors["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2, abs=1e-3)
    assert donors["false_alarms"] == 0.25
    assert (study["split"], study["n_cells"], study["coverage"]) == ("study s", 2, 0)
    assert found["confusions"] == [{"truth": "a", "predicted": "b", "share": 0.5}]
    (type_a,) = found["unseen"]
    assert (type_a["novel_at_0.01"], type_a["novel_at_0.1"]) == (0.5, 0.5)
    assert type_a["taken_for"] == "b"
    half = found["thresholds"][0]
    assert half == {"probability": 0.5, "kept": 0.75, "accuracy": 0.667, "unseen_flagged": 0.5}


@pytest.mark.parametrize("name", RECIPES)
def test_every_donor_study_and_type_is_held_out_once(name):
    recipe = RECIPES[name]
    cells, splits = recipe.read(), list_splits(recipe)
    held_out = [donor for split in splits if split.name == "donors" for donor in split.donors]
    alone = cells.obs.groupby(STUDY, observed=True)[DONOR].transform("nunique") == 1
    assert sorted(held_out) == sorted(cells.obs.loc[~alone, DONOR].unique())
    studies = [split.name for split in splits if split.name not in ("donors", "types")]
    assert studies == sorted(cells.obs[STUDY].unique())
    types = [label for split in splits for label in split.types]
    assert sorted(types) == sorted(set(cells.obs[LABELS]) - set(recipe.coarse_labels))


def test_folds_have_similar_sizes():
    cells = RECIPES["pancreas"].read()
    sizes = [cells.obs[DONOR].isin(fold).sum() for fold in donor_folds(cells, 4)]
    assert max(sizes) - min(sizes) < 40


def test_no_cell_is_in_a_recipe_twice_and_labels_are_terms():
    for recipe in RECIPES.values():
        cells = recipe.read()
        assert cells.obs_names.is_unique
        assert not cells.obs[LABELS].isna().any()
    # The cell of Baron et al. that both files hold.
    dense = RECIPES["pancreas"].read().X.toarray()
    assert len({row.tobytes() for row in dense}) == len(dense)


def test_a_recipe_goes_without_a_study_of_its_own_only():
    assert set(RECIPES["pbmc"].read(without="pbmc3k").obs[STUDY]) == {"kang18"}
    with pytest.raises(ValueError, match=r"no study 'pbmc8k'.*\['kang18', 'pbmc3k'\]"):
        RECIPES["pbmc"].read(without="pbmc8k")
