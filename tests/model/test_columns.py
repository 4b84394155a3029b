"""Columns of ``obs``: one name for each value, none for values without cells."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LabelsWithUnlabeledObsField,
    LayerField,
)

from scvi_sctab import SCTAB, SCTABEnsemble
from scvi_sctab.external import ProteinPredictor
from scvi_sctab.pretrain import MaskedAutoencoder

# Two donors leave half of the cells to train on.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Holding out whole donors leaves", "ignore:.*come from one donor only"
)
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
N_CELLS = 120


def draw(seed=0, n_cells=N_CELLS):
    """Three types, thirty genes, two lanes."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n_cells) % 3
    mean = 1 + 2 * np.kron(np.eye(3), np.ones(10))
    obs = pd.DataFrame(
        {
            "cell_type": [f"type {k}" for k in kind],
            "lane": np.where(np.arange(n_cells) % 2, "a", "b"),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"G{i}" for i in range(30)])
    return AnnData(rng.poisson(mean[kind]).astype(np.float32), obs, var)


@pytest.fixture
def cells():
    return draw()


def setup(adata, **arguments):
    SCTAB.setup_anndata(adata, **{"labels_key": "cell_type", **arguments})


def train(adata, **arguments):
    setup(adata, **arguments)
    model = SCTAB(adata)
    model.train(max_epochs=2, **QUIET)
    return model


def alternate(first, second, n_cells=N_CELLS):
    return pd.Series([first, second] * (n_cells // 2), dtype=object).infer_objects()


# ---------------------------------------------------------------- values without cells


def test_categories_without_cells_exist_nowhere(cells):
    cells.obs["cell_type"] = pd.Categorical(
        cells.obs["cell_type"], ["type 2", "ghost", "type 0", "type 1"]
    )
    for key in ("lane", "donor", "site"):
        cells.obs[key] = pd.Categorical(alternate("a", "b"), ["c", "b", "a"])
    arguments = {
        "batch_key": "lane",
        "donor_key": "donor",
        "categorical_covariate_keys": ["site"],
    }
    SCTABEnsemble.setup_anndata(cells, labels_key="cell_type", **arguments)
    for model in (SCTAB(cells), *SCTABEnsemble(cells, n_members=2).members):
        assert list(model.labels) == ["type 2", "type 0", "type 1"]
        assert [condition.categories for condition in model.conditions] == [["b", "a"]] * 2
        assert [rows.shape[0] for rows in model.module.batch_embedding.rows] == [2, 2]
        donors = model.registry["field_registries"]["donor"]["state_registry"]
        assert list(donors["categorical_mapping"]) == ["b", "a"]
        assert model.summary_stats.n_labels == 4  # the unlabelled one with them
    codes = cells.obs["_scvi_labels"].to_numpy()
    assert list(np.array([*model.labels])[codes]) == list(cells.obs["cell_type"])


def test_batches_without_cells_do_not_exist_for_proteins(cells):
    cells.obsm["protein"] = np.ones((N_CELLS, 2), dtype=np.float32)
    cells.obs["lane"] = pd.Categorical(cells.obs["lane"], ["c", "b", "a"])
    ProteinPredictor.setup_anndata(cells, "protein", batch_key="lane")
    assert ProteinPredictor(cells).conditions[0].categories == ["b", "a"]


def test_markers_of_groups_without_cells_are_not_listed(cells):
    model = train(cells)
    cells.obs["group"] = pd.Categorical(cells.obs["lane"], ["c", "b", "a"])
    assert set(model.get_markers(cells, groupby="group", n_genes=2)["group"]) == {"a", "b"}


# ---------------------------------------------------------------- one name per value

KINDS = {
    "int": (1, 2),
    "float32": (np.float32(0.1), np.float32(2)),
    "bool": (True, False),
    "datetime": (pd.Timestamp("2024-03-01"), pd.Timestamp("2024-04-01 12:30")),
    "date": (datetime.date(2024, 3, 1), datetime.date(2024, 4, 1)),
    "interval": (pd.Interval(0, 40), pd.Interval(40, 90)),
    "period": (pd.Period("2024-03"), pd.Period("2024-04")),
    "timedelta": (pd.Timedelta(1, "D"), pd.Timedelta(90, "s")),
    "bytes": (b"run1", b"run2"),
    "decimal": (decimal.Decimal("0.1"), decimal.Decimal(1)),
    "several types": (1, "a"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_any_kind_are_saved_and_looked_up(kind, cells, tmp_path):
    for key in ("lane", "donor", "site"):
        cells.obs[key] = alternate(*KINDS[kind]).to_numpy()
    model = train(cells, batch_key="lane", donor_key="donor", categorical_covariate_keys=["site"])
    for name in ("batch", "donor"):
        state = model.registry["field_registries"][name]["state_registry"]
        assert {type(value) for value in state["categorical_mapping"]} == {str}
    codes = model._conditions_of(cells)
    assert sorted(np.unique(codes)) == [0, 1]
    model.save(tmp_path / "model")
    loaded = SCTAB.load(tmp_path / "model", cells)
    pd.testing.assert_frame_equal(loaded.predict(soft=True), model.predict(soft=True))
    as_strings = cells.copy()
    as_strings.obs[["lane", "site"]] = as_strings.obs[["lane", "site"]].astype(str)
    np.testing.assert_array_equal(loaded._conditions_of(as_strings), codes)


DTYPES = {
    "float": np.array([1.0, 2.0] * 60),
    "float32": np.array([0.1, 2.0] * 60, dtype=np.float32),
    "Int64": pd.array([1, 2] * 60, dtype="Int64"),
    "boolean": pd.array([True, False] * 60, dtype="boolean"),
    "bool and None": np.array([True, False] * 60, dtype=object),
    "category": pd.Categorical(["x", "y"] * 60),
    "categories of numbers": pd.Categorical([1, 2] * 60),
    "string": pd.array(["x", "y"] * 60, dtype="string"),
    "object": np.array(["x", "y"] * 60, dtype=object),
    "datetime": pd.to_datetime(["2024-03-01", "2024-04-01"] * 60),
    "timedelta": pd.to_timedelta([1, 2] * 60, unit="D"),
    "intervals": pd.cut([1, 50] * 60, [0, 40, 100]),
    "mixed": np.array([1, "1", 2] * 40, dtype=object),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "argument", ["labels_key", "batch_key", "donor_key", "categorical_covariate_keys"]
)
def test_the_cure_of_missing_values_works_and_keeps_the_names(argument, dtype, cells):
    column = pd.Series(DTYPES[dtype], cells.obs_names)
    known = column.iloc[5:]
    column.iloc[:5] = None
    cells.obs["column"] = column
    raw = cells.copy()
    with pytest.raises(ValueError, match=f"{argument}='column' has 5 missing values") as error:
        setup(cells, **{argument: "column"})
    exec(str(error.value).split("`")[-2], {"adata": cells})
    setup(cells, **{argument: "column"})
    fill = "unknown" if argument == "labels_key" else "missing"
    assert (cells.obs["column"].iloc[:5] == fill).all()
    if argument in ("batch_key", "categorical_covariate_keys") and dtype != "mixed":
        codes = SCTAB(cells)._conditions_of(raw).ravel()
        own = SCTAB(cells)._conditions_of(cells).ravel()
        assert (codes[:5] == -1).all()
        np.testing.assert_array_equal(codes[5:], own[5:])
        assert len(np.unique(codes[5:])) == known.nunique()


@pytest.mark.parametrize("argument", ["labels_key", "batch_key", "donor_key"])
def test_values_of_one_name_are_refused_before_training_with_a_cure(argument, cells):
    cells.obs["column"] = alternate(1, "1").to_numpy()
    cells.obs.loc[cells.obs_names[:40], "column"] = "2"
    match = rf"{argument}='column' holds .*: 1 \(int\) and '1' \(str\)"
    with pytest.raises(ValueError, match=match) as error:
        setup(cells, **{argument: "column"})
    exec(str(error.value).split("`")[-2], {"adata": cells})
    setup(cells, **{argument: "column"})


def test_a_query_with_values_of_one_name_is_refused(cells):
    model = train(cells, batch_key="lane")
    query = draw(1)
    query.obs["lane"] = alternate(1, "1").to_numpy()
    with pytest.raises(ValueError, match=r"batch_key='lane' holds .*astype\(str\)"):
        SCTAB.load_query_data(query, model)


def test_a_query_is_named_in_the_words_of_the_reference(cells):
    cells.obs["lane"] = alternate("1.0", "missing").to_numpy()
    model = train(cells, batch_key="lane")
    query = draw(1)
    query.obs["lane"] = np.where(np.arange(N_CELLS) % 2, 1.0, 2.5)
    mapped = SCTAB.load_query_data(query, model)
    assert mapped.surgery_report().known_batches == {"lane": ["1.0"]}
    assert mapped.surgery_report().new_batches == {"lane": ["2.5"]}
    assert set(mapped._conditions_of(query).ravel()) == {0, 2}


def as_saved_earlier(layer, labels_key, unlabeled_category, batch_key, donor_key, covariates):
    """List the host's fields, which register raw values and categories without cells."""
    return [
        LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
        LabelsWithUnlabeledObsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category),
        CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, covariates),
        CategoricalObsField("donor", donor_key),
    ]


@pytest.mark.parametrize("form", ["safetensors", "pickle"])
def test_a_model_saved_with_raw_values_is_loaded_and_mapped(form, cells, tmp_path, monkeypatch):
    cells.obs["cell_type"] = pd.Categorical(
        cells.obs["cell_type"], ["type 2", "ghost", "type 0", "type 1"]
    )
    cells.obs["lane"] = alternate(10, 9).to_numpy()
    cells.obs["donor"] = alternate(0.5, 2.0).to_numpy()
    cells.obs["site"] = pd.Categorical(alternate(True, False))
    keys = {"batch_key": "lane", "donor_key": "donor", "categorical_covariate_keys": ["site"]}
    with monkeypatch.context() as earlier:
        earlier.setattr(SCTAB, "_fields", staticmethod(as_saved_earlier))
        model = train(cells, **keys)
        expected = model.predict(soft=True)
        registered = cells.obs.filter(like="_scvi").copy()
        model.save(tmp_path / "model")
    if form == "pickle":
        (tmp_path / "model" / "model.safetensors").unlink()
    again = draw()
    again.obs = cells.obs[["cell_type", "lane", "donor", "site"]].astype({"lane": float})
    again.obs["cell_type"] = again.obs["cell_type"].astype(str)
    loaded = SCTAB.load(tmp_path / "model", again, allow_pickle=form == "pickle")
    assert list(loaded.labels) == ["type 2", "ghost", "type 0", "type 1"]
    pd.testing.assert_frame_equal(loaded.predict(soft=True), expected)
    for column in registered:
        np.testing.assert_array_equal(again.obs[column], registered[column])
    again.obs["lane"] = again.obs["lane"].astype(str).replace({"9.0": "11"})
    mapped = SCTAB.load_query_data(again, loaded)
    assert mapped.conditions[0].categories == ["9", "10", "11"]


# ---------------------------------------------------------------- what is asked about


@pytest.mark.parametrize("argument", ["labels_key", "batch_key", "donor_key"])
def test_spellings_of_one_name_are_asked_about_and_the_line_joins_them(argument, cells, recwarn):
    cells.obs["column"] = alternate("x", "y").to_numpy()
    cells.obs.loc[cells.obs_names[:10], "column"] = "X "
    match = rf"{argument}='column' holds names.*'y' \(5|{argument}=.*'X ' \(10 cells\)"
    with pytest.warns(UserWarning, match=match) as said:
        setup(cells, **{argument: "column"})
    exec(str(said[0].message).split("`")[-2], {"adata": cells})
    assert set(cells.obs["column"]) == {"x", "y"}
    recwarn.clear()
    setup(cells, **{argument: "column"})
    assert not recwarn


def test_names_with_hardly_any_cells_are_named(cells):
    cells.obs.loc[cells.obs_names[:2], "lane"] = "c"
    with pytest.warns(UserWarning, match="batch_key='lane' has fewer than 3 cells of 'c'"):
        setup(cells, batch_key="lane")
    cells.obs.loc[cells.obs_names[:2], "cell_type"] = "rare"
    with pytest.warns(
        UserWarning, match="labels_key='cell_type' has fewer than 3 cells of 'rare'"
    ):
        setup(cells)


# ---------------------------------------------------------------- arguments


def test_a_column_that_stands_twice_is_refused_with_a_cure_that_works(cells):
    for argument in ("labels_key", "batch_key", "donor_key", "categorical_covariate_keys"):
        twice = cells.copy()
        twice.obs["column"] = twice.obs["cell_type"]
        twice.obs = pd.concat([twice.obs, twice.obs[["column"]]], axis=1)
        match = rf"{argument}='column' is the name of 2 columns"
        with pytest.raises(ValueError, match=match) as error:
            setup(twice, **{argument: "column"})
        exec(str(error.value).split("`")[-2], {"adata": twice})
        setup(twice, **{argument: "column"})


def test_a_column_that_stands_twice_in_a_query_is_refused(cells):
    model = train(cells, batch_key="lane")
    query = draw(1)
    query.obs = pd.concat([query.obs, query.obs], axis=1)
    with pytest.raises(ValueError, match="'lane' is the name of 2 columns"):
        model.predict(query)
    with pytest.raises(ValueError, match="'lane' is the name of 2 columns"):
        SCTAB.load_query_data(query, model)


@pytest.mark.parametrize("keys", ["lane", ("lane",), ["lane", "lane"], np.array(["lane"])])
def test_one_covariate_may_be_given_in_any_form(keys, cells):
    setup(cells, categorical_covariate_keys=keys)
    model = SCTAB(cells)
    assert [condition.key for condition in model.conditions] == ["lane"]
    assert model.registry["setup_args"]["categorical_covariate_keys"] == ["lane"]


def test_keys_that_are_not_names_of_columns_are_refused(cells):
    with pytest.raises(TypeError, match=r"batch_key is a list.*`batch_key='lane'`"):
        setup(cells, batch_key=["lane"])
    with pytest.raises(TypeError, match=r"labels_key is a Series.*`labels_key='cell_type'`"):
        setup(cells, labels_key=cells.obs["cell_type"])
    with pytest.raises(TypeError, match="categorical_covariate_keys holds a int, 3"):
        setup(cells, categorical_covariate_keys=[3])


GUESSES = {
    "label_key": "`labels_key=`",
    "cell_type_key": "`labels_key=`",
    "celltype_key": "`labels_key=`",
    "batch": "`batch_key=`",
    "sample_key": "`batch_key=`, of technical samples, or `donor_key=`, of people",
    "patient_key": "`donor_key=`",
    "counts_layer": "`layer=`",
    "layers": "`layer=`",
    "covariate_keys": "`categorical_covariate_keys=`",
    "unlabelled_category": "`unlabeled_category=`",
    "unlabeled_categry": "`unlabeled_category=`",
    "continuous_covariate_keys": r"pd.cut.*`categorical_covariate_keys=\['group'\]`",
    "size_factor_key": "normalised within the model",
    "use_raw": r"adata.raw.to_adata\(\)",
    "protein_expression_obsm_key": "ProteinPredictor",
    "anything": "it has layer, labels_key, unlabeled_category",
}


@pytest.mark.parametrize("name", GUESSES)
def test_a_keyword_that_was_guessed_names_the_one_there_is(name, cells):
    with pytest.raises(TypeError, match=f"no argument '{name}': .*{GUESSES[name]}"):
        setup(cells, **{name: "lane"})


def test_models_that_learn_without_labels_say_so(cells):
    with pytest.raises(TypeError, match="MaskedAutoencoder.*'labels_key': it learns without"):
        MaskedAutoencoder.setup_anndata(cells, labels_key="cell_type")
    with pytest.raises(TypeError, match="did you mean `protein_expression_obsm_key=`"):
        ProteinPredictor.setup_anndata(cells, "protein", protein_key="protein")


# ---------------------------------------------------------------- cells of a saved model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model"
    train(draw(), batch_key="lane").save(path)
    return path


def test_new_labels_are_refused_at_loading_with_cures_that_work(saved, cells):
    cells.obs["cell_type"] = cells.obs["cell_type"].replace(
        {"type 1": "type 9", "type 2": "Type 2"}
    )
    match = r"'Type 2', 'type 9', in 80 cells.*SCTAB.load\(path, adata=False\)"
    with pytest.raises(ValueError, match=match) as error:
        SCTAB.load(saved, cells)
    exec(str(error.value).split("`")[3], {"adata": cells})
    assert set(cells.obs["cell_type"]) == {"type 0", "unknown", "type 2"}
    assert list(SCTAB.load(saved, cells).labels) == ["type 0", "type 1", "type 2"]
    assert "learn_labels=True" in str(error.value)


def test_a_missing_column_of_donors_is_asked_for_at_loading(saved, cells):
    SCTAB.load(saved, cells)
    model = train(cells, donor_key="lane")
    del cells.obs["lane"]
    model.save(saved.parent / "donors")
    with pytest.raises(KeyError, match=r"donor_key='lane', which is no column.*adata=False") as e:
        SCTAB.load(saved.parent / "donors", cells)
    exec(str(e.value).split("`")[-2], {"adata": cells})
    SCTAB.load(saved.parent / "donors", cells)


def test_missing_labels_are_named_at_loading(saved, cells):
    cells.obs.loc[cells.obs_names[:7], "cell_type"] = None
    with pytest.raises(ValueError, match="labels_key='cell_type' has 7 missing values") as error:
        SCTAB.load(saved, cells)
    exec(str(error.value).split("`")[-2], {"adata": cells})
    SCTAB.load(saved, cells)
