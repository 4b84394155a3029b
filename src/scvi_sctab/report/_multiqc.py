"""Custom content for MultiQC: a row of general statistics and a bar of types for a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_PARENT = {
    "parent_id": "scvi_sctab",
    "parent_name": "scvi-sctab",
    "parent_description": "Cell types by scvi-sctab.",
}
# Name, title, description, and colour scale of MultiQC.
_SHARES = (
    ("confident", "Confident", "Share of cells with exactly one label not ruled out", "Blues"),
    ("ambiguous", "Ambiguous", "Share of cells with several labels, or none", "Oranges"),
    ("novel", "Novel", "Share of cells unlike every type of the model", "Reds"),
    ("low_quality", "Low quality", "Share of cells with too few molecules", "Greys"),
)


def multiqc_contents(sample: str, annotation: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Describe the annotation of a sample for MultiQC.

    MultiQC joins the files of several samples.

    Parameters
    ----------
    sample
        Name of the sample.
    annotation
        Data frame of :meth:`scvi_sctab.SCTAB.annotate`.

    Returns
    -------
    Contents by the names of their files, ``"statistics_mqc.json"`` and ``"types_mqc.json"``.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"label": ["B", "B", "T"], "probability": [0.9, 0.8, 1.0]})
    >>> multiqc_contents("s1", frame)["types_mqc.json"]["data"]
    {'s1': {'B': 2, 'T': 1}}
    """
    counts = annotation["label"].astype(str).value_counts()
    row: dict[str, float] = {
        "cells": len(annotation),
        "types": len(counts),
        "probability": round(float(annotation["probability"].mean()), 4),
    }
    columns: list[dict[str, Any]] = [
        {"cells": {"title": "Cells", "description": "Annotated cells", "format": "{:,.0f}"}},
        {"types": {"title": "Types", "description": "Predicted types", "format": "{:,.0f}"}},
        {
            "probability": {
                "title": "Probability",
                "description": "Mean probability of the predicted label",
                "min": 0,
                "max": 1,
                "scale": "Greens",
                "format": "{:,.2f}",
            }
        },
    ]
    if "status" in annotation:
        for name, title, description, scale in _SHARES:
            row[name] = round(100 * float((annotation["status"] == name).mean()), 2)
            limits = {"min": 0, "max": 100, "suffix": "%", "scale": scale, "format": "{:,.1f}"}
            columns.append({name: {"title": title, "description": description, **limits}})
    return {
        "statistics_mqc.json": {
            **_PARENT,
            "id": "scvi_sctab_statistics",
            "plot_type": "generalstats",
            "pconfig": columns,
            "data": {sample: row},
        },
        "types_mqc.json": {
            **_PARENT,
            "id": "scvi_sctab_types",
            "section_name": "Cell types",
            "description": "Cells by predicted type.",
            "plot_type": "bargraph",
            "pconfig": {
                "id": "scvi_sctab_types_plot",
                "title": "scvi-sctab: Cell types",
                "ylab": "Number of cells",
            },
            "data": {sample: {str(name): int(n) for name, n in counts.items()}},
        },
    }
