"""Command ``report``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.cli import _options as options
from scvi_sctab.cli._annotating import Source
from scvi_sctab.cli._console import session
from scvi_sctab.cli._errors import CommandError, ExitCode
from scvi_sctab.cli._models import open_model, read_card
from scvi_sctab.cli._outputs import check_free, results

_NUMBERS = ".json"


def report(
    query: options.Query,
    model: options.Model,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Page to write, such as report.html; its numbers are written beside it.",
            rich_help_panel=options.OUTPUT,
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="Title of the page; the name of the file if not given.",
            rich_help_panel=options.OUTPUT,
            show_default=False,
        ),
    ] = None,
    basis: Annotated[
        str | None,
        typer.Option(
            help="Key of obsm with the coordinates of the map, such as X_umap; a layout of the latent "
            "space if not given.",
            rich_help_panel=options.INPUT,
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of obs with clusters or other labels to compare with, once for each; found "
            "if not given.",
            rich_help_panel=options.INPUT,
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    layer: options.Layer = None,
    modality: options.Modality = None,
    gene_column: options.GeneColumn = None,
    gene_table: options.GeneTable = None,
    min_gene_overlap: options.MinGeneOverlap = MIN_GENE_OVERLAP,
    accelerator: options.Device = options.Accelerator.auto,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a page about the cells of a file: types, novelty, genes, and what they rest on."""
    with session(as_json, quiet, debug, threads) as console:
        if out.suffix.lower() not in (".html", ".htm"):
            raise CommandError(
                ExitCode.USAGE,
                f"{out} is no name of a page.",
                "End it in .html, as in -o report.html.",
            )
        check_free(out.parent, [out.name, out.with_suffix(_NUMBERS).name], overwrite)
        loaded = open_model(console, model, str(accelerator))
        from scvi_sctab.data.files import open_stored
        from scvi_sctab.model import report_query

        source = Source(layer, modality, gene_column, gene_table, min_gene_overlap)
        with open_stored(query, modality) as stored:
            found = source.find(stored, loaded)
            console.note(f"{query}: {found.describe()}")
            if basis is not None:
                found.cells.obsm[basis] = stored.read_coordinates(basis)
            with results(out.parent, overwrite) as aside:
                written = report_query(
                    loaded,
                    found.cells,
                    aside / out.name,
                    name=name or stored.path.stem,
                    basis=basis,
                    compare=compare,
                    card=read_card(model),
                    call=shlex.join(["scvi-sctab", *sys.argv[1:]]),
                    layer="X",
                    min_gene_overlap=min_gene_overlap,
                )
        for sentence in written.verdict.sentences:
            console.note(sentence)
        console.note(f"{out}: open it in a browser.")
        console.event("done", files=[str(out), str(out.with_suffix(_NUMBERS))])
