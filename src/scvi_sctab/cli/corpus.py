"""Command ``corpus``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scvi_sctab.cli import _options as options
from scvi_sctab.cli._console import session
from scvi_sctab.cli._errors import CommandError, ExitCode
from scvi_sctab.cli._inputs import read_text


def corpus(
    files: Annotated[
        list[Path],
        typer.Argument(help=".h5ad files or .zarr folders of raw counts.", show_default=False),
    ],
    labels_key: Annotated[
        str, typer.Option(help="Column of obs with cell types.", show_default=False)
    ],
    out: options.Folder,
    donor_key: Annotated[
        list[str] | None,
        typer.Option(help="Column with donors; several columns are joined.", show_default=False),
    ] = None,
    batch_key: Annotated[
        str | None, typer.Option(help="Column with batches.", show_default=False)
    ] = None,
    obs_column: Annotated[
        list[str] | None, typer.Option(help="Further column to keep.", show_default=False)
    ] = None,
    unlabeled_category: Annotated[
        str, typer.Option(help="Label of cells without one.")
    ] = "unknown",
    genes: Annotated[
        str,
        typer.Option(
            help="'intersection' or 'union' of the genes, or a file with a name per line."
        ),
    ] = "intersection",
    layer: Annotated[
        str | None,
        typer.Option(help="Layer with raw counts; X if not given.", show_default=False),
    ] = None,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 1,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Join files into a shuffled store that is trained from without loading it into memory."""
    with session(as_json, quiet, debug, threads) as console:
        chosen: str | list[str] = genes
        if genes not in ("intersection", "union"):
            cure = "Pass intersection, union, or a file with a name per line as --genes."
            chosen = read_text(Path(genes), cure).split()
        for file in files:
            if not file.exists():
                raise CommandError(
                    ExitCode.REFUSED, f"There is no file {file}.", "Check its name and folder."
                )
        console.note(f"Joining {len(files):,} files ...")
        from scvi_sctab.data.stores import prepare_corpus

        made = prepare_corpus(
            files,
            out,
            labels_key=labels_key,
            unlabeled_category=unlabeled_category,
            donor_key=donor_key or None,
            batch_key=batch_key,
            obs_columns=obs_column or (),
            layer=layer,
            genes=chosen,
            seed=seed,
            overwrite=overwrite,
        )
        console.note(f"{out}: {len(made):,} cells.")
        console.event("done", files=[str(out)])
