"""Comparison of methods on the same cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score
from tqdm.auto import tqdm

from scvi_sctab._logging import logger
from scvi_sctab._messages import warn
from scvi_sctab.metrics._calibration import expected_calibration_error
from scvi_sctab.metrics._classification import f1_macro
from scvi_sctab.metrics._runs import COLUMNS, Runs
from scvi_sctab.metrics._splits import Split, column, labels_of, learnable

if TYPE_CHECKING:
    from pathlib import Path

    from scvi_sctab._types import CellTypePredictor


Factory = Callable[[int], "CellTypePredictor"]
Score = Callable[[NDArray[np.str_], NDArray[np.str_]], float]


def benchmark(
    predictors: Mapping[str, Factory],
    splits: Iterable[Split],
    labels_key: str,
    donor_key: str | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    scores: Mapping[str, Score] | None = None,
    path: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Fit every method to every reference, and score it on the query.

    Methods see neither the labels of the query nor unlabelled cells of the reference.

    Parameters
    ----------
    predictors
        For each name a function of a seed that returns a new
        :class:`~scvi_sctab._types.CellTypePredictor`; the classes of
        :mod:`scvi_sctab.baselines` are such functions. A method whose attribute ``is_seeded`` is
        ``False`` runs for the first seed only.
    splits
        References and queries, e.g. of :func:`donor_splits`.
    labels_key
        Column with labels in both; cells whose label is missing or ``"unknown"`` are left out.
    donor_key
        Column with donors of the reference, for methods that use them.
    seeds
        Seeds; each is a run.
    scores
        Further functions of true and predicted labels by name, such as an ontology-corrected
        macro F1.
    path
        CSV to write after every run. Runs in it, identified by method, split and seed, are not
        repeated: an interrupted benchmark continues when it is called again. For further
        ``scores`` or other data use another file.
    progress
        Whether to show a progress bar.

    Returns
    -------
    A row per number, with columns ``method``, ``split``, ``seed``, ``metric``, ``value``,
    ``error``. The metrics are

    - ``f1_macro``, ``accuracy`` and the names of ``scores``, over the scored cells;
    - ``ece``, where there are probabilities: :func:`expected_calibration_error`;
    - ``fit_seconds``, ``predict_seconds``;
    - ``n_scored``, and ``n_left_out``: cells of labels that the reference lacks or has in one
      cell only, so that no method could have learnt them.

    A run that fails has one row, in which ``f1_macro`` is missing and ``error`` has the reason.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If a split has no cell to score, two splits have the same name, or ``path`` is not a table
        of a benchmark.
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
    >>> table = benchmark(
    ...     {"logistic regression": baselines.LogisticRegression},
    ...     donor_splits(adata, "donor_id", n_splits=2),
    ...     "cell_type",
    ... )  # doctest: +SKIP
    >>> table.pivot_table("value", ["method", "split"], "metric")  # doctest: +SKIP
    """
    tasks = [_Task(split, labels_key, donor_key) for split in splits]
    names = [task.split.name for task in tasks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"Splits share names, so that rows could not be distinguished: {repeated}."
        )
    all_scores = {"f1_macro": f1_macro, "accuracy": accuracy_score, **(scores or {})}
    rows: list[dict[str, Any]] = []
    runs = Runs(path)
    total = len(tasks) * len(predictors) * len(seeds)
    with tqdm(total=total, desc="Runs", disable=not progress) as bar:
        for task in tasks:
            for method, factory in predictors.items():
                bar.set_postfix_str(f"{method}, {task.split.name}")
                rows += _all_seeds(task, method, factory, seeds, all_scores, runs)
                bar.update(len(seeds))
    table = pd.DataFrame(rows, columns=COLUMNS)
    _warn_of_failures(table)
    return table


class _Task:
    """A split with its learnable and its scored cells; the AnnData is made when it is needed."""

    def __init__(self, split: Split, labels_key: str, donor_key: str | None):
        self.split, self.labels_key, self.donor_key = split, labels_key, donor_key
        if donor_key is not None:
            column(split.reference, donor_key, "donor_key")
        labels = labels_of(split.reference, labels_key)
        learnt = learnable(labels)
        self.learnt = np.isin(labels, list(learnt))
        self.truth = labels_of(split.query, labels_key)
        counting = sorted(learnt if split.labels is None else split.labels)
        self.scored = np.isin(self.truth, counting)
        self.n_left_out = int(((self.truth != "") & ~self.scored).sum())
        if not self.scored.any():
            raise ValueError(
                f"Split {split.name!r} has no cell to score: none of {counting}, which can be "
                f"learnt, is a label of the query."
            )

    def reference(self) -> AnnData:
        """Copy the labelled cells, so that no method can change the input of the next one."""
        cells = self.split.reference[self.learnt]
        keys = [key for key in (self.labels_key, self.donor_key) if key is not None]
        obs = cells.obs[keys].copy()
        obs[self.labels_key] = obs[self.labels_key].astype(str).astype("category")
        return AnnData(cells.X.copy(), obs=obs, var=cells.var.copy())

    def query(self) -> AnnData:
        """Copy all cells, without labels."""
        cells = self.split.query
        obs = cells.obs.drop(columns=self.labels_key)
        return AnnData(cells.X.copy(), obs=obs, var=cells.var.copy())


def _all_seeds(
    task: _Task,
    method: str,
    factory: Factory,
    seeds: Sequence[int],
    scores: Mapping[str, Score],
    runs: Runs,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        run: dict[str, Any] = {"method": method, "split": task.split.name, "seed": seed}
        known = runs.rows(**run)
        try:
            predictor = factory(seed)
            is_seeded = getattr(predictor, "is_seeded", True)
            of_run = known or [
                {**run, "metric": metric, "value": value, "error": ""}
                for metric, value in _run(task, predictor, scores).items()
            ]
        except Exception as error:
            # The results of other methods, perhaps hours of work, must not be lost.
            logger.exception(f"{method!r} failed on {task.split.name!r}, seed {seed}.")
            text = f"{type(error).__name__}: {error}"
            of_run = known or [{**run, "metric": "f1_macro", "value": np.nan, "error": text}]
            is_seeded = True  # the next seed may succeed
        if not known:
            runs.add(of_run)
        rows += of_run
        if not is_seeded:
            break
    return rows


def _run(
    task: _Task, predictor: CellTypePredictor, scores: Mapping[str, Score]
) -> dict[str, float]:
    reference, query = task.reference(), task.query()
    start = perf_counter()
    predictor.fit(reference, task.labels_key, task.donor_key)
    fitted = perf_counter()
    table = predictor.predict_proba(query)
    end = perf_counter()
    if not table.index.equals(query.obs_names):
        raise ValueError("The rows of what it returned are not the cells of the query.")
    values = table.to_numpy()[task.scored]
    truth = task.truth[task.scored]
    predicted = table.columns.to_numpy(dtype=str)[values.argmax(axis=1)]
    numbers = {name: float(score(truth, predicted)) for name, score in scores.items()}
    if getattr(predictor, "has_probabilities", True):
        stated = values.max(axis=1).tolist()
        numbers["ece"] = expected_calibration_error(stated, (predicted == truth).tolist())
    numbers |= {"fit_seconds": fitted - start, "predict_seconds": end - fitted}
    return numbers | {"n_scored": len(truth), "n_left_out": task.n_left_out}


def _warn_of_failures(table: pd.DataFrame) -> None:
    failed = table[table["error"] != ""]
    if len(failed):
        first = failed.iloc[0]
        warn(
            f"{len(failed)} runs failed, of {sorted(set(failed['method']))}; they are missing in "
            f"the table, whose column 'error' says why. The first, of {first['method']!r} on "
            f"{first['split']!r}, seed {first['seed']}: {first['error']}"
        )
