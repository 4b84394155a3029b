"""Models by folder or name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvi_sctab import models
from scvi_sctab._constants import ENSEMBLE_FILE, PICKLE_FILE, WEIGHTS_FILE
from scvi_sctab.cli._errors import CommandError, ExitCode, split

if TYPE_CHECKING:
    from scvi_sctab.cli._console import Console
    from scvi_sctab.model import SCTAB, SCTABEnsemble


def find_model(name: str) -> Path:
    """Return the folder of a model.

    Parameters
    ----------
    name
        Name of a ready-made model or of one in folders that are listed, else a folder, in the order
        of :func:`scvi_sctab.models.path`. With a separator, as in ``./pbmc``, it is a folder.

    Returns
    -------
    Absolute path of the folder.

    Raises
    ------
    CommandError
        If there is no such model.
    """
    try:
        return models.path(name).absolute()
    except KeyError as error:
        folder = Path(name).absolute()
        if any((folder / file).is_file() for file in (ENSEMBLE_FILE, PICKLE_FILE)):
            return folder
        if folder.is_dir():
            raise CommandError(
                ExitCode.NO_MODEL,
                f"The folder {name} holds no model: it has no {WEIGHTS_FILE}.",
                "Give a folder that `scvi-sctab train` wrote, or a name that `scvi-sctab models "
                "list` shows.",
            ) from None
        cause, _ = split(str(error.args[0]))
        cure = "Give the folder of a saved model, or a name that `scvi-sctab models list` shows."
        raise CommandError(ExitCode.NO_MODEL, cause, cure) from None


def open_model(console: Console, name: str, accelerator: str) -> SCTAB | SCTABEnsemble:
    """Load a model, and say so first: importing what runs it takes seconds.

    Parameters
    ----------
    console
        Console of the command.
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
    console.note(f"Loading the model {name} ...")
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


def read_card(name: str) -> dict[str, Any]:
    """Return the card of a model, or its name alone if it has none.

    Parameters
    ----------
    name
        As of :func:`find_model`.
    """
    try:
        return models.show(name)
    except (KeyError, FileNotFoundError, ValueError):
        return {"name": Path(name).resolve().name}
