"""Command ``map``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.cli import _options as options
from scvi_sctab.cli._annotating import Source, Statements, write_query
from scvi_sctab.cli._console import session
from scvi_sctab.cli._errors import CommandError, ExitCode
from scvi_sctab.cli._layouts import Layout, Request, TableFormat, require_parquet
from scvi_sctab.cli._models import open_model
from scvi_sctab.cli._outputs import check_folder, check_free

if TYPE_CHECKING:
    import pandas as pd


def map_query(
    query: options.Query,
    model: options.Model,
    out: options.Folder,
    batch_key: Annotated[
        str | None,
        typer.Option(
            help="Column of obs with the batches of the query. If not given: the column that the "
            "reference was trained with, if the query has it, else the file is one batch.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Folder to save the model of the query to.", show_default=False),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option("--prefix", "-p", help="First part of the names of files."),
    ] = "",
    table: Annotated[
        TableFormat,
        typer.Option("--format", help="Format of the table.", rich_help_panel=options.OUTPUT),
    ] = TableFormat.csv,
    h5ad: Annotated[
        bool,
        typer.Option(
            "--h5ad", help="Write an annotated .h5ad file, too.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    layer: options.Layer = None,
    modality: options.Modality = None,
    gene_column: options.GeneColumn = None,
    gene_table: options.GeneTable = None,
    min_gene_overlap: options.MinGeneOverlap = MIN_GENE_OVERLAP,
    max_epochs: Annotated[
        int | None, typer.Option(help="Number of epochs.", show_default=False)
    ] = None,
    accelerator: options.Device = options.Accelerator.auto,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Adapt a model to the batches of a query, without labels, then annotate it."""
    with session(as_json, quiet, debug, threads) as console:
        request = Request(Layout.plain, table, "query", False, h5ad)
        if table == TableFormat.parquet:
            require_parquet()
        check_free(out, list(request.name_files(prefix).values()), overwrite)
        if save is not None:
            check_folder(save, overwrite, "--save")
        reference = open_model(console, model, str(accelerator))
        import scvi

        from scvi_sctab.data.files import open_stored

        source = Source(layer, modality, gene_column, gene_table, min_gene_overlap)
        with open_stored(query, modality) as stored:
            found = source.find(stored, reference)
            cells = found.to_memory()
            _name_batches(cells.obs, reference.registry["setup_args"], batch_key, query)
            scvi.settings.seed = seed
            adapted = type(reference).load_query_data(
                cells,
                reference,
                layer="X",
                min_gene_overlap=min_gene_overlap,
                accelerator=str(accelerator),
            )
            console.note(f"Adapting the model to {cells.n_obs:,} cells ...")
            adapted.train(max_epochs, accelerator=str(accelerator), enable_progress_bar=False)
            if save is not None:
                adapted.save(save, overwrite=overwrite)
            found = found.replace(cells)
            stated = Statements()
            files = write_query(
                console, adapted, stored, found, source, stated, request, prefix, out, overwrite
            )
        console.event("done", files=files + ([str(save)] if save else []))


def _name_batches(obs: pd.DataFrame, setup: dict[str, Any], key: str | None, query: Path) -> None:
    """Give the query the column of batches that the reference was set up with."""
    own = setup.get("batch_key")
    if own is None:
        if key is not None:
            raise CommandError(
                ExitCode.USAGE,
                "The model was trained without batches, so that there is none to adapt to.",
                "Train it with --batch-key, or leave out --batch-key here.",
            )
        return
    if key is not None and key not in obs:
        raise CommandError(
            ExitCode.REFUSED,
            f"{query}: obs has no column {key!r}.",
            f"Name the one with batches: {list(obs.columns)}.",
        )
    if key is not None:
        obs[own] = obs[key]
    elif own not in obs:
        obs[own] = query.stem
