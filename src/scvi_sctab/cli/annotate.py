"""Command ``annotate``."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from scvi_sctab._constants import ERROR_RATE, FALSE_ALARM_RATE, MIN_GENE_OVERLAP, TERM_LEVEL
from scvi_sctab.cli import _options as options
from scvi_sctab.cli._annotating import Source, Statements, write_query
from scvi_sctab.cli._console import Console, session
from scvi_sctab.cli._errors import CommandError, ExitCode, explain, split
from scvi_sctab.cli._layouts import Layout, Request, TableFormat, require_parquet
from scvi_sctab.cli._models import find_model, open_model, read_card
from scvi_sctab.cli._outputs import check_free

_LOCAL, _SERIAL = "local", "serial"


def annotate(
    queries: options.Queries,
    model: options.Model,
    out: options.Folder,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            "-p",
            help="First part of the names of files; of several queries each has its own name after it.",
            rich_help_panel=options.OUTPUT,
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        TableFormat,
        typer.Option("--format", help="Format of the table.", rich_help_panel=options.OUTPUT),
    ] = TableFormat.csv,
    columns: Annotated[
        Layout,
        typer.Option(help="Layout of files and columns.", rich_help_panel=options.OUTPUT),
    ] = Layout.plain,
    author: Annotated[
        str,
        typer.Option(
            help="Your first and last name, for --columns cap.",
            rich_help_panel=options.OUTPUT,
            show_default=False,
        ),
    ] = "",
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Write probabilities of all labels, too.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    h5ad: Annotated[
        bool,
        typer.Option(
            "--h5ad", help="Write an annotated .h5ad file, too.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Write a page about the cells, too, which opens in a browser: report.html.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    multiqc: Annotated[
        bool,
        typer.Option(
            "--multiqc",
            help="Write files for MultiQC, too: statistics_mqc.json, types_mqc.json.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    layer: options.Layer = None,
    modality: options.Modality = None,
    gene_column: options.GeneColumn = None,
    gene_table: options.GeneTable = None,
    min_gene_overlap: options.MinGeneOverlap = MIN_GENE_OVERLAP,
    error_rate: Annotated[
        float,
        typer.Option(
            help="Share of cells whose prediction set may miss the true label.",
            rich_help_panel=options.STATEMENTS,
        ),
    ] = ERROR_RATE,
    false_alarm_rate: Annotated[
        float,
        typer.Option(
            help="Share of cells of known types that may be called novel.",
            rich_help_panel=options.STATEMENTS,
        ),
    ] = FALSE_ALARM_RATE,
    term_level: Annotated[
        float,
        typer.Option(
            help="Smallest probability of the Cell Ontology term.",
            rich_help_panel=options.STATEMENTS,
        ),
    ] = TERM_LEVEL,
    unassigned: Annotated[
        str | None,
        typer.Option(
            help="Label of cells that are novel or have no label in their set.",
            rich_help_panel=options.STATEMENTS,
            show_default=False,
        ),
    ] = None,
    majority_voting: Annotated[
        bool,
        typer.Option(
            "--majority-voting",
            help="Add labels refined by a vote of neighbours, or of clusters.",
            rich_help_panel=options.STATEMENTS,
        ),
    ] = False,
    over_clustering: Annotated[
        str | None,
        typer.Option(
            help="Column of obs with clusters that vote together.",
            rich_help_panel=options.STATEMENTS,
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 5 if the cells differ from those of the model.",
            rich_help_panel=options.STATEMENTS,
        ),
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Annotate many files at a time, each to a Parquet table, and continue after an "
            "interruption: 'local' for processes on this machine, 'serial', or the address of a "
            "Dask scheduler.",
            rich_help_panel=options.RUN,
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of processes of --scheduler local.",
            min=1,
            rich_help_panel=options.RUN,
            show_default=False,
        ),
    ] = None,
    batch_size: options.BatchSize = None,
    accelerator: options.Device = options.Accelerator.auto,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Annotate cells: label, probability, prediction set, novelty and Cell Ontology term."""
    with session(as_json, quiet, debug, threads) as console:
        paths = _read_names(queries)
        if over_clustering is not None and not majority_voting:
            raise _does_not_apply("--over-clustering", "without --majority-voting")
        if (columns == Layout.cap) != bool(author):
            raise _about_author(columns)
        if workers is not None and scheduler != _LOCAL:
            raise _does_not_apply("--workers", f"without --scheduler {_LOCAL}")
        if scheduler is not None:
            unused = {
                "--prefix": prefix,
                "--columns": columns != Layout.plain,
                "--format": table == TableFormat.tsv,
                "--probabilities": probabilities,
                "--h5ad": h5ad,
                "--report": report,
                "--multiqc": multiqc,
                "--modality": modality,
                "--gene-column": gene_column,
                "--gene-table": gene_table,
                "--majority-voting": majority_voting,
                "--strict": strict,
            }
            for option, is_given in unused.items():
                if is_given:
                    raise _does_not_apply(option, "with --scheduler")
            statements = {
                "error_rate": error_rate,
                "false_alarm_rate": false_alarm_rate,
                "term_level": term_level,
                "unassigned": unassigned,
                "layer": layer,
                "min_gene_overlap": min_gene_overlap,
            }
            run = {"n_workers": workers, "batch_size": batch_size, "overwrite": overwrite}
            _annotate_many(
                console, paths, model, out, scheduler, str(accelerator), run | statements
            )
            return
        named = _name_model(model)
        request = Request(
            columns,
            table,
            named,
            probabilities,
            h5ad,
            author=author,
            card=read_card(model) if report else None,
            multiqc=multiqc,
        )
        if probabilities or table == TableFormat.parquet or columns == Layout.nf_core:
            require_parquet()
        prefixes = _name_queries(paths, prefix, columns)
        for path in paths:
            check_free(out, list(request.name_files(prefixes[path]).values()), overwrite)
        loaded = open_model(console, model, str(accelerator))
        _check_unassigned(loaded, unassigned)
        source = Source(layer, modality, gene_column, gene_table, min_gene_overlap)
        stated = Statements(
            error_rate,
            false_alarm_rate,
            term_level,
            unassigned,
            batch_size,
            majority_voting,
            over_clustering,
            strict,
        )
        files = []
        for done, path in enumerate(paths):
            console.event("progress", done=done, total=len(paths), input=str(path))
            try:
                files += _annotate_one(
                    console, loaded, path, source, stated, request, prefixes[path], out, overwrite
                )
            except Exception as error:
                if len(paths) == 1 or debug or explain(error).code != ExitCode.REFUSED:
                    raise
                console.exit_code = console.refuse(error, input=str(path))
        console.event("done", files=files)


def _does_not_apply(option: str, when: str) -> CommandError:
    return CommandError(
        ExitCode.USAGE, f"{option} does not apply {when}.", f"Leave out {option}, or see --help."
    )


def _about_author(columns: Layout) -> CommandError:
    if columns != Layout.cap:
        return _does_not_apply("--author", f"without --columns {Layout.cap}")
    return CommandError(
        ExitCode.USAGE,
        f"--columns {Layout.cap} states who annotated the cells.",
        "Pass your name: --author 'Ada Lovelace'.",
    )


def _annotate_one(
    console: Console,
    model: Any,
    path: Path,
    source: Source,
    statements: Statements,
    request: Request,
    prefix: str,
    out: Path,
    overwrite: bool,
) -> list[str]:
    from scvi_sctab.data.files import open_stored

    with open_stored(path, source.modality) as stored:
        query = source.find(stored, model)
        return write_query(
            console, model, stored, query, source, statements, request, prefix, out, overwrite
        )


def _read_names(queries: list[Path]) -> list[Path]:
    """Read names from standard input where they are asked for."""
    if queries != [Path("-")]:
        return queries
    return [Path(line.strip()) for line in sys.stdin if line.strip()]


def _name_model(model: str) -> str:
    folder = find_model(model)
    return model if model == folder.name else folder.resolve().name


def _check_unassigned(model: Any, unassigned: str | None) -> None:
    if unassigned is not None and model.calibration is None:
        raise CommandError(
            ExitCode.USAGE,
            "--unassigned is for a calibrated model, and this one is not calibrated.",
            "Leave out --unassigned; or calibrate the model in Python, `model.calibrate(adata)` with "
            "labelled cells that it was not trained on, and save it.",
        )


def _name_queries(paths: list[Path], prefix: str | None, layout: Layout) -> dict[Path, str]:
    """Return the prefix of the files of each query."""
    if not paths:
        raise CommandError(ExitCode.USAGE, "There is no file to annotate.", "Name one or more.")
    stems = {path: path.resolve().stem for path in paths}
    shared = [stem for stem, n in Counter(stems.values()).items() if n > 1]
    if shared or len(stems) < len(paths):
        raise CommandError(
            ExitCode.USAGE,
            f"Several files are named {(shared or [str(paths[0])])[0]!r}, and their results would "
            "be as well.",
            "Annotate them one by one, each with a --prefix.",
        )
    is_nf_core = layout == Layout.nf_core
    if len(paths) == 1:
        return {paths[0]: prefix or (stems[paths[0]] if is_nf_core else "")}
    return {
        path: f"{prefix or ''}{stem}{'' if is_nf_core else '.'}" for path, stem in stems.items()
    }


def _annotate_many(
    console: Console,
    paths: list[Path],
    model: str,
    out: Path,
    scheduler: str,
    accelerator: str,
    arguments: dict[str, Any],
) -> None:
    """Annotate by :func:`scvi_sctab.annotate_files`."""
    check_free(out, [], overwrite=True)
    loaded = open_model(console, model, accelerator)
    _check_unassigned(loaded, arguments["unassigned"])
    from scvi_sctab import annotate_files

    try:
        outcomes = annotate_files(
            paths,
            loaded,
            out,
            scheduler=None if scheduler == _LOCAL else scheduler,
            accelerator=accelerator,
            progress=False if console.quiet or console.as_json else None,
            **arguments,
        )
    except OSError as error:
        is_connection = isinstance(error, ConnectionError | TimeoutError) or error.errno is None
        if scheduler in (_LOCAL, _SERIAL) or not is_connection:
            raise  # of a disk
        raise CommandError(
            ExitCode.USAGE,
            split(str(error))[0],
            "Pass the address that `dask scheduler` prints, such as tcp://192.168.0.10:8786, and see "
            "that this machine reaches it; or --scheduler local, for processes on this machine.",
        ) from error
    for row in outcomes.itertuples():
        if row.status == "failed":
            console.exit_code = console.refuse(ValueError(row.error), input=row.path)
            continue
        console.note(f"{row.path}: {row.found}")
        if row.warnings:
            console.warn(f"{row.path}: {row.warnings}")
        console.note(f"{row.output}: {row.status}, {row.n_cells:,} cells.")
    done = outcomes.loc[outcomes["status"] != "failed", "output"]
    console.event("done", files=list(done))
