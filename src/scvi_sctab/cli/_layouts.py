"""Names and layouts of the files of an annotation, those that other programs expect included."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from scvi_sctab.model import AnnotatedQuery

TOOL = "scvi-sctab"


class Layout(StrEnum):
    """Layout of the results."""

    plain = "plain"
    celltypist = "celltypist"
    nf_core = "nf-core"
    cap = "cap"


class TableFormat(StrEnum):
    """Format of the table of annotations."""

    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"


@dataclass(frozen=True)
class Request:
    """Files that are asked for.

    Parameters
    ----------
    layout, table
        Layout, and format of the table of the plain layout.
    model
        Name of the model, for columns.
    probabilities
        Whether to write probabilities in the plain layout.
    h5ad
        Whether to write an annotated ``.h5ad`` file.
    author
        Name of the author, for the layout of the Cell Annotation Platform.
    card
        Card of the model, if a report is to be written.
    multiqc
        Whether to write files for MultiQC.
    """

    layout: Layout
    table: TableFormat
    model: str
    probabilities: bool
    h5ad: bool
    author: str = ""
    card: Mapping[str, Any] | None = None
    multiqc: bool = False

    def name_files(self, prefix: str) -> dict[str, str]:
        """Return the names of the files by what they hold.

        Parameters
        ----------
        prefix
            First part of the names.
        """
        names = {
            Layout.plain: {"annotations": f"annotations.{self.table}"},
            Layout.celltypist: {
                "annotations": "predicted_labels.csv",
                "logits": "decision_matrix.csv",
                "probabilities": "probability_matrix.csv",
            },
            Layout.nf_core: {"annotations": ".parquet", "manifest": "_annotation_columns.csv"},
            Layout.cap: {"annotations": "cap.json"},
        }[self.layout]
        if self.layout == Layout.plain and self.probabilities:
            names["probabilities"] = "probabilities.parquet"
        is_nf_core = self.layout == Layout.nf_core
        names["summary"] = "_summary.json" if is_nf_core else "summary.json"
        if self.h5ad:
            names["h5ad"] = ".h5ad" if is_nf_core else "annotated.h5ad"
        if self.card is not None:
            names["report"] = "_report.html" if is_nf_core else "report.html"
            names["report_numbers"] = "_report.json" if is_nf_core else "report.json"
        if self.multiqc:
            names |= {
                f"{what}_mqc.json": f"{'_' * is_nf_core}{what}_mqc.json"
                for what in ("statistics", "types")
            }
        return {what: f"{prefix}{name}" for what, name in names.items()}

    @property
    def needs_probabilities(self) -> bool:
        """Whether a file needs logits or probabilities of all labels."""
        return self.layout == Layout.celltypist or self.probabilities

    def columns(self, annotated: AnnotatedQuery) -> pd.DataFrame:
        """Return the columns of the annotation, named as the layout does.

        Parameters
        ----------
        annotated
            The annotation; ``refined_label`` is there after a vote, and ``cluster`` if it was one
            within clusters.
        """
        frame = annotated.columns
        if self.layout == Layout.celltypist:
            names = {
                "label": "predicted_labels",
                "cluster": "over_clustering",
                "refined_label": "majority_voting",
            }
            return frame[[name for name in names if name in frame]].rename(columns=names)
        if self.layout == Layout.nf_core:
            label = f"annotation:{TOOL}:{self.model}:per_cell"
            frame = frame[["label", "probability"]]
            return frame.set_axis([label, f"{label}:confidence"], axis=1)
        return frame.drop(columns="cluster", errors="ignore")

    def write(self, annotated: AnnotatedQuery, names: dict[str, str], folder: Path) -> None:
        """Write all tables but the summary, of every layout but ``cap``.

        Parameters
        ----------
        annotated
            The annotation.
        names
            Names of the files, see :meth:`name_files`.
        folder
            Folder to write to.
        """
        columns = self.columns(annotated)
        path = folder / names["annotations"]
        if self.layout == Layout.celltypist:
            columns.to_csv(path)
            for what in ("logits", "probabilities"):
                getattr(annotated, what).to_csv(folder / names[what])
            return
        if self.layout == Layout.nf_core:
            write_parquet(columns, path)
            rows = [f"{name},{str(not name.endswith(':confidence')).lower()}" for name in columns]
            manifest = "\n".join(["obs_column,aggregatable", *rows, ""])
            (folder / names["manifest"]).write_text(manifest)
            return
        columns = columns.rename_axis("barcode")
        if self.table == TableFormat.parquet:
            write_parquet(columns, path)
        else:
            columns.to_csv(path, sep="\t" if self.table == TableFormat.tsv else ",")
        if annotated.probabilities is not None:
            probabilities = annotated.probabilities.rename_axis("barcode")
            write_parquet(probabilities, folder / names["probabilities"])


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a Parquet file with names of rows.

    Parameters
    ----------
    frame
        Columns.
    path
        The file.
    """
    frame.to_parquet(path, index=True)


def require_parquet() -> None:
    """Import what Parquet files need, before any work is done."""
    from scvi_sctab._optional import import_optional

    import_optional("pyarrow", "files", "A Parquet file")
