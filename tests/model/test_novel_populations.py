from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scvi_sctab import SCTAB, SCTABEnsemble

STEPS = {"max_epochs": 25, "enable_progress_bar": False, "accelerator": "cpu"}
COLUMNS = ["nearest_label", "n_cells", "n_molecules", "novelty", "excess", "score", "p_value"]


@pytest.fixture(scope="module")
def _without_monocytes(_cuts):
    reference = _cuts[0].copy()
    reference = reference[~reference.obs["cell_type"].str.startswith("CD14")].copy()
    reference.obs["cell_type"] = reference.obs["cell_type"].cat.remove_unused_categories()
    SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    model = SCTAB(reference)
    model.train(**STEPS)
    return model


@pytest.fixture
def without_monocytes(_without_monocytes):
    """A model that knows no CD14 monocytes, shared: do not train it further."""
    return _without_monocytes


@pytest.fixture
def cells(_cuts):
    return _cuts[0]


@pytest.mark.filterwarnings("ignore:These cells differ")
def test_a_type_that_the_reference_lacks_is_the_most_novel_population(without_monocytes, cells):
    table = without_monocytes.get_novel_populations(cells, "cell_type")
    assert list(table.columns[:7]) == COLUMNS
    assert table["score"].idxmax().startswith("CD14")
    assert table.loc[table["score"].idxmax(), "novel"]
    markers = table["markers"][table["score"].idxmax()].split(", ")
    assert set(markers) & {
        "LYZ",
        "S100A8",
        "S100A9",
        "CD14",
        "CCL2",
        "FTL",
        "IL8",
        "CXCL8",
        "TIMP1",
    }
    sizes = cells.obs["cell_type"].value_counts()
    assert table["n_cells"].to_dict() == sizes[sizes >= 20].to_dict()


@pytest.mark.filterwarnings("ignore:These cells differ")
def test_cells_get_the_results_of_their_population(without_monocytes, cells):
    plain = without_monocytes.annotate(cells)
    frame = without_monocytes.annotate(cells, novel_populations=True)
    pd.testing.assert_frame_equal(frame[plain.columns], plain)
    is_new = cells.obs["cell_type"].str.startswith("CD14").to_numpy()
    known = ~frame["population"].isna()
    table = without_monocytes.get_novel_populations(cells, frame["population"].astype(str))
    assert frame["novel_population"][known].sum() == table["n_cells"][table["novel"]].sum()
    # One of the known populations may stand out by chance, with other rounding of sums.
    assert frame.loc[is_new & known, "novel_population"].mean() > 0.3
    assert frame.loc[~is_new, "novel_population"].mean() < 0.15
    alone = -np.log(frame["novelty_p_value"])
    assert (frame["novelty_score"] >= alone - 1e-9).all()
    apart = frame.loc[is_new, "novelty_score"].median() - frame["novelty_score"][~is_new].median()
    assert apart > alone[is_new].median() - alone[~is_new].median()


@pytest.mark.filterwarnings("ignore:These cells differ")
def test_columns_of_populations_of_an_earlier_call_do_not_stay(without_monocytes, cells):
    own = cells.copy()
    without_monocytes.annotate(own, novel_populations=True, key_added="cells")
    assert "cells_novelty_score" in own.obs
    without_monocytes.annotate(own, key_added="cells")
    assert "cells_label" in own.obs
    assert not {"cells_population", "cells_novel_population", "cells_novelty_score"} & set(own.obs)


@pytest.mark.filterwarnings("ignore:These cells differ")
def test_populations_do_not_depend_on_the_order_of_cells(without_monocytes, cells):
    order = np.random.default_rng(0).permutation(cells.n_obs)
    one = without_monocytes.get_novel_populations(cells, "cell_type")
    other = without_monocytes.get_novel_populations(cells[order].copy(), "cell_type")
    pd.testing.assert_frame_equal(one, other, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:These cells differ")
def test_populations_survive_saving(without_monocytes, cells, tmp_path):
    without_monocytes.save(str(tmp_path / "model"))
    loaded = SCTAB.load(str(tmp_path / "model"), without_monocytes.adata)
    one = without_monocytes.get_novel_populations(cells, "cell_type")
    other = loaded.get_novel_populations(cells, "cell_type")
    text = ["markers", "possible_cause"]  # near ties change places in half precision
    pd.testing.assert_frame_equal(
        one.drop(columns=text), other.drop(columns=text), rtol=0.02, atol=0.02
    )


def test_missing_genes_are_no_difference(without_monocytes, cells):
    fewer = cells[:, 50:].copy()
    table = without_monocytes.get_novel_populations(fewer, "cell_type")
    lost = set(cells.var_names[:50])
    assert not lost & set(", ".join(table["markers"]).split(", "))


def test_few_populations_cause_a_warning(model, reference):
    two = reference[reference.obs["cell_type"].isin(["B", "CD4 T"])].copy()
    with pytest.warns(UserWarning, match="it takes 5 to see which of them stand out"):
        table = model.get_novel_populations(two, "cell_type")
    assert table["p_value"].isna().all()
    assert not table["novel"].any()


def test_no_cell_has_no_population(model, reference):
    with pytest.warns(UserWarning, match="There are 0 populations"):
        table = model.get_novel_populations(reference[:0].copy())
    assert table.empty


def test_an_unknown_column_is_refused(model, reference):
    with pytest.raises(KeyError, match="leiden"):
        model.get_novel_populations(reference, "leiden")


def test_missing_groups_are_refused(model, reference):
    groups = np.where(np.arange(reference.n_obs) == 3, np.nan, 1.0)
    with pytest.raises(ValueError, match="groupby have missing values"):
        model.get_novel_populations(reference, groups)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2])
def test_a_rate_that_is_none_is_refused(model, reference, rate):
    with pytest.raises(ValueError, match=f"false_discovery_rate={rate} is not between 0 and 1"):
        model.get_novel_populations(reference, false_discovery_rate=rate)


def test_a_model_without_the_expression_of_its_labels_says_how_to_get_it(
    model, reference, tmp_path
):
    model.save(str(tmp_path / "model"))
    early = SCTAB.load(str(tmp_path / "model"), model.adata)
    early.annotation = replace(early.annotation, profiles=None)
    with pytest.raises(RuntimeError, match=r"SCTAB.load\(path, reference\).calibrate\(\)"):
        early.get_novel_populations(reference)
    with pytest.raises(RuntimeError, match="does not hold the expression of its labels"):
        early.annotate(reference, novel_populations=True)
    early.calibrate()
    found, expected = early.annotation.profiles, model.annotation.profiles
    np.testing.assert_allclose(found.mean, expected.mean)


def test_an_ensemble_finds_populations(reference):
    SCTABEnsemble.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    ensemble = SCTABEnsemble(reference, n_members=2)
    ensemble.train(**STEPS)
    table = ensemble.get_novel_populations(reference)
    assert not table["novel"].any()
    assert table["n_cells"].sum() <= reference.n_obs


def test_a_model_without_held_out_cells_has_the_expression_of_its_labels(reference, query):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    model = SCTAB(reference)
    model.train(train_size=1.0, **{**STEPS, "max_epochs": 1})
    own = reference[reference.obs["cell_type"] == "B"]
    counts = np.log1p(1e4 * own.X.toarray() / np.asarray(own.X.sum(axis=1)))
    place = list(model.labels).index("B")
    np.testing.assert_allclose(
        model.annotation.profiles.mean[place], counts.mean(axis=0), rtol=1e-4
    )
    with pytest.raises(RuntimeError, match="not calibrated"):
        model.get_novel_populations(query)


@pytest.mark.filterwarnings("ignore:These cells differ", "ignore:query.obs.*holds labels")
def test_cells_of_a_label_that_a_query_added_are_not_novel(reference):
    query = reference.copy()
    reference = reference[reference.obs["cell_type"] != "B"].copy()
    reference.obs["cell_type"] = reference.obs["cell_type"].cat.remove_unused_categories()
    SCTAB.setup_anndata(reference, labels_key="cell_type", batch_key="donor_id")
    model = SCTAB(reference)
    model.train(**STEPS)
    query.obs["donor_id"] = "another"
    mapped = SCTAB.load_query_data(query, model, learn_labels=True)
    mapped.train(enable_progress_bar=False, accelerator="cpu")
    table = mapped.get_novel_populations(query, "cell_type")
    assert table.loc["B", "nearest_label"] == "B"
    assert not table.loc["B", "novel"]
    assert np.isnan(table.loc["B", "score"])
    assert table.loc["B", "markers"] == ""
    frame = mapped.annotate(query, novel_populations=True)
    assert frame["novelty_score"].notna().all()
