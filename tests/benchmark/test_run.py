"""The benchmark with methods whose scores are known."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn import metrics as sk

from scvi_sctab.benchmark import (
    Method,
    Runs,
    Split,
    Task,
    classification_scores,
    classify,
    donor_tasks,
    paper_protocol,
    run,
    task_table,
)


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
def tasks(adata):
    return donor_tasks(adata, "label", "donor", 2)


def of_cells(name, reference, query, **options):
    truth = query.obs["label"].astype(object)
    truth = truth.where(truth.notna() & (truth != "unknown"), "").to_numpy(str)
    return Task(name, lambda seed: Split(reference, query, truth), labels_key="label", **options)


def quietly(tasks, methods, seeds=(0,), path=None, **options):
    methods = [
        Method(name, make, getattr(make, "is_seeded", True)) for name, make in methods.items()
    ]
    return run(tasks, methods, seeds, path, progress=False, **options)


def test_scores_are_those_of_sklearn_on_the_query(tasks):
    table = quietly(tasks, {"m": Marker}, [4])
    assert list(table.columns[:4]) == ["method", "task", "seed", "family"]
    for task in tasks:
        query = task.load(0).query
        truth, counts = query.obs["label"], query.to_df() + 1
        predicted, stated = counts.idxmax(axis=1), counts.max(axis=1) / counts.sum(axis=1)
        row = table[table["task"] == task.name].iloc[0]
        assert row["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
        assert row["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
        expected = sk.roc_auc_score(predicted == truth, stated)
        assert row["auroc_of_errors"] == pytest.approx(expected, rel=1e-3)
        assert row["n_scored"] == len(truth)
        assert row["n_classes"] == 3
        assert 0 < row["ece"] < 1
        assert row["seconds"] == pytest.approx(row["fit_seconds"] + row["predict_seconds"])
        assert row["n_left_out"] == 0
        assert row["family"] == "donors"
        assert "scvi-sctab" in row["versions"]
        assert "threads" in row["machine"]


def test_where_all_labels_are_right_there_is_no_auroc_of_errors():
    labels = np.array(["B", "T"])
    scores = classification_scores(labels, labels, np.array([0.5, 1.0]))
    assert np.isnan(scores["auroc_of_errors"])
    assert scores["ece"] == pytest.approx(0.25)


def test_each_method_gets_each_seed_unless_neither_it_nor_the_task_needs_one(tasks):
    seen = []

    def make(seed):
        seen.append(seed)
        return Marker()

    table = quietly(tasks, {"a": make, "b": Majority}, (3, 5))
    assert seen == [3, 5, 3, 5]
    assert table.groupby("method").size().to_dict() == {"a": 4, "b": 2}
    assert set(table.loc[table["method"] == "b", "seed"]) == {3}
    drawn = []
    split = tasks[0].load(0)

    def load(seed):
        drawn.append(seed)
        return split

    task = Task("drawn", load, labels_key="label", is_seeded=True)
    table = quietly([task], {"a": make, "b": Majority}, (3, 5))
    assert table.groupby("method").size().to_dict() == {"a": 2, "b": 2}
    assert drawn == [3, 5]


def test_calibration_is_scored_only_where_there_are_probabilities(tasks):
    table = quietly(tasks, {"a": Marker, "b": Majority})
    assert set(table.loc[table["ece"].notna(), "method"]) == {"a"}


def test_a_method_that_fails_is_told_and_the_others_go_on(tasks, caplog):
    def broken(seed):
        if seed == 1:
            raise RuntimeError("out of luck")
        return Marker()

    with pytest.warns(UserWarning, match=r"2 runs failed, of \['broken'\].*out of luck"):
        table = quietly(tasks, {"broken": broken, "fine": Marker}, (0, 1))
    assert len(table) == 8
    failed = table[table["error"] != ""]
    assert failed["macro_f1"].isna().all()
    assert set(failed["error"]) == {"RuntimeError: out of luck"}
    assert set(zip(failed["method"], failed["seed"], strict=True)) == {("broken", 1)}
    assert not table.loc[table["error"] == "", "macro_f1"].isna().any()


def test_labels_that_cannot_be_learnt_are_left_out_and_counted(adata):
    labels = adata.obs["label"].to_numpy(dtype=object)
    labels[:120][labels[:120] == "NK"] = "T"
    labels[0] = "NK"  # one cell is not enough to learn from
    labels[[1, 130]], labels[131] = "unknown", np.nan
    adata.obs["label"] = labels
    seen = {}

    class Looks(Marker):
        def fit(self, reference, labels_key, donor_key=None):
            known = reference[reference.obs[labels_key] != "unknown"]
            seen["labels"], seen["n"] = set(known.obs[labels_key]), reference.n_obs
            return super().fit(known, labels_key, donor_key)

    task = of_cells("one", adata[:120], adata[120:])
    row = quietly([task], {"m": Looks}).iloc[0]
    assert seen == {"labels": {"B", "T"}, "n": 118}
    assert row["n_reference"] == 118
    assert row["n_left_out"] == (labels[120:] == "NK").sum() > 0
    assert row["n_scored"] == np.isin(labels[120:], ["B", "T"]).sum()
    quietly([of_cells("all", adata[:120], adata[120:], keeps_unlabelled=True)], {"m": Looks})
    assert seen == {"labels": {"B", "T"}, "n": 120}
    task = of_cells("two", adata[:120], adata[120:], labels=frozenset({"B", "T", "NK"}))
    row = quietly([task], {"m": Looks}).iloc[0]
    assert row["n_left_out"] == 0
    predicted = adata[120:].to_df()[["B", "T"]].idxmax(axis=1)
    scored = np.isin(labels[120:], ["B", "T", "NK"])
    expected = (predicted[scored] == labels[120:][scored]).mean()
    assert row["accuracy"] == pytest.approx(expected)


def test_methods_see_no_labels_of_the_query_and_cannot_spoil_it_for_others(adata):
    class Spoils(Marker):
        def fit(self, reference, labels_key, donor_key=None):
            super().fit(reference, labels_key, donor_key)
            assert list(reference.obs) == ["label", "donor", "batch"]
            reference.X[:] = 0
            return self

        def predict_proba(self, query):
            assert list(query.obs) == ["donor", "batch"]
            table = super().predict_proba(query)
            query.X[:] = 0
            return table

    adata.obs["batch"], adata.obs["term"] = "one", adata.obs["label"]
    before = adata.X.copy()
    tasks = donor_tasks(adata, "label", "donor", 2, batch_key="batch")
    table = quietly(tasks, {"spoils": Spoils, "fine": Marker})
    assert (table["error"] == "").all()
    np.testing.assert_array_equal(adata.X, before)
    one, other = (table[table["method"] == name] for name in ("spoils", "fine"))
    np.testing.assert_array_equal(one["accuracy"], other["accuracy"])


def test_scores_of_ones_own_get_the_truth_first(tasks):
    def share_of_b(truth, predicted, probability):
        return {"b": (truth == "B").mean() if (predicted != "B").all() else -1}

    table = quietly(tasks, {"m": Majority}, measure=partial(classify, scores=share_of_b))
    expected = [(task.load(0).query.obs["label"] == "B").mean() for task in tasks]
    np.testing.assert_allclose(table["b"], expected)


def test_a_measure_of_ones_own_needs_no_cells():
    tasks = [
        Task("power", lambda seed: 2, columns={"exponent": exponent}) for exponent in (1.0, 2.0)
    ]
    table = run(
        tasks,
        [Method("base 3", lambda seed: 3, is_seeded=False)],
        measure=lambda task, number, base: {"value": base ** (number * task.columns["exponent"])},
        progress=False,
    )
    assert table[["task", "exponent", "value"]].to_numpy().tolist() == [
        ["power", 1.0, 9.0],
        ["power", 2.0, 81.0],
    ]


def test_rows_that_are_not_the_cells_are_a_failure(tasks):
    class Shuffles(Marker):
        def predict_proba(self, query):
            return super().predict_proba(query)[::-1]

    with pytest.warns(UserWarning, match=r"not the cells of the query"):
        quietly(tasks, {"m": Shuffles})


def test_what_cannot_be_benchmarked_is_refused_or_told(adata, tasks):
    def never(seed):
        raise AssertionError

    with pytest.raises(ValueError, match=r"Some tasks share names.*donors 1"):
        quietly([tasks[0], tasks[0]], {"m": never})
    methods = [Method("m", never), Method("m", Marker)]
    with pytest.raises(ValueError, match=r"Some methods share names.*\['m'\]"):
        run(tasks, methods, progress=False)
    with pytest.raises(KeyError, match=r"labels_key='labels' is not a column"):
        donor_tasks(adata, "labels", "donor", 2)
    with pytest.warns(UserWarning, match=r"donor_key='donors' is not a column"):
        quietly([of_cells("one", adata, adata, donor_key="donors")], {"m": Marker})
    query = adata[:4].copy()
    query.obs["label"] = "Mast"
    with pytest.warns(UserWarning, match=r"'other' has no cell to score"):
        quietly([of_cells("other", adata, query)], {"m": Marker})


def test_the_protocol_of_the_paper_holds_out_donors_and_nests_the_rest(adata):
    seen = []

    class Looks(Marker):
        def fit(self, reference, labels_key, donor_key=None):
            seen.append(reference)
            return super().fit(reference, labels_key, donor_key)

        def predict_proba(self, query):
            assert not set(query.obs["donor"]) & set(seen[-1].obs["donor"])
            return super().predict_proba(query)

    options = {"fractions": (1.0, 0.4), "seeds": [0], "progress": False}
    runs = paper_protocol(adata, [Method("m", Looks)], "label", "donor", **options)
    assert (runs["error"] == "").all()
    by = [tuple(row) for row in runs[["by", "fraction"]].to_numpy()]
    assert by == [("donors", 0.4), ("donors", 1.0), ("cells", 0.4), ("cells", 1.0)]
    assert runs["macro_f1"].iloc[1] == runs["macro_f1"].iloc[3]
    few_donors, everything, few_cells = seen
    assert few_donors.obs["donor"].nunique() == 2
    assert everything.obs["donor"].nunique() == 5
    assert few_cells.n_obs == 80
    for part in (few_donors, few_cells):
        assert set(part.obs_names) <= set(everything.obs_names)
    assert runs["n_scored"].nunique() == 1


def test_labels_that_a_part_lacks_count_as_wrong(adata):
    options = {"fractions": (0.2, 1.0), "by": ["donors"], "seeds": [0], "progress": False}
    part = []

    class Looks(Marker):
        def fit(self, reference, labels_key, donor_key=None):
            part.append(set(reference.obs[donor_key]))
            return super().fit(reference, labels_key, donor_key)

    paper_protocol(adata, [Method("m", Looks)], "label", "donor", **options)
    # Only donors outside of the smaller part have T, and so do cells that are held out.
    inside = adata.obs["donor"].isin(part[0])
    adata.obs["label"] = np.where(inside & (adata.obs["label"] == "T"), "B", adata.obs["label"])
    table = paper_protocol(adata, [Method("m", Marker)], "label", "donor", **options)
    held_out = adata[~adata.obs["donor"].isin(part[1])]
    np.testing.assert_array_equal(table["n_scored"], held_out.n_obs)
    truth = held_out.obs["label"]
    predicted = held_out.to_df()[["B", "NK"]].idxmax(axis=1)
    assert table["accuracy"].iloc[0] == pytest.approx((truth == predicted).mean())


def test_the_protocol_says_what_it_cannot_do(adata):
    with pytest.raises(ValueError, match=r"names \['genes'\]"):
        paper_protocol(adata, [], "label", "donor", by=["genes"])
    with pytest.raises(ValueError, match=r"leaves no donor"):
        paper_protocol(adata, [], "label", "donor", test_size=1)
    with pytest.raises(ValueError, match=r"fraction=0 is not in"):
        paper_protocol(adata, [], "label", "donor", fractions=[0])


def test_a_killed_benchmark_goes_on_where_it_stopped(tasks, tmp_path):
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

    def attempt(path, n_left):
        Killed.n_left = n_left
        return quietly(tasks, {"killed": Killed, "majority": Majority}, [0, 1], path)

    with pytest.raises(KeyboardInterrupt):
        attempt(path, 3)
    assert fitted == [0, 1, 0]
    written = path.read_text()
    assert set(pd.read_csv(path)["task"]) == {task.name for task in tasks}
    table = attempt(path, 1)
    assert fitted == [0, 1, 0, 1]
    assert path.read_text().startswith(written)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["runs.csv"]
    again = attempt(path, 0)
    pd.testing.assert_frame_equal(again, table)
    once = attempt(None, 4)
    timed = table.columns.str.endswith("seconds")
    pd.testing.assert_frame_equal(table.loc[:, ~timed], once.loc[:, ~timed])


def test_nothing_is_loaded_for_runs_that_are_done(tasks, tmp_path):
    path = tmp_path / "runs.csv"
    table = quietly(tasks, {"m": Marker}, path=path)

    def never(seed):
        raise AssertionError

    done = [Task(task.name, never, labels_key="label") for task in tasks]
    pd.testing.assert_frame_equal(quietly(done, {"m": Marker}, path=path), table)


def test_a_run_that_failed_is_tried_again(tasks, tmp_path):
    path = tmp_path / "runs.csv"

    class Fails(Marker):
        def fit(self, *args, **kwargs):
            raise ValueError("no luck, today")

    with pytest.warns(UserWarning, match="2 runs failed"):
        failed = quietly(tasks, {"m": Fails}, path=path)
    assert set(failed["error"]) == {"ValueError: no luck, today"}
    table = quietly(tasks, {"m": Marker}, path=path)
    assert set(table["error"]) == {""}
    assert len(pd.read_csv(path)) == 2
    assert not pd.read_csv(path)["error"].notna().any()


def test_a_file_that_is_no_table_of_a_benchmark_is_left_alone(tasks, tmp_path):
    path = tmp_path / "cells.csv"
    for text, match in [
        ("cell,label\nc1,B\n", r"cells\.csv has the columns \['cell', 'label'\].*method, task"),
        ("", r"cells\.csv is no table of a benchmark"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=match):
            quietly(tasks, {"m": Marker}, path=path)
        assert path.read_text() == text


def test_what_was_stored_is_kept_where_a_method_cannot_be_made_again(tasks, tmp_path):
    path = tmp_path / "runs.csv"

    def missing(seed):
        raise ImportError("not installed here")

    table, stored = quietly(tasks, {"None": Marker}, path=path), path.read_text()
    pd.testing.assert_frame_equal(quietly(tasks, {"None": missing}, path=path), table)
    assert path.read_text() == stored
    assert set(table["method"]) == {"None"}


def test_a_library_that_is_not_installed_leaves_no_row_on_disk(tasks, tmp_path):
    path = tmp_path / "runs.csv"

    def missing(seed):
        raise ImportError("not installed here")

    with pytest.warns(UserWarning, match="2 runs failed.*ImportError: not installed here"):
        table = quietly(tasks, {"peer": missing, "m": Marker}, path=path)
    assert table["error"].str.startswith("ImportError").sum() == 2
    assert set(pd.read_csv(path)["method"]) == {"m"}


def test_rows_of_an_earlier_table_count_and_are_not_rewritten(tmp_path):
    path = tmp_path / "runs.csv"
    earlier = "task,share,chosen,method,seed,f1\none,0.050000,True,a,0,0.820596\ntwo,,False,a,0,0.100000\n"
    path.write_text(earlier)
    assert Runs(path).table["error"].tolist() == ["", ""]
    assert Runs(path).table["chosen"].tolist() == [True, False]
    tasks = [Task("one", lambda seed: None, columns={"share": s}) for s in (0.05, 0.1)]

    def measure(task, loaded, method):
        return {"f1": method, "more": "yes"}

    table = run(tasks, [Method("a", lambda seed: 0.5)], [0], path, measure=measure, progress=False)
    assert table["f1"].tolist() == [0.820596, 0.5]
    lines = path.read_text().splitlines()
    assert lines[0].startswith("task,share,chosen,method,seed,f1,family,more")
    assert lines[1].startswith("one,0.050000,True,a,0,0.820596,")
    assert lines[2].startswith("two,,False,a,0,0.100000,")
    assert lines[3].startswith("one,0.1,,a,0,0.5,one,yes")


def test_a_folder_that_is_missing_is_told_before_anything_runs(tasks, tmp_path):
    path = tmp_path / "nowhere" / "runs.csv"
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere; make it first"):
        quietly(tasks, {"m": None}, path=path)


def test_tasks_that_share_a_name_have_rows_of_their_own(tmp_path):
    tasks = [Task("a", int, columns={"k": 1}), Task("a", int)]

    def measure(task, loaded, method):
        return {"x": task.columns.get("k", 0)}

    for _ in range(2):
        rows = run(tasks, [Method("m", int)], [0], tmp_path / "runs.csv", measure=measure)
        assert rows["x"].tolist() == [1, 0]
    assert len(Runs(tmp_path / "runs.csv").table) == 2


def test_a_measure_does_not_overwrite_what_names_a_run():
    with pytest.warns(UserWarning, match=r"\['seed'\] name a run"):
        rows = run([Task("a", int)], [Method("m", int)], [3], measure=lambda *_: {"seed": 7})
    assert rows["seed"].tolist() == [3]


def test_cells_that_cannot_be_read_are_a_run_that_failed():
    def missing(seed):
        raise OSError("no such file")

    tasks = [Task("broken", missing), Task("whole", int)]
    with pytest.warns(UserWarning, match="no such file"):
        rows = run(tasks, [Method("m", int)], [0], measure=lambda *_: {"x": 1.0})
    assert rows["error"].tolist() == ["OSError: no such file", ""]
    table = task_table(rows[rows["error"] != ""], "x")
    assert table.loc["broken", "m"] == "-"
