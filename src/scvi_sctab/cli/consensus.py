"""Command ``consensus``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scvi_sctab.cli import _options as options
from scvi_sctab.cli._console import session
from scvi_sctab.cli._errors import CommandError, ExitCode
from scvi_sctab.cli._tables import check_table, write_table
from scvi_sctab.cli._terms import read_terms

if TYPE_CHECKING:
    import pandas as pd

_SUFFIXES = (".h5ad", ".h5mu", ".zarr")


def consensus(
    annotations: Annotated[
        list[str],
        typer.Argument(
            help="Annotations of the same cells, each FILE or FILE:COLUMN: annotations.csv, "
            "CellTypist's predicted_labels.csv, Cell Ranger's cell_types.csv, or a column of obs "
            "in an .h5ad file.",
            show_default=False,
        ),
    ],
    out: options.Table = None,
    terms: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns label and term_id, for labels that are not found.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find what several annotators agree on: the lowest common ancestor in the Cell Ontology."""
    with session(as_json, quiet, debug) as console:
        check_table(out, overwrite)
        if len(annotations) < 2:
            raise CommandError(
                ExitCode.USAGE, "One annotation has nobody to agree with.", "Name two or more."
            )
        import pandas as pd

        from scvi_sctab import ontology

        columns = {name: _read(name) for name in annotations}
        labels = pd.DataFrame(columns)
        n_shared = len(pd.concat(columns.values(), axis=1, join="inner"))
        if not n_shared:
            raise CommandError(
                ExitCode.REFUSED,
                "The annotations have no cell in common.",
                "Barcodes have to be the same in all of them.",
            )
        if n_shared < len(labels):
            console.warn(f"Only {n_shared:,} of {len(labels):,} cells are in all annotations.")
        table = None if terms is None else read_terms(terms)
        agreed = ontology.consensus(labels, table=table).rename_axis("barcode")
        write_table(console, agreed, out, overwrite, index=True)


def _read(name: str) -> pd.Series:
    """Read the labels of an annotator by the name of cells."""
    path, column = Path(name), None
    if not path.exists() and ":" in name:
        file, _, column = name.rpartition(":")
        path = Path(file)
    if not path.exists():
        raise CommandError(ExitCode.REFUSED, f"There is no file {path}.", "Check its name.")
    if path.suffix not in _SUFFIXES:
        from scvi_sctab.ontology import read_labels

        return read_labels(path, column)
    from scvi_sctab.data.files import open_stored

    with open_stored(path) as stored:
        if column not in stored.obs:
            raise CommandError(
                ExitCode.REFUSED,
                f"{path}: name the column of obs with labels.",
                f"Write {path}:COLUMN, with one of {list(stored.obs)}.",
            )
        return stored.obs[column]
