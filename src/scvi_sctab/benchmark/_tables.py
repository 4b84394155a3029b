"""Tables of a benchmark: mean ± sample sd over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scvi_sctab.benchmark._summary import summarize

MEANS = {"mean over tasks": ("task",), "mean over families": ("family", "task")}


def task_table(runs: pd.DataFrame, metric: str, form: str = ".3f") -> pd.DataFrame:
    """Tabulate one metric, tasks in rows and methods in columns.

    Parameters
    ----------
    runs
        A row per run, as of :func:`run`.
    metric
        Column with numbers.
    form
        Format of numbers.

    Returns
    -------
    Text ``mean ± sd`` over seeds, without sd for one run, ``"-"`` where there is none. Below the
    tasks the means over tasks and, where they differ, over families; a method that did not run every
    task has none.
    """
    parts = [summarize(runs, metric, ("task", "method"))]
    has_folds = runs["family"].nunique() < runs["task"].nunique()
    for name, levels in list(MEANS.items())[: 1 + has_folds]:
        parts.append(summarize(runs, metric, ("method",), levels).assign(task=name))
    summary = pd.concat([part for part in parts if len(part)] or parts)
    cells = summary.assign(text=_texts(summary, form))
    wide = cells.pivot(index="task", columns="method", values="text")
    tasks = dict.fromkeys([*runs["task"], *cells["task"]])
    methods = dict.fromkeys(runs["method"])
    wide = wide.reindex(index=[*tasks], columns=[*methods]).astype(object).fillna("-")
    return wide.rename_axis(index=metric, columns=None)


def method_table(
    runs: pd.DataFrame,
    metrics: Mapping[str, str] | Sequence[str],
    by: Sequence[str] = ("method",),
    levels: Sequence[str] = ("task",),
    form: Mapping[str, str] | str = ".3f",
) -> pd.DataFrame:
    """Tabulate several metrics, methods (or what else is named) in rows.

    Parameters
    ----------
    runs
        A row per run, as of :func:`run`.
    metrics
        Columns with numbers, and their titles if they differ.
    by, levels
        As in :func:`summarize`.
    form
        Format of numbers; a mapping for formats of some metrics.

    Returns
    -------
    Text ``mean ± sd`` over seeds, without sd for one run, ``"-"`` where there is none. Rows are
    named by the values of ``by``, joined by commas.
    """
    titles = metrics if isinstance(metrics, Mapping) else {name: name for name in metrics}
    names = runs[list(by)].drop_duplicates()
    columns = {}
    for metric, title in titles.items():
        own = form if isinstance(form, str) else form.get(metric, ".3f")
        summary = summarize(runs, metric, by, levels)
        columns[title] = pd.Series(_texts(summary, own).tolist(), _joined(summary, by))
    table = pd.DataFrame(columns, index=_joined(names, by), dtype=object).fillna("-")
    return table.rename_axis(index=", ".join(by))


def difference_table(
    runs: pd.DataFrame, metric: str, baseline: str, form: str = "+.3f"
) -> pd.DataFrame:
    """Compare methods with one of them, on the same tasks and seeds.

    Parameters
    ----------
    runs
        A row per run, as of :func:`run`.
    metric
        Column with numbers.
    baseline
        Method to compare with.
    form
        Format of differences.

    Returns
    -------
    A row per other method: the mean difference over the tasks that both ran and its sd over seeds,
    the number of pairs of runs in which the method has the larger number, and the task with the least
    difference. A single run on a task, as of a deterministic method, is compared with every seed.

    Raises
    ------
    ValueError
        If no run is of the baseline.
    """
    base = runs[runs["method"] == baseline]
    if base.empty:
        raise ValueError(f"No run is of {baseline!r}; there are {sorted(set(runs['method']))}.")
    rows = {}
    for method in dict.fromkeys(runs["method"]):
        pairs = _pairs(runs[runs["method"] == method], base, metric)
        if method == baseline or pairs.empty:
            continue
        mean = summarize(pairs.assign(method=method), "difference", ("method",), ("task",))
        by_task = pairs.groupby("task", sort=False)["difference"].mean()
        rows[method] = {
            f"{metric} over {baseline}": _texts(mean, form).iloc[0],
            "larger in": f"{(pairs['difference'] > 0).sum()} of {len(pairs)}",
            "least": f"{by_task.min():{form}} ({by_task.idxmin()})",
        }
    return pd.DataFrame(rows).T.rename_axis(index="method")


def markdown(table: pd.DataFrame) -> str:
    """Format a table of text in Markdown, with columns of equal width.

    Examples
    --------
    >>> print(markdown(pd.DataFrame({"f1": ["0.8"]}, index=pd.Index(["a"], name="method"))))
    | method | f1  |
    | ------ | --- |
    | a      | 0.8 |
    """
    lines = [[str(table.index.name or ""), *map(str, table.columns)]]
    rows = zip(table.index, table.to_numpy(), strict=True)
    lines += [[str(index), *map(str, row)] for index, row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _texts(summary: pd.DataFrame, form: str) -> pd.Series:
    spread = form.lstrip("+")
    texts = [
        f"{row.mean:{form}}" + ("" if np.isnan(row.sd) else f" ± {row.sd:{spread}}")
        for row in summary.astype({"mean": float, "sd": float}).itertuples()
    ]
    return pd.Series(texts, summary.index, dtype=object)


def _joined(rows: pd.DataFrame, by: Sequence[str]) -> list[str]:
    return [", ".join(map(str, row)) for row in rows[list(by)].itertuples(index=False)]


def _pairs(one: pd.DataFrame, other: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the difference of each task and seed."""
    pairs = []
    for task, own in one.dropna(subset=metric).groupby("task", sort=False):
        ours = own.set_index("seed")[metric]
        theirs = other[other["task"] == task].dropna(subset=metric).set_index("seed")[metric]
        if len(ours) and len(theirs) == 1:
            theirs = pd.Series(theirs.iloc[0], ours.index)
        elif len(ours) == 1 and len(theirs):
            ours = pd.Series(ours.iloc[0], theirs.index)
        change = (ours - theirs).dropna().rename("difference").rename_axis("seed").reset_index()
        pairs.append(change.assign(task=task))
    return pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame()
