"""Command ``convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scvi_sctab.cli import _options as options
from scvi_sctab.cli._console import session
from scvi_sctab.cli._errors import CommandError, ExitCode
from scvi_sctab.cli._inputs import read_text, require_file
from scvi_sctab.cli._outputs import check_folder

_COLUMNS = {"genes": ("feature_id", "feature_name"), "labels": ("label",)}


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A .ckpt file or run folder of scTab, a CellTypist .pkl, or a folder with the "
            "model.pt of a model of ours.",
            show_default=False,
        ),
    ],
    out: options.Folder,
    genes: Annotated[
        Path | None,
        typer.Option(
            help="Genes of an scTab checkpoint in their order: the archive's var.parquet, or a text "
            "file with a name per line.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Labels of an scTab checkpoint in their order: the archive's "
            "categorical_lookup/cell_type.parquet, or a text file with a name per line.",
            show_default=False,
        ),
    ] = None,
    symbols: Annotated[
        bool, typer.Option("--symbols", help="Take gene symbols of var.parquet, not Ensembl ids.")
    ] = False,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle", help="Read a model.pt, which may run any code: only if you trust it."
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Convert a published checkpoint to a model that is loaded without running code."""
    with session(as_json, quiet, debug) as console:
        check_folder(out, overwrite)
        if not checkpoint.exists():
            raise CommandError(
                ExitCode.NO_MODEL, f"There is no file {checkpoint}.", "Check its name and folder."
            )
        console.note(f"Reading {checkpoint} ...")
        model = _load(checkpoint, genes, labels, symbols, allow_pickle)
        model.save(out, overwrite=overwrite)
        console.note(f"{out}: {len(model.gene_names):,} genes, {len(model.labels):,} labels.")
        console.event("done", files=[str(out)])


def _load(
    checkpoint: Path, genes: Path | None, labels: Path | None, symbols: bool, allow_pickle: bool
) -> Any:
    from scvi_sctab import SCTAB

    if (checkpoint / "model.pt").exists():
        return SCTAB.load(checkpoint, adata=False, allow_pickle=allow_pickle)
    if checkpoint.suffix == ".pkl":
        return SCTAB.from_celltypist(checkpoint)
    if genes is None or labels is None:
        raise CommandError(
            ExitCode.USAGE,
            "An scTab checkpoint holds no names of genes and labels.",
            "Pass the archive's var.parquet as --genes and cell_type.parquet as --labels.",
        )
    return SCTAB.from_sctab_checkpoint(
        checkpoint, _read_names(genes, "genes", symbols), _read_names(labels, "labels", False)
    )


def _read_names(path: Path, what: str, symbols: bool) -> list[str]:
    cure = f"Check its name and folder: --{what}."
    if path.suffix != ".parquet":
        text = read_text(path, cure)
        return text.split("\n")[: -1 if text.endswith("\n") else None]
    require_file(path, cure)
    import pandas as pd

    column = _COLUMNS[what][1 if symbols else 0]
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise CommandError(
            ExitCode.REFUSED,
            f"{path} cannot be read: {error}.",
            f"Pass a Parquet file, or a text file with a name per line, as --{what}.",
        ) from error
    if column not in table:
        raise CommandError(
            ExitCode.REFUSED,
            f"{path} has no column {column!r}; it has {list(table)}.",
            f"Pass a text file with a name per line as --{what}.",
        )
    return [str(name) for name in table[column]]
