"""Messages of a command on standard error, results and events on standard output."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Any

import typer

from scvi_sctab.cli._environment import prepare
from scvi_sctab.cli._errors import ExitCode, explain


class Console:
    """Messages, results and events.

    Parameters
    ----------
    as_json
        Whether events are written.
    quiet
        Whether notes are left out.
    """

    def __init__(self, as_json: bool, quiet: bool):
        self.as_json, self.quiet = as_json, quiet
        self._results = sys.stdout
        # `None` lets click look whether it is a terminal.
        self._color = False if os.environ.get("NO_COLOR") else None
        self.exit_code = ExitCode.DONE

    def note(self, text: str) -> None:
        """Tell what was found or done."""
        self.event("note", text=text)
        if not self.quiet:
            self._say(text)

    def warn(self, text: str) -> None:
        """Tell what needs attention."""
        text = " ".join(text.split())
        self.event("warning", text=text)
        self._say(f"{typer.style('warning:', fg='yellow')} {text}")

    def refuse(self, error: Exception, **where: Any) -> ExitCode:
        """Tell cause and cure of an error, and return its exit code."""
        code, cause, cure = explain(error)
        self.event("error", code=int(code), cause=cause, cure=cure, **where)
        self._say(f"{typer.style('error:', fg='red')} {cause}")
        self._say(f"{typer.style('cure:', fg='green')} {cure}")
        return code

    def event(self, name: str, **fields: Any) -> None:
        """Write an event, if they are asked for."""
        if self.as_json:
            self.result(json.dumps({"event": name, **fields}, default=str))

    def result(self, text: str) -> None:
        """Write a line of the result."""
        print(text, file=self._results, flush=True)

    def _say(self, text: str) -> None:
        typer.echo(text, err=True, color=self._color)


@contextmanager
def session(
    as_json: bool = False, quiet: bool = False, debug: bool = False, threads: int | None = None
) -> Iterator[Console]:
    """Run the body of a command: errors become messages and exit codes, warnings messages.

    Parameters
    ----------
    as_json, quiet
        As of :class:`Console`.
    debug
        Whether an error is raised as it is.
    threads
        Number of threads.

    Yields
    ------
    The console, whose ``exit_code`` is that of the command.
    """
    prepare(threads)
    console = Console(as_json, quiet)
    with ExitStack() as stack:
        # What libraries print is no result.
        stack.enter_context(redirect_stdout(sys.stderr))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = lambda message, category, *_: (
            console.warn(str(message)) if category is UserWarning else None
        )
        if quiet or as_json:
            _hide_progress(stack, quiet)
        try:
            yield console
        except Exception as error:
            if debug or isinstance(error, typer.Exit):
                raise
            if type(error).__module__.split(".")[0] in ("click", "typer"):
                raise  # wrong usage, which click explains
            console.exit_code = console.refuse(error)
    if console.exit_code:
        raise typer.Exit(console.exit_code)


def _hide_progress(stack: ExitStack, quiet: bool) -> None:
    import logging

    from scvi_sctab._logging import hide_progress, logger

    stack.enter_context(hide_progress())
    if quiet:
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.WARNING)
