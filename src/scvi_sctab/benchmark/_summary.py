"""Mean over tasks and seeds, and its spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

_SEED = "seed"


def summarize(
    runs: pd.DataFrame,
    metric: str,
    by: Sequence[str] = ("method", "task"),
    levels: Sequence[str] = (),
) -> pd.DataFrame:
    """Compute mean and sample standard deviation over seeds.

    Parameters
    ----------
    runs
        A row per run, as of :func:`run`; runs without the metric do not count.
    metric
        Column with numbers.
    by
        Columns; each combination of their values is a row of the result, in order of appearance.
    levels
        Columns to take means over first, for each seed, from the outermost to the innermost:
        ``["task"]`` for the mean over tasks, ``["family", "task"]`` for the mean over families of
        the means over their tasks. The standard deviation is that of these means.

    Returns
    -------
    Columns ``by``, ``mean``, ``sd`` (NaN for a single seed) and ``n``, the number of seeds. With
    ``levels`` only seeds count that have each value of the levels that others in ``runs`` have; a
    single run stands for every seed, as that of a deterministic method does.

    Examples
    --------
    >>> runs = pd.DataFrame({"method": "a", "task": list("xxyy"), "seed": [0, 1] * 2})
    >>> summarize(runs.assign(f1=[0.1, 0.3, 0.5, 0.7]), "f1", ["method"], ["task"]).round(2)
      method  mean    sd  n
    0      a   0.4  0.14  2
    """
    by, levels = list(by), list(levels)
    if metric not in runs:  # no run has succeeded
        return pd.DataFrame(columns=[*by, "mean", "sd", "n"])
    rows = runs.loc[runs[metric].notna(), [*dict.fromkeys([*by, _SEED, *levels, metric])]]
    if rows.empty:
        return pd.DataFrame(columns=[*by, "mean", "sd", "n"])
    rows = _seed_means(rows, metric, by, levels)
    means = rows.groupby(by, sort=False)[metric].agg(mean="mean", sd="std", n="count")
    return means.reset_index()


def _seed_means(
    rows: pd.DataFrame, metric: str, by: Sequence[str], levels: Sequence[str]
) -> pd.DataFrame:
    """Return the mean over ``levels`` for each seed; columns ``by``, ``seed`` and the metric."""
    by, levels = list(by), list(levels)
    rows = rows.groupby([*by, *levels, _SEED], sort=False, as_index=False)[metric].mean()
    if levels:
        n_all = len(rows[levels].drop_duplicates())
        rows = _repeat_single_runs(rows, by, levels)
        is_whole = rows.groupby([*by, _SEED])[metric].transform("size") == n_all
        rows = rows[is_whole]
    for depth in range(len(levels) - 1, -1, -1):
        keys = [*by, _SEED, *levels[:depth]]
        rows = rows.groupby(keys, sort=False, as_index=False)[metric].mean()
    return rows


def _repeat_single_runs(rows: pd.DataFrame, by: list[str], levels: list[str]) -> pd.DataFrame:
    """Let what was run once stand for every seed of the same ``by``."""
    n_seeds = rows.groupby([*by, *levels])[_SEED].transform("nunique")
    single, others = rows[n_seeds == 1], rows[n_seeds > 1]
    if single.empty or others.empty:
        return rows
    seeds = others[[*by, _SEED]].drop_duplicates()
    repeated = single.drop(columns=_SEED).merge(seeds, on=by)
    alone = single.merge(seeds[by].drop_duplicates(), on=by, how="left", indicator=True)
    alone = alone.loc[alone.pop("_merge") == "left_only"]
    return pd.concat([others, repeated, alone], ignore_index=True)
