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
    assert frame.loc[is_new & known, "novel_population"].mean() > 0.3
    assert frame.loc[~is_new, "novel_population"].mean() < 0.05
    alone = -np.log(frame["novelty_p_value"])
    assert (frame["novelty_score"] >= alone - 1e-9).all()
    apart = frame.loc[is_new, "novelty_score"].median() - frame["novelty_score"][~is_new].median()
    assert apart > alone[is_new].median() - alone[~is_new].median()


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
    early.calibrate()
    found, expected = early.annotation.profiles, model.annotation.profiles
    np.testing.assert_allclose(found.mean, expected.mean)


def test_an_ensemble_finds_populations(reference):
    SCTABEnsemble.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    ensemble = SCTABEnsemble(reference, n_members=2)
    ensemble.train(**STEPS)
    table = ensemble.get_novel_populations(reference, "cell_type")
    assert not table["novel"].any()
