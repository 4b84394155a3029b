"""Commands ``models list``, ``models show`` and ``models path``."""

from __future__ import annotations

from typing import Annotated

import typer

from scvi_sctab.cli import _options as options
from scvi_sctab.cli._console import session
from scvi_sctab.cli._models import catalogue, find_model

models = typer.Typer(help="Ready-made models, and those of your folders.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(help="Name of a model.", show_default=False)]


@models.command("list")
def list_models(as_json: options.AsJson = False, debug: options.Debug = False) -> None:
    """List the models by name."""
    with session(as_json, debug=debug) as console:
        console.result(str(catalogue().list()))


@models.command("show")
def show(name: _Name, debug: options.Debug = False) -> None:
    """Show the card of a model: types, training data, scores, intended use."""
    with session(debug=debug) as console:
        console.result((find_model(name) / "README.md").read_text())


@models.command("path")
def path(name: _Name, debug: options.Debug = False) -> None:
    """Print the folder of a model."""
    with session(debug=debug) as console:
        console.result(str(find_model(name)))
