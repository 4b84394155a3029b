"""Scores of a ready-made model on donors, studies and types that are held out in turn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab.metrics import classification_report, confusion, expected_calibration_error
from scvi_sctab.models._recipes import DONOR, LABELS, STUDY
from scvi_sctab.models._training import train_model

if TYPE_CHECKING:
    from anndata import AnnData

    from scvi_sctab.model import SCTAB
    from scvi_sctab.models._recipes import Recipe

N_TYPE_GROUPS = 4
ERROR_RATE = 0.1
FALSE_ALARM_RATES = (0.01, 0.05, 0.1)
THRESHOLDS = (0.5, 0.7, 0.9, 0.95)
_MIN_CONFUSION = 0.05


@dataclass(frozen=True)
class Split:
    """Cells to hold out from a training.

    Parameters
    ----------
    name
        ``"donors"``, ``"types"``, or the name of a study.
    donors
        Donors to hold out; all of the study if there are none.
    types
        Types to leave out of the training.
    """

    name: str
    donors: tuple[str, ...] = ()
    types: tuple[str, ...] = ()


def score_recipe(recipe: Recipe, n_processes: int = 1) -> dict[str, Any]:
    """Train on all but the held-out cells, in turn, and score the predictions for these.

    Parameters
    ----------
    recipe
        Cells of the model.
    n_processes
        Number of trainings at a time; the result does not depend on it.

    Returns
    -------
    Plain values of the card, see :func:`summarize`.
    """
    splits = list_splits(recipe)
    run = partial(score_split, recipe)
    if n_processes == 1:
        return summarize(splits, [run(split) for split in splits])
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        return summarize(splits, list(pool.map(run, splits)))


def list_splits(recipe: Recipe) -> list[Split]:
    """List the splits: donors in turn, studies in turn, and types in turn.

    Parameters
    ----------
    recipe
        Cells of the model.
    """
    cells = recipe.read()
    donors = donor_folds(cells, recipe.n_folds)
    types = cells.obs[LABELS].value_counts().drop(list(recipe.coarse_labels)).index
    splits = [Split("donors", tuple(fold)) for fold in donors]
    splits += [Split(study) for study in sorted(cells.obs[STUDY].unique())]
    # Unseen types are scored on donors that were held out, too.
    splits += [
        Split("types", tuple(donors[i % len(donors)]), tuple(types[i::N_TYPE_GROUPS]))
        for i in range(N_TYPE_GROUPS)
    ]
    return splits


def score_split(recipe: Recipe, split: Split) -> pd.DataFrame:
    """Train without the held-out cells and annotate them.

    Parameters
    ----------
    recipe
        Cells of the model.
    split
        Cells to hold out.

    Returns
    -------
    A row per held-out cell, see :func:`annotate_held_out`; of types that were left out, if there
    are such.
    """
    cells = recipe.read()
    is_held_out = (
        cells.obs[DONOR].isin(split.donors) if split.donors else cells.obs[STUDY] == split.name
    ).to_numpy()
    of_type = cells.obs[LABELS].isin(split.types).to_numpy()
    model = train_model(cells[~is_held_out & ~of_type].copy(), recipe)
    if split.types:
        # With the others of their donors: novelty is measured against what is typical of a query.
        return _annotate(model, cells[is_held_out].copy())[of_type[is_held_out]]
    return annotate_held_out(model, cells[is_held_out].copy())


def summarize(splits: Sequence[Split], rows: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """Summarise held-out cells for a card.

    Parameters
    ----------
    splits
        The splits.
    rows
        Held-out cells of each split.

    Returns
    -------
    Plain values: ``splits``, a row per kind of split with scores; ``types``, F1 per type;
    ``confusions``; ``unseen``, a row per type that was left out of a training; ``thresholds``,
    accuracy, share of cells kept and share of cells of unseen types flagged.
    """
    named: dict[str, list[pd.DataFrame]] = {}
    for split, part in zip(splits, rows, strict=True):
        named.setdefault(split.name, []).append(part)
    pooled, unseen = pd.concat(named.pop("donors")), pd.concat(named.pop("types"))
    scores = [_scores("donors, in turn", pooled)]
    scores += [_scores(f"study {study}", part) for study, (part,) in named.items()]
    report = classification_report(pooled["truth"], pooled["label"])
    return {
        "splits": scores,
        "types": {label: round(float(f1), 3) for label, f1 in report["f1"].iloc[:-3].items()},
        "confusions": _confusions(pooled),
        "unseen": _unseen(unseen),
        "thresholds": [_threshold(pooled, unseen, level) for level in THRESHOLDS],
    }


def donor_folds(cells: AnnData, n_folds: int) -> list[list[str]]:
    """Split donors into folds of similar size, the largest donor first.

    The donor of a study with no other one is left out, being held out with the study.

    Parameters
    ----------
    cells
        Cells of a recipe.
    n_folds
        Number of folds.

    Returns
    -------
    Donors of each fold.
    """
    several = cells.obs.groupby(STUDY, observed=True)[DONOR].transform("nunique") > 1
    counts = cells.obs.loc[several, DONOR].astype(str).value_counts()
    folds: list[list[str]] = [[] for _ in range(n_folds)]
    sizes = [0] * n_folds
    for n_cells, donor in sorted(((n, donor) for donor, n in counts.items()), reverse=True):
        smallest = sizes.index(min(sizes))
        folds[smallest].append(donor)
        sizes[smallest] += n_cells
    return folds


def annotate_held_out(model: SCTAB, cells: AnnData) -> pd.DataFrame:
    """Annotate cells, and say what is true of them.

    Parameters
    ----------
    model
        Model that was not trained on the cells.
    cells
        Labelled raw counts.

    Returns
    -------
    A row per cell whose label the model can predict: ``truth``, ``label``, ``probability``,
    ``p_value`` of novelty, ``covered`` by the prediction set, and ``set_size``.
    """
    predictable = set(model.labels) - set(model.coarse_labels)
    cells = cells[cells.obs[LABELS].isin(predictable)].copy()
    rows = _annotate(model, cells)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the shift, which the scores show
        sets = model.get_prediction_sets(cells, error_rate=ERROR_RATE)
    codes = sets.columns.get_indexer(rows["truth"])
    rows["covered"] = sets.to_numpy()[np.arange(len(sets)), codes]
    rows["set_size"] = sets.sum(axis=1)
    return rows


def _annotate(model: SCTAB, cells: AnnData) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = model.annotate(cells)
    return pd.DataFrame(
        {
            "truth": cells.obs[LABELS].astype(str),
            "label": found["label"].astype(str),
            "probability": found["probability"],
            "p_value": found["novelty_p_value"],
        }
    )


def _scores(split: str, rows: pd.DataFrame) -> dict[str, Any]:
    report = classification_report(rows["truth"], rows["label"])
    right = (rows["truth"] == rows["label"]).to_numpy()
    return {
        "split": split,
        "n_cells": len(rows),
        "n_types": int(rows["truth"].nunique()),
        "accuracy": round(float(right.mean()), 3),
        "macro_f1": round(float(report.loc["macro average", "f1"]), 3),
        "coverage": round(float(rows["covered"].mean()), 3),
        "set_size": round(float(rows["set_size"].mean()), 2),
        "ece": round(expected_calibration_error(rows["probability"], right), 3),
        "false_alarms": round(float((rows["p_value"] <= FALSE_ALARM_RATES[1]).mean()), 3),
    }


def _confusions(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """List pairs of types that are confused often, the most frequent first."""
    table = confusion(rows["truth"], rows["label"])
    pairs = [
        {"truth": truth, "predicted": label, "share": round(float(share), 3)}
        for truth, row in table.iterrows()
        for label, share in row.items()
        if truth != label and share >= _MIN_CONFUSION
    ]
    return sorted(pairs, key=lambda pair: -pair["share"])


def _unseen(rows: pd.DataFrame) -> list[dict[str, Any]]:
    def describe(name: str, part: pd.DataFrame) -> dict[str, Any]:
        flagged = {
            f"novel_at_{rate:g}": round(float((part["p_value"] <= rate).mean()), 3)
            for rate in FALSE_ALARM_RATES
        }
        most = part["label"].value_counts()
        return {
            "type": name,
            "n_cells": len(part),
            **flagged,
            "taken_for": str(most.index[0]),
            "taken_share": round(float(most.iloc[0] / len(part)), 3),
        }

    return [describe(name, part) for name, part in rows.groupby("truth")]


def _threshold(known: pd.DataFrame, unseen: pd.DataFrame, level: float) -> Mapping[str, Any]:
    """Score what remains if cells below a probability are left without a label."""
    kept = known[known["probability"] >= level]
    return {
        "probability": level,
        "kept": round(len(kept) / len(known), 3),
        "accuracy": round(float((kept["truth"] == kept["label"]).mean()), 3),
        "unseen_flagged": round(float((unseen["probability"] < level).mean()), 3),
    }
