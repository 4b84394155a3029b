"""Report on the training of a model: from its history and held-out cells to a page."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab._constants import ERROR_RATE, FALSE_ALARM_RATE, TERM_LEVEL
from scvi_sctab.annotation import LabelAudit, Rates
from scvi_sctab.model._annotate_query import annotate_selection
from scvi_sctab.model._report import describe_provenance
from scvi_sctab.model._sctab import SCTAB
from scvi_sctab.model._siblings import find_obstacle
from scvi_sctab.report import (
    TrainingFindings,
    TrainingReport,
    build_training_report,
    check_page,
    write_report,
)

if TYPE_CHECKING:
    from scvi_sctab.data import CellSelection
    from scvi_sctab.model._annotator import CellAnnotator


_NAME = "reference"


def report_training(
    model: CellAnnotator,
    path: str | os.PathLike[str] | None = None,
    *,
    name: str = _NAME,
    audit: LabelAudit | None = None,
    card: Mapping[str, Any] | None = None,
    call: str | None = None,
    overwrite: bool = False,
) -> TrainingReport:
    """Report on the training of a model.

    Parameters
    ----------
    model
        A trained model with its cells.
    path, name, audit, card, overwrite
        As of :meth:`scvi_sctab.SCTAB.training_report`.
    call
        Line to type for the same report.

    Raises
    ------
    FileExistsError, RuntimeError, TypeError, ValueError
        As of :meth:`scvi_sctab.SCTAB.training_report`.
    """
    if path is not None:
        check_page(path, overwrite)
    if audit is not None and not isinstance(audit, LabelAudit):
        raise TypeError(
            f"audit is a {type(audit).__name__}: pass the result of `model.audit_labels()`."
        )
    model._require_trained()
    if model.adata is None or model.training_record is None:
        raise ValueError(
            "The cells that this model was trained on are not here: load it with them, "
            "`SCTAB.load(path, adata)`."
        )
    if audit is not None:
        _check_audit(model, audit)
    members = list(getattr(model, "members", [model]))
    held_out, truth, columns = _held_out(model)
    predictable = model.annotation.predictable
    codes = model._codes_of(model._trained_cells())
    counts = np.bincount(codes[codes >= 0], minlength=len(model.labels))
    labels = [str(label) for label in model.labels[predictable]]
    findings = TrainingFindings(
        title=name,
        labels=labels,
        histories=[member.history or {} for member in members],
        n_trained=dict(zip(labels, map(int, counts[predictable]), strict=True)),
        held_out=held_out,
        truth=truth,
        columns=columns,
        provenance=describe_provenance(model, name, card or {}, call or _call(path, name, audit)),
        settings=_settings(model, members),
        audit=audit,
        can_audit=_can_audit(model),
    )
    report = build_training_report(findings)
    if path is not None:
        write_report(report, None, path, overwrite)
    return report


def _check_audit(model: CellAnnotator, audit: LabelAudit) -> None:
    """Refuse an audit of other labels or cells than those of the model."""
    cure = "Pass the result of `audit_labels` of a model of the same cells and labels."
    labels = [str(label) for label in model.labels]
    known = [str(label) for label in audit.cells["label"].cat.categories]
    if known != labels:
        differing = sorted({*known} ^ {*labels}) or known
        raise ValueError(
            f"audit is of other labels than this model, such as {differing[0]!r}. {cure}"
        )
    unknown = audit.cells.index[~audit.cells.index.isin(model.adata.obs_names)]
    if len(unknown):
        raise ValueError(
            f"audit is of other cells than those of this model: {len(unknown):,} of "
            f"{len(audit.cells):,} are not in `adata.obs_names`, such as {str(unknown[0])!r}. {cure}"
        )


def _can_audit(model: CellAnnotator) -> bool:
    """Return whether `audit_labels` is a method of the model that does not refuse it."""
    if not isinstance(model, SCTAB):
        return False
    return not model.module.is_imported and find_obstacle(model, "fold") is None


def _held_out(model: CellAnnotator) -> tuple[pd.DataFrame, list[str], dict[str, pd.Series]]:
    """Annotate the cells not seen in training with predictable labels; with their labels, donors and batches."""
    if not model._has_unseen():
        return pd.DataFrame({"label": [], "probability": []}), [], {}
    cells = model._unseen_cells()
    codes = model._codes_of(cells)
    cells, codes = cells.take(codes >= 0), codes[codes >= 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        frame = annotate_selection(
            model, cells, Rates(ERROR_RATE, FALSE_ALARM_RATE, TERM_LEVEL)
        ).columns
    return frame, [str(label) for label in model.labels[codes]], _columns(model, cells)


def _columns(model: CellAnnotator, cells: CellSelection) -> dict[str, pd.Series]:
    obs = cells.adata.obs.iloc[cells.positions]
    return {key: obs[key] for key in _group_keys(model) if key in obs}


def _group_keys(model: CellAnnotator) -> list[str]:
    setup = model.registry["setup_args"]
    keys = (setup.get("donor_key"), setup.get("batch_key"))
    return list(dict.fromkeys(str(key) for key in keys if key is not None))


def _settings(model: CellAnnotator, members: list[Any]) -> dict[str, str]:
    """Describe how a model was trained."""
    first = members[0]
    trained, obs = model._trained_cells(), model.adata.obs
    settings = {
        "Network": first._model_summary_string
        if len(members) == 1
        else f"{len(members)} of {first._model_summary_string}",
        "Labels": f"column {model.registry['setup_args']['labels_key']}",
    }
    held_out = np.zeros(0, np.intp)
    if model._has_held_out():
        held_out = model._held_out_cells().positions
    for key in _group_keys(model):
        if key in obs:
            n_trained, n_held_out = (
                obs[key].iloc[cells].nunique() for cells in (trained.positions, held_out)
            )
            settings[f"Column {key}"] = f"{n_trained:,} in training, {n_held_out:,} held out"
    return settings


def _call(path: str | os.PathLike[str] | None, name: str, audit: LabelAudit | None) -> str:
    """Return the line to type; the arguments of an audit are not known."""
    given = [] if path is None else [json.dumps(os.path.basename(path), ensure_ascii=False)]
    if name != _NAME:
        given.append(f"name={json.dumps(name, ensure_ascii=False)}")
    if audit is not None:
        given.append("audit=audit")
    return f"model.training_report({', '.join(given)})"
