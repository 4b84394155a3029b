"""One self-contained HTML page about an annotation or a training, and the same numbers as JSON."""

from scvi_sctab.report._build import Findings, build_report
from scvi_sctab.report._columns import find_annotators, find_batch
from scvi_sctab.report._coordinates import MAX_POINTS, choose_cells, embed
from scvi_sctab.report._multiqc import multiqc_contents
from scvi_sctab.report._points import pack_points
from scvi_sctab.report._render import render_page
from scvi_sctab.report._report import Provenance, Report
from scvi_sctab.report._training_build import TrainingFindings, build_training_report
from scvi_sctab.report._training_report import TrainingReport
from scvi_sctab.report._write import check_page, write_report

__all__ = [
    "MAX_POINTS",
    "Findings",
    "Provenance",
    "Report",
    "TrainingFindings",
    "TrainingReport",
    "build_report",
    "build_training_report",
    "check_page",
    "choose_cells",
    "embed",
    "find_annotators",
    "find_batch",
    "multiqc_contents",
    "pack_points",
    "render_page",
    "write_report",
]
