"""Means and spreads of a benchmark, against sums by hand."""

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.benchmark import (
    difference_table,
    markdown,
    method_table,
    summarize,
    task_table,
)

TASKS = {"one": "donors", "two": "donors", "three": "studies"}


def rows(method, values, tasks=TASKS):
    """Give each task its list of values over seeds."""
    return [
        {"method": method, "task": task, "family": TASKS[task], "seed": seed, "f1": value}
        for task, own in zip(tasks, values, strict=True)
        for seed, value in enumerate(own)
    ]


@pytest.fixture
def runs():
    return pd.DataFrame(
        rows("a", [[0.1, 0.3], [0.3, 0.5], [0.8, 0.6]])
        + rows("fixed", [[0.2], [0.4], [0.9]])
        + rows("half", [[0.5, 0.6]], ["one"])
    )


def test_the_spread_is_the_sample_standard_deviation_over_seeds(runs):
    summary = summarize(runs, "f1").set_index(["method", "task"])
    assert summary.loc[("a", "one"), "mean"] == pytest.approx(0.2)
    assert summary.loc[("a", "one"), "sd"] == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert np.isnan(summary.loc[("fixed", "one"), "sd"])
    assert summary.loc[("fixed", "one"), "n"] == 1


def test_means_over_tasks_are_taken_for_each_seed_and_of_whole_methods_only(runs):
    summary = summarize(runs, "f1", ["method"], ["task"]).set_index("method")
    assert list(summary.index) == ["a", "fixed"]
    by_seed = [(0.1 + 0.3 + 0.8) / 3, (0.3 + 0.5 + 0.6) / 3]
    assert summary.loc["a", "mean"] == pytest.approx(np.mean(by_seed))
    assert summary.loc["a", "sd"] == pytest.approx(np.std(by_seed, ddof=1))
    families = summarize(runs, "f1", ["method"], ["family", "task"]).set_index("method")
    assert families.loc["fixed", "mean"] == pytest.approx((0.3 + 0.9) / 2)


def test_a_single_run_stands_for_every_seed_of_its_method():
    mixed = pd.DataFrame(rows("a", [[0.1, 0.3], [0.5], [0.2, 0.2]]))
    summary = summarize(mixed, "f1", ["method"], ["task"]).iloc[0]
    by_seed = [(0.1 + 0.5 + 0.2) / 3, (0.3 + 0.5 + 0.2) / 3]
    assert summary["mean"] == pytest.approx(np.mean(by_seed))
    assert summary["sd"] == pytest.approx(np.std(by_seed, ddof=1))


def test_a_seed_without_all_tasks_does_not_count(runs):
    runs.loc[(runs["method"] == "a") & (runs["task"] == "two") & (runs["seed"] == 1), "f1"] = (
        np.nan
    )
    runs = pd.concat([runs, pd.DataFrame(rows("a", [[0, 0, 9.0]], ["one"]))[2:]])
    summary = summarize(runs, "f1", ["method"], ["task"]).set_index("method")
    # Task two has one run, which stands for seed 1; no other task has the third seed.
    by_seed = [(0.1 + 0.3 + 0.8) / 3, (0.3 + 0.3 + 0.6) / 3]
    assert summary.loc["a", "mean"] == pytest.approx(np.mean(by_seed))
    assert summary.loc["a", "n"] == 2


def test_tasks_are_rows_with_their_means_below(runs):
    table = task_table(runs, "f1", ".2f")
    assert list(table.columns) == ["a", "fixed", "half"]
    assert list(table.index) == [*TASKS, "mean over tasks", "mean over families"]
    assert table.loc["one"].tolist() == ["0.20 ± 0.14", "0.20", "0.55 ± 0.07"]
    assert table.loc["mean over tasks", "half"] == "-"
    assert table.loc["mean over families", "fixed"] == "0.60"
    assert "mean over families" not in task_table(runs[runs["task"] != "two"], "f1").index


def test_methods_are_rows_with_a_column_for_each_metric(runs):
    runs["ece"] = np.where(runs["method"] == "a", runs["f1"] / 10, np.nan)
    table = method_table(runs, {"f1": "macro F1", "ece": "ECE"}, form={"ece": ".4f"})
    assert table.index.tolist() == ["a", "fixed", "half"]
    assert table.loc["fixed"].tolist() == ["0.500", "-"]
    assert table.loc["a", "ECE"] == "0.0433 ± 0.0047"
    by_task = method_table(runs, ["f1"], ["task", "method"], [])
    assert by_task.index[-1] == "one, half"
    assert by_task.iloc[-1, 0] == "0.550 ± 0.071"


def test_differences_are_paired_by_task_and_seed(runs):
    table = difference_table(runs, "f1", "a", "+.2f")
    assert list(table.index) == ["fixed", "half"]
    assert table.loc["half"].tolist() == ["+0.35 ± 0.07", "2 of 2", "+0.35 (one)"]
    # Against seeds 0 and 1: 0.1, 0.1, 0.1 and -0.1, -0.1, 0.3.
    spread = np.std([0.1, 0.1 / 3], ddof=1)
    mean = np.mean([0.1, 0.1 / 3])
    expected = [f"{mean:+.2f} ± {spread:.2f}", "4 of 6", "+0.00 (two)"]
    assert [text.replace("-0.00", "+0.00") for text in table.loc["fixed"]][:2] == expected[:2]
    with pytest.raises(ValueError, match=r"No run is of 'b'; there are \['a', 'fixed', 'half'\]"):
        difference_table(runs, "f1", "b")


def test_markdown_has_columns_of_equal_width():
    table = pd.DataFrame({"f1": ["0.8", "0.75 ± 0.01"]}, index=pd.Index(["a", "bb"], name="m"))
    assert markdown(table).splitlines() == [
        "| m  | f1          |",
        "| -- | ----------- |",
        "| a  | 0.8         |",
        "| bb | 0.75 ± 0.01 |",
    ]
