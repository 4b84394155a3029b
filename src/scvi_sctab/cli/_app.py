"""The program ``scvi-sctab`` and its commands."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from scvi_sctab.cli.annotate import annotate
from scvi_sctab.cli.consensus import consensus
from scvi_sctab.cli.convert import convert
from scvi_sctab.cli.corpus import corpus
from scvi_sctab.cli.evaluate import evaluate
from scvi_sctab.cli.inspect import inspect
from scvi_sctab.cli.map import map_query
from scvi_sctab.cli.markers import markers
from scvi_sctab.cli.models import models
from scvi_sctab.cli.report import report
from scvi_sctab.cli.train import train

_EXIT_CODES = (
    "Exit codes: 0 done, 1 fault of the program, 2 wrong usage, 3 input refused, 4 model missing or "
    "of another version, 5 done, but the cells differ from those of the model (--strict)."
)

app = typer.Typer(
    name="scvi-sctab",
    help="Annotate cell types in single-cell RNA-seq.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(version("scvi-sctab"))
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Annotate cell types in single-cell RNA-seq."""


for _command in (
    annotate,
    map_query,
    train,
    evaluate,
    inspect,
    markers,
    report,
    consensus,
    convert,
    corpus,
):
    app.command(_command.__name__.removesuffix("_query"), epilog=_EXIT_CODES)(_command)
app.add_typer(models, name="models")


def main() -> None:
    """Run the program."""
    app()
