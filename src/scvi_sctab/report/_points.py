"""Points of the scatter, packed for the page."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab.annotation import STATUS
from scvi_sctab.plotting import label_colors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.report._build import Findings
    from scvi_sctab.report._report import Report

_LAST = np.iinfo(np.uint16).max
# Numbers have 255 levels, and the last code is that of missing values.
_LEVELS = 254
_MISSING = 255
_MISSING_COLOR = "#9aa2ab"
_MAX_NAMED = 200
_STATUS_COLORS = ("#0072b2", "#e69f00", "#d55e00", "#8a929c")


def pack_points(findings: Findings, report: Report) -> dict[str, Any] | None:
    """Pack coordinates, colours and names of the cells that are shown.

    Parameters
    ----------
    findings
        Frames of the report.
    report
        The report, which has the colours of labels.

    Returns
    -------
    Plain values: ``n``; ``points``, x and y in turn as 16-bit numbers; ``names``; and
    ``columns``, each with codes of 8 bits. Arrays are compressed by zlib and in base 64.
    ``None`` if there is no scatter.
    """
    if findings.positions is None or findings.coordinates is None:
        return None
    frame = findings.annotation.iloc[findings.positions]
    labels = findings.predicted.iloc[findings.positions].astype(str)
    colors = {row.label: row.color for row in report.types}
    columns = [
        _categories("Label", labels, colors),
        _numbers("Probability", frame["probability"].to_numpy(float)),
    ]
    if "status" in frame:
        columns += [
            _numbers("Novelty p-value", frame["novelty_p_value"].to_numpy(float), reverse=True),
            _categories(
                "Status",
                frame["status"].astype(str).str.replace("_", " "),
                dict(zip((s.replace("_", " ") for s in STATUS), _STATUS_COLORS, strict=True)),
            ),
        ]
    if "term" in frame:
        columns.append(_categories("Term", frame["term"]))
    for name, values in findings.columns.items():
        columns.append(_categories(str(name), values.iloc[findings.positions]))
    return {
        "n": len(frame),
        "points": _pack(_scale(findings.coordinates).astype("<u2").tobytes()),
        "names": pack_names(frame.index),
        "columns": columns,
    }


def pack_names(names: Iterable[object]) -> str:
    """Pack names of cells, a line each.

    Parameters
    ----------
    names
        Names of the cells.
    """
    return _pack("\n".join(str(name).replace("\n", " ") for name in names).encode())


def _scale(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale coordinates to 16 bits, by the same factor in both directions; y points down."""
    values = np.nan_to_num(np.asarray(coordinates, dtype=float))
    low, high = values.min(axis=0), values.max(axis=0)
    size = max(float((high - low).max()), 1e-12)
    centred = (values - (low + high) / 2) / size * [1, -1]
    return ((centred + 0.5) * _LAST).round().clip(0, _LAST)


def _numbers(name: str, values: NDArray[np.float64], reverse: bool = False) -> dict[str, Any]:
    """Pack numbers in [0, 1]."""
    known = np.isfinite(values)
    codes = np.full(len(values), _MISSING, np.uint8)
    codes[known] = (values[known].clip(0, 1) * _LEVELS).round()
    return {"name": name, "kind": "number", "reverse": reverse, "codes": _pack(codes.tobytes())}


def _categories(
    name: str, values: pd.Series, colors: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Pack categories, the most frequent one first; beyond 200, the others are one."""
    texts = values.astype(object).where(values.notna(), None)
    # A category may be named "None", so missing values stay missing.
    texts = texts.map(lambda value: None if value is None else str(value)).astype(object)
    counts = texts.value_counts()
    order: Sequence[str] = [str(value) for value in counts.index[:_MAX_NAMED]]
    codes = pd.Index(order).get_indexer(texts)
    codes = np.where(codes < 0, len(order), codes)
    if (codes == len(order)).any():
        order = [*order, "other or missing"]
    if colors is None:
        colors = dict(zip(order, label_colors(range(len(order))).values(), strict=True))
    return {
        "name": name,
        "kind": "category",
        "names": list(order),
        "colors": [colors.get(value, _MISSING_COLOR) for value in order],
        "codes": _pack(codes.astype(np.uint8).tobytes()),
    }


def _pack(content: bytes) -> str:
    return b64encode(zlib.compress(content, 9)).decode()
