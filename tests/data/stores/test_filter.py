"""Filters and splits of a corpus against naive oracles."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.data.stores import CorpusFilter, split_donors, subsample
from scvi_sctab.ontology import CellOntology


@pytest.fixture(scope="module")
def ontology():
    return CellOntology.load()


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    n = 4_000
    types = ["T cell", "B cell", "cell", "leukocyte", "CD8-positive, alpha-beta T cell"]
    table = pd.DataFrame(
        {
            "label": pd.Categorical(rng.choice(types, n, p=[0.5, 0.1, 0.1, 0.2, 0.1])),
            "donor": pd.Categorical([f"d{i}" for i in rng.integers(40, size=n)]),
            "is_primary_data": rng.random(n) < 0.9,
            "assay": rng.choice(["10x 3' v3", "10x 5' v1", "Smart-seq2"], n),
        }
    )
    # One type of few donors.
    table.loc[(table["label"] == "B cell") & (table["donor"].astype(str) > "d2"), "label"] = (
        "T cell"
    )
    table.loc[::50, "label"] = np.nan
    return table


def judge(filters, cells, **lookup):
    return filters.apply(cells["label"], cells["donor"], cells, **lookup)


def oracle(cells, ontology, min_cells, min_donors, min_ancestors):
    """Follow the paper, a type at a time."""
    first = cells[cells["is_primary_data"] & cells["assay"].str.startswith("10x")]
    kept = first
    for label in first["label"].dropna().unique():
        of_type = first[first["label"] == label]
        (term,) = ontology.with_name(label)
        few = len(of_type) < min_cells or of_type["donor"].nunique() < min_donors
        if few or len(ontology.ancestors(term)) < min_ancestors or term == "CL:0000000":
            kept = kept[kept["label"] != label]
    return set(kept.index)


@pytest.mark.parametrize("min_cells", [1, 300])
@pytest.mark.parametrize("min_donors", [1, 12])
@pytest.mark.parametrize("min_ancestors", [1, 9])
def test_the_filter_of_the_paper_keeps_what_a_naive_oracle_keeps(
    cells, ontology, min_cells, min_donors, min_ancestors
):
    chosen = replace(
        CorpusFilter.paper(),
        min_cells=min_cells,
        min_donors=min_donors,
        min_ancestors=min_ancestors,
    )
    kept, removed = judge(chosen, cells, ontology=ontology)
    assert set(cells.index[kept]) == oracle(cells, ontology, min_cells, min_donors, min_ancestors)
    assert removed["primary data"] == (~cells["is_primary_data"]).sum()
    assert sum(removed.values()) >= (~kept).sum() > 0


def test_cells_without_a_label_are_kept(cells):
    kept, _ = judge(CorpusFilter(min_cells=10**6), cells)
    assert (kept == cells["label"].isna()).all()


def test_without_conditions_all_cells_are_kept(cells):
    kept, removed = judge(CorpusFilter(), cells)
    assert kept.all()
    assert removed == {}


def test_a_label_that_is_no_term_is_named(cells, ontology):
    cells["label"] = cells["label"].cat.rename_categories({"T cell": "my T cells"})
    with pytest.raises(ValueError, match="'my T cells'.*terms="):
        judge(CorpusFilter(min_ancestors=1), cells, ontology=ontology)
    terms = {"my T cells": "CL:0000084"}
    kept, _ = judge(CorpusFilter(min_ancestors=1), cells, ontology=ontology, terms=terms)
    assert (cells.loc[kept, "label"] == "my T cells").any()


def test_ancestors_need_the_ontology(cells):
    with pytest.raises(ValueError, match=r"ontology=.*CellOntology\.load"):
        judge(CorpusFilter(min_ancestors=1), cells)


def test_a_column_of_booleans_with_other_values_is_refused(cells):
    cells["is_primary_data"] = "yes"
    with pytest.raises(ValueError, match="True or False, not 'yes'"):
        judge(CorpusFilter(primary_key="is_primary_data"), cells)


def test_donors_are_needed_to_count_them(cells):
    with pytest.raises(ValueError, match="donor_key="):
        CorpusFilter(min_donors=2).apply(cells["label"])


def test_assays_are_compared_by_name(cells):
    filters = CorpusFilter(assay_key="assay", assays=("1", "b"))
    obs = pd.DataFrame({"assay": [1, 1.0, "b", "c"]})
    kept, removed = filters.apply(cells["label"][:4], obs=obs)
    assert list(kept) == [True, True, True, False]
    assert removed == {"assays": 1}


def test_no_donor_is_in_two_parts_and_shares_are_of_donors():
    donors = pd.Series(pd.Categorical(np.repeat([f"d{i}" for i in range(40)], 5)))
    parts = pd.Series(split_donors(donors))
    assert (parts.groupby(donors, observed=True).nunique() == 1).all()
    per_donor = parts.groupby(donors, observed=True).first().value_counts()
    assert per_donor.to_dict() == {"train": 28, "val": 6, "test": 6}


def test_the_split_does_not_depend_on_the_order_of_cells():
    donors = pd.Series([f"d{i % 23}" for i in range(400)])
    order = np.random.default_rng(0).permutation(400)
    shuffled = donors.iloc[order].reset_index(drop=True)
    assert (np.asarray(split_donors(donors))[order] == np.asarray(split_donors(shuffled))).all()


def test_cells_without_a_donor_are_split_one_by_one():
    parts = pd.Series(split_donors(pd.Series([None] * 100)))
    assert parts.value_counts().to_dict() == {"train": 70, "val": 15, "test": 15}


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1)])
def test_shares_that_make_no_split_are_refused(shares):
    with pytest.raises(ValueError, match="sum 1"):
        split_donors(pd.Series(["a", "b", "c", "d"]), shares)


def test_too_few_donors_are_refused():
    with pytest.raises(ValueError, match="2 donors are too few"):
        split_donors(pd.Series(["a", "b"]))


@pytest.mark.parametrize("by", ["donors", "cells"])
def test_subsamples_are_nested(by):
    donors = np.random.default_rng(0).integers(30, size=500)
    masks = [subsample(donors, share, by=by) for share in (0.1, 0.15, 0.3, 0.5, 0.7, 1.0)]
    for small, large in zip(masks, masks[1:], strict=False):
        assert (small <= large).all()
        assert small.sum() < large.sum()
    assert masks[-1].all()
    if by == "donors":
        assert len(set(donors[masks[0]])) == 3
        assert not set(donors[masks[0]]) & set(donors[~masks[0]])
    else:
        assert masks[0].sum() == 50


def test_a_subsample_of_nothing_is_refused():
    with pytest.raises(ValueError, match="share=0"):
        subsample(np.zeros(3, int), 0)
    with pytest.raises(ValueError, match="by='cell'"):
        subsample(np.zeros(3, int), 0.5, by="cell")
