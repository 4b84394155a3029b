"""Logger of the package, on standard error, and silencing of the trainer's messages."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Final

from rich.logging import RichHandler

# A child of scvi-tools' logger, so that `scvi.settings.verbosity` applies to it.
logger: Final = logging.getLogger("scvi.sctab")

_is_hidden: ContextVar[bool] = ContextVar("_is_hidden", default=False)

_LIGHTNING: Final = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.distributed",
    "lightning.fabric.utilities.rank_zero",
)
# Warnings of other libraries that a user cannot act on.
_NOISE: Final = (
    r"Found \d+ module\(s\) in eval mode",  # intended for frozen encoders and query models
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The number of training batches",
    r"The '\w+dataloader' does not have many workers",
)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Handler that looks up ``sys.stderr`` at each record, as tests and notebooks replace it."""

    def handle(self, record: logging.LogRecord) -> bool:
        # The handler of scvi-tools, which may be imported later, comes after this one.
        _keep_out_of_host()
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not record.name.startswith(logger.name)


def is_first_process() -> bool:
    """Return whether this is not a further process of a training on several devices."""
    # Set by Lightning and torchrun.
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))


def _is_worth_repeating(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or is_first_process()


def _set_up() -> None:
    """Log to standard error."""
    if logger.handlers:
        return
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    handler.addFilter(_is_worth_repeating)
    logger.addHandler(handler)


def _keep_out_of_host() -> None:
    """Keep our records out of the handler of scvi-tools, which writes to standard output."""
    host = logger.parent
    for other in host.handlers if host is not None else ():
        if isinstance(other, RichHandler):  # a handler of the user takes our records, too
            other.addFilter(_is_not_ours)


@contextmanager
def hide_progress() -> Iterator[None]:
    """Show no progress bar in the block, as in a worker that shares the terminal with others."""
    token = _is_hidden.set(True)
    try:
        yield
    finally:
        _is_hidden.reset(token)


def shows_progress() -> bool:
    """Return whether standard error is a terminal or a notebook, not a file or a pipe."""
    if _is_hidden.get():
        return False
    stream = sys.stderr
    if stream is not None and stream.isatty():
        return True
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


@contextmanager
def quiet_trainer() -> Iterator[None]:
    """Hide the trainer's advertisements and warnings that a user cannot act on."""
    levels = {log: log.level for log in map(logging.getLogger, _LIGHTNING)}
    for log in levels:
        log.setLevel(logging.WARNING)
    try:
        # When training fails, scvi-tools prints to standard output before it raises.
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for log, level in levels.items():
            log.setLevel(level)


_set_up()
