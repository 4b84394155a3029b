"""A report from the frames of an annotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab.report._comparison import compare
from scvi_sctab.report._genes import cover_genes
from scvi_sctab.report._ground import describe_ground
from scvi_sctab.report._novel import list_populations, summarize_novel
from scvi_sctab.report._pairs import confusable_pairs
from scvi_sctab.report._report import CellMap, Provenance, Report
from scvi_sctab.report._tree import build_tree
from scvi_sctab.report._types import summarize_types
from scvi_sctab.report._verdict import reach_verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.annotation import Rates
    from scvi_sctab.metrics import Calibration
    from scvi_sctab.ontology import LabelHierarchy


@dataclass(frozen=True, eq=False)
class Findings:
    """Frames and arrays that a report is made of.

    Parameters
    ----------
    title
        Title of the page.
    annotation
        Data frame of :meth:`scvi_sctab.SCTAB.annotate`.
    labels, all_labels
        Predictable labels of the model, and all of them in the order of their codes.
    rates
        Rates of the annotation.
    provenance
        How to reproduce it.
    positions, coordinates, basis
        Cells that are shown, ``(n_shown,)``; their coordinates, ``(n_shown, 2)``; and the name of
        the two dimensions. ``None`` leaves the scatter out.
    n_unplaced
        Cells that have no finite coordinates and are not among ``positions``.
    markers
        Data frame of :meth:`scvi_sctab.SCTAB.get_markers` by label, if there is one.
    novel_markers
        The same of novel cells; groups are named by the label that they are nearest to.
    populations
        A row per population of cells, as of :meth:`scvi_sctab.SCTAB.get_novel_populations`, if they
        were looked for.
    columns
        Columns of ``obs`` to compare with and to colour by, a row per cell.
    batch
        Name of the column with batches, if there is one.
    compared
        Names of the columns to compare with; all but the one with batches if not given.
    gene_names, gene_found, gene_weights
        The model's genes, whether the query has them, ``(n_genes,)``; and the weight of each for
        each label, ``(n_labels, n_genes)``, ``None`` if there is none.
    calibration, shift, difference
        Calibration of the model, the test of shift, and the statistics that differ.
    hierarchy
        Labels in the Cell Ontology, if they were matched.
    n_trained
        Number of the cells that the model was trained on.
    """

    title: str
    annotation: pd.DataFrame
    labels: Sequence[str]
    all_labels: Sequence[str]
    rates: Rates
    provenance: Provenance
    gene_names: NDArray[np.str_]
    gene_found: NDArray[np.bool_]
    gene_weights: NDArray[np.float64] | None = None
    positions: NDArray[np.intp] | None = None
    coordinates: NDArray[np.float64] | None = None
    basis: str = ""
    n_unplaced: int = 0
    markers: pd.DataFrame | None = None
    novel_markers: pd.DataFrame | None = None
    populations: pd.DataFrame | None = None
    columns: Mapping[str, pd.Series] = field(default_factory=dict)
    batch: str | None = None
    compared: Sequence[str] | None = None
    calibration: Calibration | None = None
    shift: pd.DataFrame | None = None
    difference: str = ""
    hierarchy: LabelHierarchy | None = None
    n_trained: int = 0

    @property
    def predicted(self) -> pd.Series:
        """Most probable label of each cell, whether it is assigned or not."""
        frame = self.annotation
        return frame["closest_label"] if "closest_label" in frame else frame["label"]


def build_report(findings: Findings) -> Report:
    """Make a report of frames.

    Parameters
    ----------
    findings
        Frames and arrays.

    Raises
    ------
    ValueError
        If there is no cell.
    """
    frame = findings.annotation
    if frame.empty:
        raise ValueError("There is no cell to report on.")
    frame = frame.assign(label=findings.predicted)
    types = summarize_types(frame, findings.labels, findings.hierarchy, findings.markers)
    found = {row.label for row in types}
    shown = None
    if findings.positions is not None:
        shown = CellMap(findings.basis, len(findings.positions), len(frame), findings.n_unplaced)
    genes = cover_genes(
        findings.gene_names,
        findings.gene_found,
        findings.gene_weights,
        findings.labels,
        [row.label for row in types],
    )
    compared = findings.compared
    if compared is None:
        compared = [name for name in findings.columns if name != findings.batch]
    return Report(
        title=findings.title,
        verdict=reach_verdict(frame, types, findings),
        types=types,
        absent=tuple(str(label) for label in findings.labels if str(label) not in found),
        map=shown,
        pairs=confusable_pairs(frame, findings.labels),
        novel=summarize_novel(frame, findings.novel_markers),
        populations=list_populations(findings.populations),
        genes=genes,
        ground=describe_ground(findings, genes),
        comparisons=tuple(
            compare(name, values, frame["label"], findings.all_labels)
            for name, values in findings.columns.items()
            if name in compared
        ),
        tree=build_tree(findings.hierarchy, frame),
        provenance=findings.provenance,
    )
