"""Every method behind the same two calls, on a cut of real data."""

import os
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from sklearn import linear_model

from scvi_sctab import SCTAB, baselines
from scvi_sctab.metrics import f1_macro

CELLTYPIST = os.environ.get(
    "CELLTYPIST_PYTHON", Path(__file__).parents[2] / ".venv-celltypist" / "bin" / "python"
)
FEW = {"max_epochs": 10, "train_size": 1.0, "accelerator": "cpu"}


def xgboost(seed=0, **options):
    pytest.importorskip("xgboost")
    options = {"n_components": 20, "n_estimators": 10, "eta": 0.3, "nthread": 1, **options}
    return baselines.XGBoost(seed, **options)


def celltypist(seed=0, **options):
    if not os.access(CELLTYPIST, os.X_OK):
        pytest.skip("no environment of CellTypist, see `make bench`")
    return baselines.CellTypist(seed, python=str(CELLTYPIST), **options)


SLOW = pytest.mark.slow(reason="trains scANVI twice, for the reference and for the query")
METHODS = [
    baselines.LogisticRegression,
    pytest.param(lambda: baselines.Linear(train_kwargs=FEW), id="Linear"),
    pytest.param(lambda: baselines.MLP(train_kwargs=FEW), id="MLP"),
    pytest.param(lambda: baselines.SCTABPredictor(train_kwargs=FEW), id="SCTABPredictor"),
    pytest.param(
        lambda: baselines.SCTABEnsemblePredictor(train_kwargs=FEW, n_members=2),
        id="SCTABEnsemblePredictor",
    ),
    pytest.param(xgboost, id="XGBoost"),
    pytest.param(celltypist, id="CellTypist"),
    pytest.param(
        lambda: baselines.ScANVI(max_epochs=40, label_epochs=10, query_epochs=10),
        id="ScANVI",
        marks=[SLOW, pytest.mark.filterwarnings("ignore")],
    ),
]


@pytest.fixture
def split(reference):
    """Some donors, and cells of two others."""
    donors = reference.obs["donor_id"]
    new = donors.isin(donors.unique()[:2]).to_numpy()
    return reference[~new].copy(), reference[new][:150].copy()


@pytest.mark.parametrize("make", METHODS)
def test_a_method_learns_and_does_not_mind_the_order_of_genes(make, split):
    reference, query = split
    before = reference.copy()
    predictor = make().fit(reference, "cell_type")
    pd.testing.assert_frame_equal(reference.obs, before.obs)
    assert (reference.X != before.X).nnz == 0
    table = predictor.predict_proba(query)
    assert list(table.columns) == sorted(set(reference.obs["cell_type"]))
    assert table.index.equals(query.obs_names)
    truth, predicted = query.obs["cell_type"].to_numpy(), table.idxmax(axis=1)
    majority = reference.obs["cell_type"].value_counts().index[0]
    assert (truth == predicted).mean() > (truth == majority).mean() + 0.1
    assert f1_macro(truth, predicted) > 2 * f1_macro(truth, [majority] * len(truth))
    permuted = query[:, np.random.default_rng(0).permutation(query.n_vars)].copy()
    del permuted.obs["cell_type"]
    pd.testing.assert_frame_equal(predictor.predict_proba(permuted), table, check_exact=True)


def test_logistic_regression_is_that_of_sklearn_on_dense_expression(split):
    reference, query = split

    def expression(adata):
        counts = adata.X.toarray().astype(float)
        return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))

    labels = reference.obs["cell_type"].astype(str)
    theirs = linear_model.LogisticRegression(class_weight="balanced", max_iter=1000)
    theirs.fit(expression(reference), labels)
    ours = baselines.LogisticRegression().fit(reference, "cell_type").predict_proba(query)
    # As near as two runs of lbfgs come that stop early, on numbers rounded differently.
    np.testing.assert_allclose(ours, theirs.predict_proba(expression(query)), atol=0.05)
    assert np.abs(ours - theirs.predict_proba(expression(query))).mean().mean() < 2e-3


@pytest.mark.parametrize("mark", ["unknown", np.nan])
def test_cells_without_a_label_are_not_learnt_from(split, mark):
    reference, query = split
    out = np.arange(reference.n_obs) % 3 == 0
    kept = reference[~out].copy()
    labels = reference.obs["cell_type"].astype(object)
    labels[out] = mark
    reference.obs["cell_type"] = labels
    tables = [
        baselines.LogisticRegression().fit(cells, "cell_type").predict_proba(query)
        for cells in (reference, kept)
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_versions_of_ensembl_ids_and_missing_genes_are_as_in_the_model(split):
    reference, query = split
    names = np.array([f"ENSG{i:011d}" for i in range(reference.n_vars)])
    reference.var_names, query.var_names = names, names
    predictor = baselines.LogisticRegression().fit(reference, "cell_type")
    table = predictor.predict_proba(query)
    query.var_names = [f"{name}.7" for name in names]
    pd.testing.assert_frame_equal(predictor.predict_proba(query), table)
    with pytest.raises(ValueError, match=r"only 50 of the model's 300 genes"):
        predictor.predict_proba(query[:, :50])


def test_boosting_stops_at_the_round_that_held_out_donors_like_best(split):
    reference, query = split
    options = {"n_estimators": 60, "early_stopping_rounds": 2, "eta": 1.0, "max_depth": 2}
    predictor = xgboost(**options).fit(reference, "cell_type", "donor_id")
    booster = predictor._booster
    assert booster.num_boosted_rounds() == booster.best_iteration + 1 + 2 < 60
    table = predictor.predict_proba(query)
    best = booster[: booster.best_iteration + 1]
    predictor._booster = best
    pd.testing.assert_frame_equal(predictor.predict_proba(query), table)


def test_components_are_as_many_as_there_can_be(split):
    reference, query = split
    predictor = xgboost(n_components=256, n_estimators=2).fit(reference[:150], "cell_type")
    assert predictor._pca.n_components_ < 150
    assert len(predictor.predict_proba(query)) == query.n_obs


def test_an_error_of_celltypist_is_passed_on(split):
    reference, query = split
    with pytest.raises(RuntimeError, match=r"CellTypist failed"):
        celltypist(two_pass=True).fit(reference, "cell_type")  # it wants more than 300


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("/no/python", r"no interpreter at '/no/python'.*celltypist==1\.7\.1"),
        (None, r"cannot import celltypist.*celltypist==1\.7\.1"),
    ],
)
def test_a_missing_celltypist_says_how_to_get_it(split, python, message, tmp_path, monkeypatch):
    # Hides it, were it installed here.
    (tmp_path / "celltypist.py").write_text("raise ModuleNotFoundError('hidden')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ImportError, match=message):
        baselines.CellTypist(python=python).fit(split[0], "cell_type")


def test_a_missing_xgboost_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xgboost", None)
    with pytest.raises(ImportError, match=r"needs 'xgboost': `pip install 'scvi-sctab\[benchmark"):
        baselines.XGBoost()


def test_networks_follow_the_recipe_of_the_paper(split, monkeypatch):
    seen = []
    monkeypatch.setattr(SCTAB, "train", lambda self, **options: seen.append((self, options)))
    baselines.Linear().fit(split[0], "cell_type")
    baselines.MLP(train_kwargs={"plan_kwargs": {"weight_decay": 0.1}}).fit(split[0], "cell_type")
    (linear, of_linear), (mlp, of_mlp) = seen
    assert (linear.network_config.encoder, mlp.network_config.encoder) == ("linear", "mlp")
    assert linear.preset_ == mlp.preset_ == "paper"
    assert of_linear["plan_kwargs"] == {"lr": 0.0005, "weight_decay": 0.01}
    assert of_mlp["plan_kwargs"] == {"lr": 0.002, "weight_decay": 0.1}
    assert of_linear["batch_size"] == 64
    assert baselines.Linear()._training(1_000_000)["batch_size"] == 2048
    assert baselines.Linear(train_kwargs={"batch_size": 7})._training(9)["batch_size"] == 7


def test_seeds_decide_and_leave_the_random_states_outside_alone(split):
    reference, query = split
    scvi.settings.seed = 3
    # So that they are not what seeding anew would give.
    torch.rand(1), np.random.random(1), random.random()  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    once = {**FEW, "max_epochs": 1}
    tables = [
        baselines.SCTABPredictor(seed, train_kwargs=once)
        .fit(reference, "cell_type")
        .predict_proba(query)
        for seed in (1, 1, 2)
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    assert not np.allclose(tables[0], tables[2])
    assert scvi.settings.seed == 3
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_columns_that_do_not_exist_are_named(split):
    predictor = baselines.LogisticRegression()
    with pytest.raises(KeyError, match=r"labels_key='cell_typ' .*did you mean 'cell_type'"):
        predictor.fit(split[0], "cell_typ")
    with pytest.raises(KeyError, match=r"donor_key='donor' .*did you mean 'donor_id'"):
        predictor.fit(split[0], "cell_type", "donor")


def test_what_is_not_counts_is_refused_on_both_sides(split):
    reference, query = split
    predictor = baselines.LogisticRegression().fit(reference, "cell_type")
    for cells in (reference, query):
        cells.X = cells.X.log1p()
    with pytest.raises(ValueError, match=r"looks log-normalised"):
        predictor.predict_proba(query)
    with pytest.raises(ValueError, match=r"looks log-normalised"):
        predictor.fit(reference, "cell_type")


def test_nothing_is_predicted_before_fitting_or_for_no_cells(split):
    reference, query = split
    predictor = baselines.LogisticRegression()
    with pytest.raises(RuntimeError, match=r"logistic regression is not fitted"):
        predictor.predict_proba(query)
    predictor.fit(reference, "cell_type")
    with pytest.raises(ValueError, match=r"no cells"):
        predictor.predict_proba(query[:0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 2)), r"broken returned \(1, 2\) values instead of \(150, "),
        (2.0, r"not in \[0, 1\]"),
        (np.nan, r"not in \[0, 1\]"),
    ],
)
def test_output_that_cannot_be_is_refused(split, values, message):
    class Broken(baselines.Baseline):
        name = "broken"

        def _fit(self, reference, labels):
            self.shape = len(labels)

        def _predict(self, query, alignment):
            if np.ndim(values):
                return values
            return np.full((query.n_obs, self.shape), values)

    reference, query = split
    with pytest.raises(RuntimeError, match=message):
        Broken().fit(reference, "cell_type").predict_proba(query)
