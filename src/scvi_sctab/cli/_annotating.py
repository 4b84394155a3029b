"""Annotation of one file, for the commands ``annotate`` and ``map``."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvi_sctab._constants import ERROR_RATE, FALSE_ALARM_RATE, MIN_GENE_OVERLAP, TERM_LEVEL
from scvi_sctab.cli._errors import ExitCode
from scvi_sctab.cli._outputs import results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scvi_sctab.cli._console import Console
    from scvi_sctab.cli._layouts import Request
    from scvi_sctab.data.files import Query, StoredCells
    from scvi_sctab.model import SCTAB, AnnotatedQuery, SCTABEnsemble


@dataclass(frozen=True)
class Source:
    """Where counts and genes of a file are, if it is said.

    Parameters
    ----------
    layer, modality, gene_column, gene_table, min_gene_overlap
        Options of the commands.
    """

    layer: str | None = None
    modality: str | None = None
    gene_column: str | None = None
    gene_table: Path | None = None
    min_gene_overlap: float = MIN_GENE_OVERLAP

    def find(self, stored: StoredCells, model: SCTAB | SCTABEnsemble) -> Query:
        """Find counts and genes of a file.

        Parameters
        ----------
        stored
            The open file.
        model
            The model.
        """
        from scvi_sctab.data.files import RefusedInputError, find_query, read_gene_table

        if not len(stored.obs):
            raise RefusedInputError(f"{stored.path} has no cells.", "Choose a file with cells.")
        return find_query(
            stored,
            model.gene_names,
            layer=self.layer,
            own_layer=model.registry["setup_args"].get("layer"),
            gene_column=self.gene_column,
            gene_table=read_gene_table(self.gene_table) if self.gene_table else (),
            min_gene_overlap=self.min_gene_overlap,
        )


@dataclass(frozen=True)
class Statements:
    """Options of what is stated about cells.

    Parameters
    ----------
    error_rate, false_alarm_rate, term_level, unassigned, batch_size
        As of :meth:`scvi_sctab.SCTAB.annotate`.
    votes, clusters
        Whether labels are refined by a vote, and the column with clusters that vote together.
    strict
        Whether a shift changes the exit code.
    """

    error_rate: float = ERROR_RATE
    false_alarm_rate: float = FALSE_ALARM_RATE
    term_level: float = TERM_LEVEL
    unassigned: str | None = None
    batch_size: int | None = None
    votes: bool = False
    clusters: str | None = None
    strict: bool = False

    def annotate(
        self, model: SCTAB | SCTABEnsemble, query: Query, min_gene_overlap: float, logits: bool
    ) -> AnnotatedQuery:
        """Annotate the cells of a file.

        Parameters
        ----------
        model
            The model.
        query
            The cells.
        min_gene_overlap
            Share of the model's genes below which they are refused.
        logits
            Whether logits and probabilities of all labels are needed.
        """
        from scvi_sctab.model import annotate_query

        annotated = annotate_query(
            model,
            query.cells,
            error_rate=self.error_rate,
            false_alarm_rate=self.false_alarm_rate,
            term_level=self.term_level,
            unassigned=self.unassigned,
            min_gene_overlap=min_gene_overlap,
            batch_size=self.batch_size,
            keep_probabilities=logits,
        )
        if not self.votes:
            return annotated
        voted = model.refine(
            query.cells, self.clusters, layer="X", min_gene_overlap=min_gene_overlap
        )
        columns = annotated.columns.assign(
            refined_label=voted["label"], refined_probability=voted["probability"]
        )
        if self.clusters is not None:
            columns["cluster"] = query.cells.obs[self.clusters]
        return replace(annotated, columns=columns)


def write_query(
    console: Console,
    model: SCTAB | SCTABEnsemble,
    stored: StoredCells,
    query: Query,
    source: Source,
    statements: Statements,
    request: Request,
    prefix: str,
    folder: Path,
    overwrite: bool,
) -> list[str]:
    """Annotate the cells of a file and write the results.

    Parameters
    ----------
    console
        Console of the command.
    model
        The model.
    stored, query
        The open file, and what was found in it.
    source, statements, request
        Options of the command.
    prefix, folder, overwrite
        Where to write.

    Returns
    -------
    Paths of the files.
    """
    console.note(f"{stored.path}: {query.describe()}")
    names = request.name_files(prefix)
    if "h5ad" in names:
        from scvi_sctab.data.files import check_writable

        check_writable(stored)
    overlap = source.min_gene_overlap
    annotated = statements.annotate(model, query, overlap, request.needs_probabilities)
    if annotated.difference:
        console.warn(
            f"{stored.path}: these cells differ from those that the model was calibrated on, by "
            f"{annotated.difference}; error rates and false-alarm rates may not hold."
        )
        if statements.strict:
            console.exit_code = console.exit_code or ExitCode.SHIFTED  # a refusal counts more
    files = [str(folder / name) for name in names.values()]
    summary = {
        "query": str(stored.path),
        "model": request.model,
        "model_digest": model.digest,
        "version": version("scvi-sctab"),
        **_summarize(query, annotated),
        "files": files,
    }
    cap = None
    if request.layout == "cap":
        from scvi_sctab.cli._cap import CapAnnotation

        level = statements.term_level
        cap = CapAnnotation.of(model, stored, query, annotated, request, overlap, level)
    with results(folder, overwrite) as aside:
        if cap is None:
            request.write(annotated, names, aside)
        else:
            (aside / names["annotations"]).write_text(json.dumps(cap.to_json(), indent=1) + "\n")
        (aside / names["summary"]).write_text(json.dumps(summary, indent=2) + "\n")
        if request.card is not None:
            _write_report(model, stored, query, overlap, statements, annotated, request.card,
                          aside / names["report"])  # fmt: skip
        if request.multiqc:
            from scvi_sctab.report import multiqc_contents

            # Files of different folders may have the same name; the prefix is that of the sample.
            sample = prefix.rstrip("._-") or stored.path.stem
            contents = multiqc_contents(sample, annotated.columns)
            for what, content in contents.items():
                (aside / names[what]).write_text(json.dumps(content, indent=1) + "\n")
        if "h5ad" in names:
            from scvi_sctab.data.files import write_annotated

            columns = cap.to_obs(stored.obs.index) if cap else request.columns(annotated)
            if request.layout == "plain":
                columns = columns.add_prefix("sctab_")
            entries = cap.to_uns() if cap else None
            write_annotated(stored, columns, aside / names["h5ad"], query.counts, entries)
    counts = summary["labels"]
    shown = ", ".join(f"{label} {n:,}" for label, n in list(counts.items())[:5])
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    console.note(f"{files[0]}: {shown}{more}.")
    if statuses := {name: n for name, n in summary.get("status", {}).items() if n}:
        console.note(
            f"Of these cells {', '.join(f'{n:,} {name}' for name, n in statuses.items())}."
        )
    return files


def _write_report(
    model: SCTAB | SCTABEnsemble,
    stored: StoredCells,
    query: Query,
    min_gene_overlap: float,
    statements: Statements,
    annotated: AnnotatedQuery,
    card: Mapping[str, Any],
    path: Path,
) -> None:
    from scvi_sctab.model import report_query

    report_query(
        model,
        query.cells,
        path,
        error_rate=statements.error_rate,
        false_alarm_rate=statements.false_alarm_rate,
        term_level=statements.term_level,
        name=stored.path.stem,
        card=card,
        call=shlex.join(["scvi-sctab", *sys.argv[1:]]),
        layer="X",
        min_gene_overlap=min_gene_overlap,
        annotated=annotated,
    )


def _summarize(query: Query, annotated: AnnotatedQuery) -> dict[str, Any]:
    frame, genes = annotated.columns, query.genes
    summary: dict[str, Any] = {"n_cells": len(frame), "counts": query.counts}
    if genes is not None:
        summary["genes"] = {
            "source": genes.source,
            "n_found": genes.n_found,
            "n_genes": genes.n_genes,
            "overlap": round(genes.overlap, 4),
            "n_respelt": genes.n_respelt,
            "n_from_table": genes.from_table,
            "duplicated": list(genes.duplicated),
        }
    labels = frame["label"].value_counts()
    summary["labels"] = {str(name): int(n) for name, n in labels.items() if n}
    summary["median_probability"] = round(float(frame["probability"].median()), 4)
    if "novel" in frame:
        status = frame["status"].value_counts(sort=False)
        summary["status"] = {str(name): int(n) for name, n in status.items()}
        summary["share_novel"] = round(float(frame["novel"].mean()), 4)
        several = frame["prediction_set"].astype(str).str.contains(" | ", regex=False)
        summary["share_of_several_labels"] = round(float(several.mean()), 4)
    summary["shifted"] = bool(annotated.difference)
    summary["shift"] = _records(annotated)
    return summary


def _records(annotated: AnnotatedQuery) -> Mapping[str, Any] | None:
    if annotated.shift is None:
        return None
    return json.loads(annotated.shift.to_json(orient="index"))
