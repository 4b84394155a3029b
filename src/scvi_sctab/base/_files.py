"""Directories that are written beside and then moved, so that no save is half done."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path
from platform import node

from scvi_sctab._constants import JOURNAL_FILE, WEIGHTS_FILE

# Short whatever the name of the target, which may have all the letters that a name may have.
_PREFIX = ".sctab-"
_NOT_WRITTEN = (ENOSPC, EDQUOT, EIO)
_HOURS_UNTIL_ABANDONED = 24
# Folders that this process writes to; another of its threads may save, too.
_in_use: set[str] = set()


def resolve_target(dir_path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Follow links to the directory that is to be saved to.

    Parameters
    ----------
    dir_path
        Directory, or a link to one, which need not exist.
    overwrite
        Whether it may exist.

    Raises
    ------
    ValueError
        If it exists and may not, or is no directory.
    """
    # Files must be written where they will lie: a link may lead to another disk.
    target = Path(os.path.realpath(dir_path))
    if target.exists() and not (overwrite and target.is_dir()):
        raise ValueError(
            f"{dir_path} already exists and was left as it is. Choose another directory, or "
            "pass overwrite=True."
        )
    return target


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Make a folder on the disk of a directory; it is removed at the end.

    It lies within the directory, which may be a mount point or have a parent that is read-only; or
    within the parent, if the directory does not exist. What killed processes left is removed first.

    Parameters
    ----------
    target
        Directory that is to be saved to.

    Yields
    ------
    The folder.

    Raises
    ------
    PermissionError
        If the directory may not be written to.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
    for folder in {target, target.parent}:
        for leftover in find_leftovers(folder):
            if not (leftover / JOURNAL_FILE).exists():  # else an ensemble needs it first
                shutil.rmtree(leftover, ignore_errors=True)
    place = target if target.exists() else target.parent
    folder = place / f"{_PREFIX}{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    _in_use.add(folder.name)
    try:
        try:
            folder.mkdir()
        except PermissionError as error:
            raise PermissionError(
                error.errno, "No permission to write there; choose another directory", str(place)
            ) from error
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _in_use.discard(folder.name)


def find_leftovers(folder: Path) -> list[Path]:
    """List temporary folders whose process was killed.

    Parameters
    ----------
    folder
        Where they may lie; it need not exist.
    """
    try:
        return [path for path in folder.glob(f"{_PREFIX}*") if _is_abandoned(path)]
    except OSError:
        return []  # a parent that may not be listed


def _is_abandoned(path: Path) -> bool:
    machine, _, rest = path.name.removeprefix(_PREFIX).partition("-")
    pid, _, token = rest.partition("-")
    if not (pid.isdecimal() and token):
        return False
    if path.name in _in_use:
        return False
    if machine == _machine() and not _is_running(int(pid)):
        return True
    # Of another machine, or of an earlier process with the number of one that runs.
    try:
        return time.time() - path.stat().st_mtime > _HOURS_UNTIL_ABANDONED * 3600
    except OSError:
        return False


def _machine() -> str:
    """Name the machine, and the container on it, whose processes have numbers of their own."""
    try:
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        namespace = ""
    return f"{re.sub('[^A-Za-z0-9.]', '_', node())[:64]}_{namespace}"


def _is_running(pid: int) -> bool:
    if pid == os.getpid():
        return False  # in an earlier life of the container; this one's are in `_in_use`
    if os.name == "nt":
        return True  # signal 0 would interrupt the process there
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # of another user
    return True


def move_files(folder: Path, target: Path) -> None:
    """Move the files of a folder to where they shall lie, one by one, the weights last.

    Parameters
    ----------
    folder
        Folder of :func:`temporary_folder`, complete.
    target
        Directory that it was made for. If it does not exist, the folder becomes it.
    """
    files = sorted(folder.iterdir(), key=lambda f: (f.name.endswith(WEIGHTS_FILE), f.name))
    for file in files:
        flush(file)
    if not target.exists():
        folder.rename(target)
        return
    for file in files:
        file.replace(target / file.name)


def flush(path: Path) -> None:
    """Wait until a file, or each file of a folder, is on disk: a full one may say so only then.

    Parameters
    ----------
    path
        File or folder.
    """
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                try:
                    os.fsync(opened.fileno())
                except OSError as error:
                    if error.errno in _NOT_WRITTEN:  # others: this disk cannot tell
                        raise
