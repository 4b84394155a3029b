"""Commands ``models list``, ``models show`` and ``models path``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from scvi_sctab import models as catalogue
from scvi_sctab.cli import _options as options
from scvi_sctab.cli._console import session
from scvi_sctab.cli._errors import CommandError, ExitCode
from scvi_sctab.cli._models import find_model

models = typer.Typer(help="Ready-made models, and those of your folders.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(help="Name of a model.", show_default=False)]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_COLUMNS = ("name", "title", "species", "n_types", "n_genes", "n_cells")


@models.command("list")
def list_models(as_json: _AsJson = False, debug: options.Debug = False) -> None:
    """List the models by name."""
    with session(debug=debug) as console:
        records = [asdict(record) for record in catalogue.list()]
        if as_json:
            console.result(json.dumps(records, default=str))
            return
        lines = [_COLUMNS, *([str(record[key]) for key in _COLUMNS] for record in records)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            console.result("  ".join(cells).rstrip())


@models.command("show")
def show(name: _Name, as_json: _AsJson = False, debug: options.Debug = False) -> None:
    """Show the card of a model: types, training data, scores, intended use."""
    with session(debug=debug) as console:
        find_model(name)
        try:
            card = catalogue.show(name)
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise CommandError(
                ExitCode.NO_MODEL, str(error.args[0]), "Choose one of `scvi-sctab models list`."
            ) from None
        text = json.dumps(card, ensure_ascii=False) if as_json else catalogue.render_card(card)
        console.result(text.rstrip())


@models.command("path")
def path(name: _Name, debug: options.Debug = False) -> None:
    """Print the folder of a model."""
    with session(debug=debug) as console:
        console.result(str(find_model(name)))
