"""Command ``evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.cli import _options as options
from scvi_sctab.cli._annotating import Source
from scvi_sctab.cli._console import session
from scvi_sctab.cli._models import open_model
from scvi_sctab.cli._tables import check_table, write_table


def evaluate(
    query: options.Query,
    model: options.Model,
    labels_key: Annotated[
        str, typer.Option(help="Column of obs with the true labels.", show_default=False)
    ],
    out: options.Table = None,
    overwrite: options.Overwrite = False,
    layer: options.Layer = None,
    modality: options.Modality = None,
    gene_column: options.GeneColumn = None,
    gene_table: options.GeneTable = None,
    min_gene_overlap: options.MinGeneOverlap = MIN_GENE_OVERLAP,
    batch_size: options.BatchSize = None,
    accelerator: options.Device = options.Accelerator.auto,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Compare predictions with labels: precision, recall and F1 of each type."""
    with session(as_json, quiet, debug, threads) as console:
        check_table(out, overwrite)
        loaded = open_model(console, model, str(accelerator))
        from scvi_sctab.data.files import open_stored

        source = Source(layer, modality, gene_column, gene_table, min_gene_overlap)
        with open_stored(query, modality) as stored:
            found = source.find(stored, loaded)
            console.note(f"{query}: {found.describe()}")
            scores = loaded.evaluate(
                found.cells,
                labels_key,
                batch_size=batch_size,
                layer="X",
                min_gene_overlap=min_gene_overlap,
            )
        write_table(console, scores.rename_axis("label"), out, overwrite, index=True)
