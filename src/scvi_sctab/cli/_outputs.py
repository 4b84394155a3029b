"""Results in a folder: written aside, then moved when all are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scvi_sctab.cli._errors import CommandError, ExitCode


def check_free(folder: Path, names: list[str], overwrite: bool) -> None:
    """Refuse a place that cannot be written to, or may not, before any work is done.

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
        If the folder or a parent of it is a file or may not be written to, a name is none of a
        file, or one of the files exists without ``overwrite`` or is a folder.
    """
    _check_parents(folder)
    for name in names:
        if Path(name).name != name:
            raise CommandError(
                ExitCode.USAGE,
                f"{name!r} is no plain name of a file: it names a folder, too.",
                "Leave folders out of --prefix, and name the one of the results by --out.",
            )
    taken = [folder / name for name in names if os.path.lexists(folder / name)]
    if taken and not overwrite:
        raise _taken(taken[0])
    for path in taken:
        if path.exists() and not path.is_file():
            raise _no_file(path)


def check_folder(folder: Path, overwrite: bool, option: str = "--out") -> None:
    """Refuse a folder to save to as a whole, before any work is done.

    Parameters
    ----------
    folder
        Folder of a model, which need not exist.
    overwrite
        Whether it may exist.
    option
        Option that names it.

    Raises
    ------
    CommandError
        If it exists without ``overwrite``, or it or a parent of it is a file or may not be written
        to.
    """
    _check_parents(folder, option)
    if folder.exists() and not overwrite:
        raise CommandError(
            ExitCode.USAGE,
            f"{folder} exists and was left as it is.",
            f"Choose another folder: {option}. Or pass --overwrite.",
        )


def _check_parents(folder: Path, option: str = "--out") -> None:
    """Refuse a folder that cannot be created, as a parent of it is a file or read-only."""
    cure = f"Choose another folder: {option}."
    resolved = Path(os.path.realpath(folder))
    existing = next(path for path in (resolved, *resolved.parents) if os.path.lexists(path))
    if not existing.is_dir():
        shown = folder if existing == resolved else existing
        raise CommandError(ExitCode.USAGE, f"{shown} is a file, not a folder.", cure)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _no_permission(existing, option)


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
        If a file exists without ``overwrite``, a folder has its name, or there is no permission to
        write.
    """
    from scvi_sctab.base import publish_files, temporary_folder

    target = Path(os.path.realpath(folder))
    try:
        with temporary_folder(target) as aside:
            yield aside
            try:
                publish_files(aside, target, overwrite)
            except FileExistsError as error:
                raise _taken(folder / Path(error.filename).name) from None
            except IsADirectoryError as error:
                raise _no_file(folder / Path(error.filename).name) from None
    except PermissionError as error:
        raise _no_permission(error.filename or folder) from error


def _taken(path: Path) -> CommandError:
    return CommandError(
        ExitCode.USAGE,
        f"{path} exists and was left as it is.",
        "Choose another folder or --prefix, or pass --overwrite.",
    )


def _no_file(path: Path) -> CommandError:
    return CommandError(
        ExitCode.USAGE,
        f"{path} is no file, so that none is written over it.",
        "Choose another folder or --prefix, or move it away.",
    )


def _no_permission(path: Path | str, option: str = "--out") -> CommandError:
    return CommandError(
        ExitCode.USAGE,
        f"There is no permission to write to {path}.",
        f"Choose another folder: {option}.",
    )
