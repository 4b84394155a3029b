"""Plots of the frames of this package: functions that draw on matplotlib axes."""

from scvi_sctab.plotting._annotations import plot_annotations
from scvi_sctab.plotting._benchmark import plot_benchmark, plot_scaling
from scvi_sctab.plotting._colors import label_colors
from scvi_sctab.plotting._composition import plot_composition
from scvi_sctab.plotting._confusion import plot_confusion
from scvi_sctab.plotting._deletion import plot_deletion
from scvi_sctab.plotting._embedding import plot_embedding
from scvi_sctab.plotting._marker_dots import plot_marker_dots
from scvi_sctab.plotting._markers import plot_markers
from scvi_sctab.plotting._reliability import plot_reliability
from scvi_sctab.plotting._sankey import plot_sankey
from scvi_sctab.plotting._shifts import plot_shifts

__all__ = [
    "label_colors",
    "plot_annotations",
    "plot_benchmark",
    "plot_composition",
    "plot_confusion",
    "plot_deletion",
    "plot_embedding",
    "plot_marker_dots",
    "plot_markers",
    "plot_reliability",
    "plot_sankey",
    "plot_scaling",
    "plot_shifts",
]
