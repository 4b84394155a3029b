"""Models by folder or name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scvi_sctab import models
from scvi_sctab.cli._errors import CommandError, ExitCode, split

if TYPE_CHECKING:
    from scvi_sctab.model import SCTAB, SCTABEnsemble


def find_model(name: str) -> Path:
    """Return the folder of a model.

    Parameters
    ----------
    name
        A folder, or the name of a ready-made model.

    Raises
    ------
    CommandError
        If there is no such model.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return models.path(name)
    except KeyError as error:
        cause, _ = split(str(error.args[0]))
        cure = "Give the folder of a saved model, or a name that `scvi-sctab models list` shows."
        raise CommandError(ExitCode.NO_MODEL, cause, cure) from None


def open_model(name: str, accelerator: str) -> SCTAB | SCTABEnsemble:
    """Load a model.

    Parameters
    ----------
    name
        As of :func:`find_model`.
    accelerator
        Device.

    Raises
    ------
    CommandError
        If there is no such model, it is damaged, of another version, or not trained.
    """
    folder = find_model(name)
    from scvi_sctab.model import load_model

    try:
        model = load_model(folder, accelerator)
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause, cure = split(str(error.args[-1] if error.args else error))
        raise CommandError(ExitCode.NO_MODEL, cause, cure) from error
    if not model.is_trained:
        raise CommandError(
            ExitCode.NO_MODEL, f"The model in {folder} is not trained.", "Train it, and save it."
        )
    return model
