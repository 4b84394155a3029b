"""Command line: one command per file, which imports what it needs when it runs."""

from scvi_sctab.cli._app import app, main

__all__ = ["app", "main"]
