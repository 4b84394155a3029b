"""Files that options name, other than those of cells."""

from __future__ import annotations

from pathlib import Path

from scvi_sctab.cli._errors import CommandError, ExitCode


def require_file(path: Path, cure: str) -> None:
    """Refuse a file that is not there.

    Parameters
    ----------
    path
        The file.
    cure
        Sentence on what to do.

    Raises
    ------
    CommandError
        If there is no such file, or it is a folder.
    """
    if not path.is_file():
        cause = (
            f"{path} is a folder, not a file." if path.is_dir() else f"There is no file {path}."
        )
        raise CommandError(ExitCode.REFUSED, cause, cure)


def read_text(path: Path, cure: str) -> str:
    """Read a text file.

    Parameters
    ----------
    path
        The file.
    cure
        Sentence on what to do if there is none.

    Raises
    ------
    CommandError
        If there is no such file, or it cannot be read as text.
    """
    require_file(path, cure)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CommandError(
            ExitCode.REFUSED,
            f"{path} cannot be read: {error}.",
            "Pass a text file with a name per line that you may read.",
        ) from error
