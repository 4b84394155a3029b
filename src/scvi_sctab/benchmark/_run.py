"""Every method on every task, for every seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm.auto import tqdm

from scvi_sctab._logging import logger
from scvi_sctab._messages import warn
from scvi_sctab.benchmark._classify import classify
from scvi_sctab.benchmark._machine import describe_machine, describe_versions
from scvi_sctab.benchmark._runs import Runs

if TYPE_CHECKING:
    from pathlib import Path

    from scvi_sctab.benchmark._tasks import Method, Task

# Columns of every row, beside its keys.
_OWN = ("family", "error", "versions", "machine")
Measure = Callable[["Task", Any, Any], Mapping[str, Any]]


def run(
    tasks: Iterable[Task],
    methods: Iterable[Method],
    seeds: Sequence[int] = (0, 1, 2),
    path: str | Path | None = None,
    *,
    measure: Measure = classify,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure every method on every task, and keep what is done.

    Parameters
    ----------
    tasks
        Tasks, e.g. of :func:`donor_tasks`.
    methods
        Methods.
    seeds
        Seeds; each is a run, unless neither the task nor the method depends on it.
    path
        CSV to write after every run. Runs in it, identified by task, method and seed, are not
        repeated: an interrupted benchmark continues when it is called again. Its other rows stay.
    measure
        Function of a task, of what its ``load`` returned, and of what the method's ``make``
        returned, that returns the numbers of a row by name.
    progress
        Whether to show a progress bar.

    Returns
    -------
    A row per run, with columns ``method``, ``task``, ``family``, ``seed``, those of the task, those
    that were measured, ``versions``, ``machine`` and ``error``. A run that fails has a row with the
    reason in ``error`` and no numbers; it is tried again by the next call. That a library is not
    installed is no result, and is not written to ``path``.

    Raises
    ------
    ValueError
        If two tasks or two methods cannot be distinguished, or ``path`` is not a table of a
        benchmark.
    FileNotFoundError
        If the folder of ``path`` does not exist.

    Warns
    -----
    UserWarning
        If runs failed.

    Examples
    --------
    >>> from scvi_sctab import baselines, datasets
    >>> adata = datasets.pbmc_kang18()[::4, :200].copy()
    >>> runs = run(
    ...     donor_tasks(adata, "cell_type", "donor_id", n_splits=2),
    ...     [Method("logistic regression", baselines.LogisticRegression, is_seeded=False)],
    ... )  # doctest: +SKIP
    >>> print(markdown(task_table(runs, "macro_f1")))  # doctest: +SKIP
    """
    tasks, methods = list(tasks), list(methods)
    _check_names("tasks", [tuple(task.keys.items()) for task in tasks])
    _check_names("methods", [method.name for method in methods])
    runs = Runs(path)
    columns = dict.fromkeys(name for task in tasks for name in task.columns)
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(tasks) * len(seeds) * len(methods), disable=not progress) as bar:
        for task in tasks:
            loaded: dict[int, Any] = {}
            for seed, method in product(seeds, methods):
                bar.set_postfix_str(f"{method.name}, {task.name}")
                if seed == seeds[0] or task.is_seeded or method.is_seeded:
                    rows.append(_run(task, method, seed, measure, runs, loaded, columns))
                bar.update()
    table = pd.DataFrame(rows)
    _warn_of_failures(table)
    return table


def _run(
    task: Task,
    method: Method,
    seed: int,
    measure: Measure,
    runs: Runs,
    loaded: dict[int, Any],
    columns: Mapping[str, None],
) -> dict[str, Any]:
    """Return the row of one run.

    ``loaded`` holds what the task has loaded for the last seed, and ``columns`` are those of all
    tasks: one that a task lacks is empty in its rows.
    """
    keys = {"method": method.name, **columns, **task.keys, "seed": seed}
    if (known := runs.find(keys)) is not None:
        return known
    seed_of_cells = seed if task.is_seeded else 0
    row: dict[str, Any] = {"family": task.family or task.name}
    try:
        if seed_of_cells not in loaded:
            loaded.clear()
            loaded[seed_of_cells] = task.load(seed_of_cells)
        measured = measure(task, loaded[seed_of_cells], method.make(seed))
        if taken := sorted({*measured} & {*keys, *_OWN}):
            raise ValueError(f"{taken} name a run, and are measured under other names.")
        row |= {**measured, "error": ""}
    except ImportError as error:
        # Nothing was measured: the file gets no row.
        return {**keys, **row, "error": f"{type(error).__name__}: {error}"}
    except Exception as error:
        # The results of other methods, perhaps hours of work, must not be lost.
        logger.exception(f"{method.name!r} failed on {task.name!r}, seed {seed}.")
        row["error"] = f"{type(error).__name__}: {error}"
    row |= {"versions": describe_versions(), "machine": describe_machine()}
    runs.add(keys, row)
    return runs.find(keys) or {**keys, **row}


def _check_names(what: str, names: list[Any]) -> None:
    if repeated := sorted({str(name) for name in names if names.count(name) > 1}):
        raise ValueError(
            f"Some {what} share names, so that rows could not be distinguished: {repeated}."
        )


def _warn_of_failures(table: pd.DataFrame) -> None:
    if "error" not in table:
        return
    failed = table[table["error"].fillna("") != ""]
    if len(failed):
        first = failed.iloc[0]
        warn(
            f"{len(failed)} runs failed, of {sorted(set(failed['method']))}; they are missing in "
            f"the table, whose column 'error' says why. The first, of {first['method']!r} on "
            f"{first['task']!r}, seed {first['seed']}: {first['error']}"
        )
