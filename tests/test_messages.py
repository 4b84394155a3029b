"""Warnings point at the line of the user, however deep in the package they are raised."""

import warnings
from pathlib import Path

import pytest

from scvi_sctab import SCTAB, SCTABEnsemble


def places(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert caught
    return {Path(warning.filename).name for warning in caught if warning.category is UserWarning}


@pytest.mark.parametrize("kind", ["model", "ensemble"])
@pytest.mark.parametrize(
    "verb",
    [
        lambda model, cells: model.predict(cells[:, :200].copy(), min_gene_overlap=0.5),
        lambda model, cells: model.get_markers(cells[:30].copy(), groupby="group"),
        lambda model, cells: model.get_prediction_sets(cells),
    ],
    ids=["genes", "markers", "shift"],
)
def test_warnings_of_verbs_point_here(model, query, kind, verb):
    query.obs["group"] = "all"
    one = model
    if kind == "ensemble":
        one = SCTABEnsemble.from_members([model, model])
        one.annotation = model.annotation
    assert places(lambda: verb(one, query)) == {Path(__file__).name}


def test_warnings_of_set_up_point_here(reference):
    reference.obs["cell_type"] = reference.obs["cell_type"].astype(str).replace("B", "Unknown")
    assert places(lambda: SCTAB.setup_anndata(reference, labels_key="cell_type")) == {
        Path(__file__).name
    }
