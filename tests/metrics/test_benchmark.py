"""The benchmark with methods whose scores are known."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn import metrics as sk

from scvi_sctab.metrics import Split, benchmark, donor_splits, paper_protocol


class Majority:
    """The most frequent label of the reference for all."""

    name = "majority"
    has_probabilities = False
    is_seeded = False

    def __init__(self, seed=0):
        pass

    def fit(self, reference, labels_key, donor_key=None):
        self.n_cells = reference.obs[labels_key].value_counts()
        return self

    def predict_proba(self, query):
        table = pd.DataFrame(0.0, index=query.obs_names, columns=sorted(self.n_cells.index))
        table[self.n_cells.index[0]] = 1.0
        return table


class Marker(Majority):
    """The label whose gene has the most counts; its share of them is the probability."""

    name = "marker"
    has_probabilities = True
    is_seeded = True

    def predict_proba(self, query):
        counts = query.to_df()[sorted(self.n_cells.index)] + 1
        return counts.div(counts.sum(axis=1), axis=0)


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    labels = rng.choice(["B", "NK", "T"], 240, p=[0.2, 0.2, 0.6])
    counts = rng.poisson(2.0, (240, 3)) + 2 * (labels[:, None] == ["B", "NK", "T"])
    obs = pd.DataFrame({"label": labels, "donor": np.resize([*"abcdef"], 240)}).rename(str)
    return AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=["B", "NK", "T"]))


@pytest.fixture
def splits(adata):
    return donor_splits(adata, "donor", 2)


def numbers(table, metric):
    return table.loc[table["metric"] == metric, "value"].to_numpy()


def test_scores_are_those_of_sklearn_on_the_query(splits):
    table = benchmark({"m": Marker}, splits, "label", seeds=[4], progress=False)
    assert list(table.columns) == ["method", "split", "seed", "metric", "value", "error"]
    for split in splits:
        truth = split.query.obs["label"]
        predicted = split.query.to_df().idxmax(axis=1)
        run = table[table["split"] == split.name].set_index("metric")["value"]
        assert run["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
        assert run["f1_macro"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
        assert run["n_scored"] == len(truth)
        assert 0 < run["ece"] < 1
        assert run["fit_seconds"] >= 0
        assert run["n_left_out"] == 0


def test_each_method_gets_each_seed_unless_it_needs_none(splits):
    seen = []

    def make(seed):
        seen.append(seed)
        return Marker()

    table = benchmark({"a": make, "b": Majority}, splits, "label", seeds=(3, 5), progress=False)
    assert seen == [3, 5, 3, 5]
    runs = table[table["metric"] == "accuracy"]
    assert runs.groupby("method").size().to_dict() == {"a": 4, "b": 2}
    assert set(runs.loc[runs["method"] == "b", "seed"]) == {3}


def test_calibration_is_scored_only_where_there_are_probabilities(splits):
    predictors = {"a": Marker, "b": Majority}
    table = benchmark(predictors, splits, "label", seeds=[0], progress=False)
    assert set(table.loc[table["metric"] == "ece", "method"]) == {"a"}


def test_a_method_that_fails_is_told_and_the_others_go_on(splits, caplog):
    def broken(seed):
        if seed == 1:
            raise RuntimeError("out of luck")
        return Marker()

    predictors = {"broken": broken, "fine": Marker}
    with pytest.warns(UserWarning, match=r"2 runs failed, of \['broken'\].*out of luck"):
        table = benchmark(predictors, splits, "label", seeds=(0, 1), progress=False)
    runs = table[table["metric"] == "f1_macro"]
    assert len(runs) == 8
    failed = runs[runs["error"] != ""]
    assert failed["value"].isna().all()
    assert set(failed["error"]) == {"RuntimeError: out of luck"}
    assert set(zip(failed["method"], failed["seed"], strict=True)) == {("broken", 1)}
    assert not runs.loc[runs["error"] == "", "value"].isna().any()


def test_labels_that_cannot_be_learnt_are_left_out_and_counted(adata):
    labels = adata.obs["label"].to_numpy(dtype=object)
    labels[:120][labels[:120] == "NK"] = "T"
    labels[0] = "NK"  # one cell is not enough to learn from
    labels[[1, 130]], labels[131] = "unknown", np.nan
    adata.obs["label"] = labels
    seen = {}

    class Looks(Marker):
        def fit(self, reference, labels_key, donor_key=None):
            seen["labels"] = set(reference.obs[labels_key])
            seen["n"] = reference.n_obs
            return super().fit(reference, labels_key, donor_key)

    split = Split("one", adata[:120], adata[120:])
    table = benchmark({"m": Looks}, [split], "label", seeds=[0], progress=False)
    assert seen == {"labels": {"B", "T"}, "n": 118}
    assert numbers(table, "n_left_out") == (labels[120:] == "NK").sum() > 0
    assert numbers(table, "n_scored") == np.isin(labels[120:], ["B", "T"]).sum()
    table = benchmark(
        {"m": Looks},
        [Split("one", adata[:120], adata[120:], frozenset({"B", "T", "NK"}))],
        "label",
        seeds=[0],
        progress=False,
    )
    assert numbers(table, "n_left_out") == 0
    predicted = adata[120:].to_df()[["B", "T"]].idxmax(axis=1)
    scored = np.isin(labels[120:], ["B", "T", "NK"])
    expected = (predicted[scored] == labels[120:][scored]).mean()
    assert numbers(table, "accuracy") == pytest.approx(expected)


def test_methods_see_no_labels_of_the_query_and_cannot_spoil_it_for_others(adata, splits):
    class Spoils(Marker):
        def fit(self, reference, labels_key, donor_key=None):
            super().fit(reference, labels_key, donor_key)
            assert list(reference.obs) == ["label", "donor"]
            reference.X[:] = 0
            return self

        def predict_proba(self, query):
            assert list(query.obs) == ["donor"]
            table = super().predict_proba(query)
            query.X[:] = 0
            return table

    before = adata.X.copy()
    predictors = {"spoils": Spoils, "fine": Marker}
    table = benchmark(predictors, splits, "label", "donor", seeds=[0], progress=False)
    assert (table["error"] == "").all()
    np.testing.assert_array_equal(adata.X, before)
    one, other = (table[table["method"] == name] for name in predictors)
    np.testing.assert_array_equal(numbers(one, "accuracy"), numbers(other, "accuracy"))


def test_further_scores_get_the_truth_first(splits):
    def share_of_b(truth, predicted):
        return (truth == "B").mean() if (predicted != "B").all() else -1

    table = benchmark({"m": Majority}, splits, "label", scores={"b": share_of_b}, progress=False)
    expected = [(split.query.obs["label"] == "B").mean() for split in splits]
    np.testing.assert_allclose(numbers(table, "b"), expected)


def test_rows_that_are_not_the_cells_are_a_failure(splits):
    class Shuffles(Marker):
        def predict_proba(self, query):
            return super().predict_proba(query)[::-1]

    with pytest.warns(UserWarning, match=r"not the cells of the query"):
        benchmark({"m": Shuffles}, splits, "label", seeds=[0], progress=False)


def test_what_cannot_be_benchmarked_is_refused_before_anything_runs(adata, splits):
    def never(seed):
        raise AssertionError

    with pytest.raises(ValueError, match=r"share names.*\['donors 1'\]"):
        benchmark({"m": never}, [splits[0], splits[0]], "label")
    with pytest.raises(KeyError, match=r"labels_key='labels' is not a column"):
        benchmark({"m": never}, splits, "labels")
    with pytest.raises(KeyError, match=r"donor_key='donors' is not a column"):
        benchmark({"m": never}, splits, "label", "donors")
    query = adata[:4].copy()
    query.obs["label"] = "Mast"
    with pytest.raises(ValueError, match=r"'other' has no cell to score"):
        benchmark({"m": never}, [Split("other", adata, query)], "label")


def test_the_protocol_of_the_paper_holds_out_donors_and_nests_the_rest(adata):
    seen = []

    class Looks(Marker):
        def fit(self, reference, labels_key, donor_key=None):
            seen.append(reference)
            return super().fit(reference, labels_key, donor_key)

        def predict_proba(self, query):
            assert not set(query.obs["donor"]) & set(seen[-1].obs["donor"])
            return super().predict_proba(query)

    table = paper_protocol(
        adata, {"m": Looks}, "label", "donor", fractions=(1.0, 0.4), seeds=[0], progress=False
    )
    assert (table["error"] == "").all()
    runs = table[table["metric"] == "f1_macro"]
    by = [tuple(row) for row in runs[["by", "fraction"]].to_numpy()]
    assert by == [("donors", 0.4), ("donors", 1.0), ("cells", 0.4), ("cells", 1.0)]
    assert runs["value"].iloc[1] == runs["value"].iloc[3]
    few_donors, everything, few_cells = seen
    assert few_donors.obs["donor"].nunique() == 2
    assert everything.obs["donor"].nunique() == 5
    assert few_cells.n_obs == 80
    for part in (few_donors, few_cells):
        assert set(part.obs_names) <= set(everything.obs_names)
    assert len(set(numbers(table, "n_scored"))) == 1


def test_labels_that_a_part_lacks_count_as_wrong(adata):
    options = {"fractions": (0.2, 1.0), "by": ["donors"], "seeds": [0], "progress": False}
    part = []

    class Looks(Marker):
        def fit(self, reference, labels_key, donor_key=None):
            part.append(set(reference.obs[donor_key]))
            return super().fit(reference, labels_key, donor_key)

    paper_protocol(adata, {"m": Looks}, "label", "donor", **options)
    # Only donors outside of the smaller part have T, and so do cells that are held out.
    inside = adata.obs["donor"].isin(part[0])
    adata.obs["label"] = np.where(inside & (adata.obs["label"] == "T"), "B", adata.obs["label"])
    table = paper_protocol(adata, {"m": Marker}, "label", "donor", **options)
    held_out = adata[~adata.obs["donor"].isin(part[1])]
    np.testing.assert_array_equal(numbers(table, "n_scored"), held_out.n_obs)
    truth = held_out.obs["label"]
    predicted = held_out.to_df()[["B", "NK"]].idxmax(axis=1)
    assert numbers(table, "accuracy")[0] == pytest.approx((truth == predicted).mean())


def test_the_protocol_says_what_it_cannot_do(adata):
    with pytest.raises(ValueError, match=r"names \['genes'\]"):
        paper_protocol(adata, {}, "label", "donor", by=["genes"])
    with pytest.raises(ValueError, match=r"leaves no donor"):
        paper_protocol(adata, {}, "label", "donor", test_size=1)
    with pytest.raises(ValueError, match=r"fraction=0 is not in"):
        paper_protocol(adata, {}, "label", "donor", fractions=[0])


def test_a_killed_benchmark_goes_on_where_it_stopped(splits, tmp_path):
    path, fitted = tmp_path / "runs.csv", []

    class Killed(Marker):
        n_left = 3

        def __init__(self, seed=0):
            self.seed = seed

        def fit(self, *args, **kwargs):
            if Killed.n_left == 0:
                raise KeyboardInterrupt
            Killed.n_left -= 1
            fitted.append(self.seed)
            return super().fit(*args, **kwargs)

    def run(path, n_left):
        Killed.n_left = n_left
        methods = {"killed": Killed, "majority": Majority}
        return benchmark(methods, splits, "label", seeds=[0, 1], path=path, progress=False)

    with pytest.raises(KeyboardInterrupt):
        run(path, 3)
    assert fitted == [0, 1, 0]
    assert set(pd.read_csv(path)["split"]) == {split.name for split in splits}
    table = run(path, 1)
    assert fitted == [0, 1, 0, 1]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["runs.csv"]
    again = run(path, 0)
    pd.testing.assert_frame_equal(again, table)
    once = run(None, 4)
    timed = once["metric"].str.endswith("seconds")
    pd.testing.assert_frame_equal(table[~timed.to_numpy()], once[~timed])


def test_a_run_that_failed_is_tried_again(splits, tmp_path):
    path = tmp_path / "runs.csv"

    class Fails(Marker):
        def fit(self, *args, **kwargs):
            raise ValueError("no luck, today")

    def run(method):
        return benchmark({"m": method}, splits, "label", seeds=[0], path=path, progress=False)

    with pytest.warns(UserWarning, match="2 runs failed"):
        assert set(run(Fails)["error"]) == {"ValueError: no luck, today"}
    table = run(Marker)
    assert set(table["error"]) == {""}
    assert set(table["metric"]) > {"f1_macro", "accuracy"}
    assert not pd.read_csv(path)["error"].notna().any()


def test_a_file_that_is_no_table_of_a_benchmark_is_left_alone(splits, tmp_path):
    path = tmp_path / "cells.csv"
    for text, match in [
        ("cell,label\nc1,B\n", r"cells\.csv has the columns \['cell', 'label'\]"),
        ("", r"cells\.csv is no table of a benchmark"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=match):
            benchmark({"m": Marker}, splits, "label", path=path, progress=False)
        assert path.read_text() == text


def test_what_was_stored_is_kept_where_a_method_cannot_be_made_again(splits, tmp_path):
    path = tmp_path / "runs.csv"

    def missing(seed):
        raise ImportError("not installed here")

    def run(method):
        return benchmark({"None": method}, splits, "label", seeds=[0], path=path, progress=False)

    table, stored = run(Marker), path.read_text()
    pd.testing.assert_frame_equal(run(missing), table)
    assert path.read_text() == stored
    assert set(table["method"]) == {"None"}


def test_a_folder_that_is_missing_is_told_before_anything_runs(splits, tmp_path):
    path = tmp_path / "nowhere" / "runs.csv"
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere; make it first"):
        benchmark({"m": None}, splits, "label", path=path, progress=False)
