"""The logger of the package, and where its lines and progress bars go."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Final

# A child of the host's logger, so that `scvi.settings.verbosity` governs it.
logger: Final = logging.getLogger("scvi.sctab")

_LIGHTNING: Final = "lightning.pytorch.utilities.rank_zero"
# Of the libraries below, known, and nothing that a user could act on.
_NOISE: Final = (
    r"Found \d+ module\(s\) in eval mode",  # frozen encoders and queries mean to be
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The number of training batches",
    r"The '\w+dataloader' does not have many workers",
)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Write to what is standard error at the time, as tests and notebooks replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not record.name.startswith(logger.name)


def _set_up() -> None:
    """Print our lines to standard error, and keep them out of the host's, which are on stdout."""
    if logger.handlers:
        return
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    host = logger.parent
    for other in host.handlers if host is not None else ():
        other.addFilter(_is_not_ours)


def shows_progress() -> bool:
    """Whether somebody watches: a terminal or a notebook, not a file or a pipe."""
    stream = sys.stderr
    if stream is not None and stream.isatty():
        return True
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


@contextmanager
def quiet_trainer() -> Iterator[None]:
    """Keep the trainer's advertisements and known deprecations from the user."""
    log = logging.getLogger(_LIGHTNING)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        # The host prints to stdout that a training has failed, before it raises.
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        log.setLevel(level)


_set_up()
