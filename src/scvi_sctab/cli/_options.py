"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

INPUT, OUTPUT, STATEMENTS, RUN = "Input", "Output", "Statements", "Run"


class Accelerator(StrEnum):
    """Device of a model."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


Query = Annotated[
    Path,
    typer.Argument(
        help="File of raw counts: .h5ad, .h5mu, .zarr, 10x .h5, or a matrix-market folder.",
        show_default=False,
    ),
]
Queries = Annotated[
    list[Path],
    typer.Argument(
        help="Files of raw counts: .h5ad, .h5mu, .zarr, 10x .h5, or matrix-market folders; '-' reads "
        "their names from standard input.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Name of a ready-made model, or folder of a model; ./NAME is always a folder.",
        show_default=False,
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        help="Matrix with raw counts: X, a layer, or raw (raw.X, if a layer is named raw); found if not "
        "given.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
Modality = Annotated[
    str | None,
    typer.Option(
        help="Modality of an .h5mu file; 'rna' or the only one if not given.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
GeneColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of var with names of genes, or 'var_names'; found if not given.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
GeneTable = Annotated[
    Path | None,
    typer.Option(
        help="Table of gene names: a gene per line, its names separated by tabs (aliases, "
        "Ensembl ids, one-to-one orthologues).",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
MinGeneOverlap = Annotated[
    float,
    typer.Option(
        help="Share of the model's genes below which a file is refused.",
        min=0,
        max=1,
        rich_help_panel=INPUT,
    ),
]
Folder = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="Folder of the results; it is created.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Table = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="CSV file of the result; standard output if not given.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace results that exist.", rich_help_panel=OUTPUT),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Cells per minibatch.", min=1, rich_help_panel=RUN, show_default=False),
]
Device = Annotated[Accelerator, typer.Option("--accelerator", help="Device.", rich_help_panel=RUN)]
Seed = Annotated[int, typer.Option(help="Seed of random numbers.", rich_help_panel=RUN)]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Number of threads; all CPUs if not given.",
        min=1,
        rich_help_panel=RUN,
        show_default=False,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Write events to standard output, a JSON object a line.",
        rich_help_panel=RUN,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only warnings and errors.", rich_help_panel=RUN)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=RUN)
]
