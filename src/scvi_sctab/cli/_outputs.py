"""Results in a folder: written aside, then moved, all or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scvi_sctab.cli._errors import CommandError, ExitCode


def check_free(folder: Path, names: list[str], overwrite: bool) -> None:
    """Refuse to overwrite before any work is done.

    Parameters
    ----------
    folder
        Folder of the results, which need not exist.
    names
        Names of the files to write.
    overwrite
        Whether they may exist.

    Raises
    ------
    CommandError
        If the folder is a file, or one of the files exists without ``overwrite``.
    """
    if folder.exists() and not folder.is_dir():
        raise CommandError(
            ExitCode.USAGE, f"{folder} is a file, not a folder.", "Choose another folder: --out."
        )
    taken = [name for name in names if (folder / name).exists()]
    if taken and not overwrite:
        raise _taken(folder / taken[0])


@contextmanager
def results(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Write files to a temporary folder, and move them when all are complete.

    Parameters
    ----------
    folder
        Folder of the results; it is created.
    overwrite
        Whether files of the same names are replaced.

    Yields
    ------
    The temporary folder.

    Raises
    ------
    CommandError
        If a file exists without ``overwrite``, or there is no permission to write.
    """
    from scvi_sctab.base import publish_files, temporary_folder

    target = Path(os.path.realpath(folder))
    try:
        with temporary_folder(target) as aside:
            yield aside
            publish_files(aside, target, overwrite)
    except FileExistsError as error:
        name = str(error.strerror).removesuffix(" is there already")
        raise _taken(folder / name) from None
    except PermissionError as error:
        raise CommandError(
            ExitCode.USAGE,
            f"There is no permission to write to {error.filename or folder}.",
            "Choose another folder: --out.",
        ) from error


def _taken(path: Path) -> CommandError:
    return CommandError(
        ExitCode.USAGE,
        f"{path} exists and was left as it is.",
        "Choose another folder or --prefix, or pass --overwrite.",
    )
