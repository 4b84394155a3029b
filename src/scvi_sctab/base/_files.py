"""Saving to a temporary folder that is then moved, so that no save is incomplete."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, EEXIST, EFBIG, EIO, EISDIR, ENOSPC, ENOTEMPTY
from pathlib import Path
from platform import node

from scvi_sctab._constants import JOURNAL_FILE, WEIGHTS_FILE

# Independent of the name of the target, which may have the greatest length of a name already.
_PREFIX = ".sctab-"
_NOT_WRITTEN = (ENOSPC, EDQUOT, EIO)
_NO_ROOM = (ENOSPC, EDQUOT, EFBIG)
_BYTES_OF_ROOM = 2**20
_HOURS_UNTIL_ABANDONED = 24
# Folders that threads of this process write to.
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
        If it exists without ``overwrite``, or is not a directory.
    """
    # Files are written on the disk of the target, to which a link may lead.
    target = Path(os.path.realpath(dir_path))
    if target.exists() and not (overwrite and target.is_dir()):
        raise ValueError(
            f"{dir_path} already exists and was left as it is. Choose another directory, or "
            "pass overwrite=True."
        )
    return target


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Create a folder on the disk of a directory; it is removed at the end.

    It is created in the directory, which may be a mount point or have a read-only parent, or in
    the parent if the directory does not exist. Folders of killed processes are removed first.

    Parameters
    ----------
    target
        Directory to save to.

    Yields
    ------
    The folder.

    Raises
    ------
    PermissionError
        If there is no permission to write to the directory.
    OSError
        In place of any error in the block, if the disk is full: what libraries raise then does not
        say so.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
    for folder in {target, target.parent}:
        remove_leftovers(folder)
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
        try:
            yield folder
        except Exception as error:
            if _has_room(folder):
                raise
            raise OSError(
                ENOSPC,
                "The disk is full. Nothing was changed; free some space, or choose another directory",
                str(place),
            ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _in_use.discard(folder.name)


def _has_room(folder: Path) -> bool:
    """Try to write a little; quotas and limits of file sizes do not show in the free space."""
    largest = max((file.stat().st_size for file in folder.rglob("*") if file.is_file()), default=0)
    try:
        with (folder / "room").open("wb") as file:
            file.write(bytes(_BYTES_OF_ROOM))
            file.flush()
            os.fsync(file.fileno())
            file.truncate(largest + _BYTES_OF_ROOM)  # takes no room, but meets a limit of size
    except OSError as error:
        return error.errno not in _NO_ROOM
    return True


def find_leftovers(folder: Path) -> list[Path]:
    """List temporary folders whose process was killed.

    Parameters
    ----------
    folder
        Folder to search; it need not exist.
    """
    try:
        return [path for path in folder.glob(f"{_PREFIX}*") if _is_abandoned(path)]
    except OSError:
        return []  # no permission to list the folder


def remove_leftovers(folder: Path) -> None:
    """Remove temporary folders whose process was killed.

    Parameters
    ----------
    folder
        Folder to search; it need not exist.
    """
    for leftover in find_leftovers(folder):
        if not (leftover / JOURNAL_FILE).exists():  # an ensemble recovers from its journal
            shutil.rmtree(leftover, ignore_errors=True)


def _is_abandoned(path: Path) -> bool:
    machine, _, rest = path.name.removeprefix(_PREFIX).partition("-")
    pid, _, token = rest.partition("-")
    if not (pid.isdecimal() and token):
        return False
    if path.name in _in_use:
        return False
    if machine == _machine() and not _is_running(int(pid)):
        return True
    # Of another machine, or of an earlier process whose id a running one has.
    try:
        return time.time() - path.stat().st_mtime > _HOURS_UNTIL_ABANDONED * 3600
    except OSError:
        return False


def _machine() -> str:
    """Name the machine and its container, within which process ids are unique."""
    try:
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        namespace = ""
    return f"{re.sub('[^A-Za-z0-9.]', '_', node())[:64]}_{namespace}"


def _is_running(pid: int) -> bool:
    if pid == os.getpid():
        return False  # of an earlier process with this id; folders of this one are in `_in_use`
    if os.name == "nt":
        return True  # on Windows, signal 0 would interrupt the process
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # the process of another user runs
    return True


def move_files(folder: Path, target: Path) -> None:
    """Move the files of a folder to their directory, one by one, the weights last.

    Parameters
    ----------
    folder
        Folder of :func:`temporary_folder`, complete.
    target
        Directory of the files. If it does not exist, the folder is renamed to it.

    Raises
    ------
    FileExistsError
        If another process has saved there in the meantime, and the directory did not exist before.
    """
    files = sorted(folder.iterdir(), key=lambda f: (f.name.endswith(WEIGHTS_FILE), f.name))
    for file in files:
        flush(file)
    if not target.exists():
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (EEXIST, ENOTEMPTY):
                raise
            why = "Another process has saved there in the meantime, and its files were kept"
            raise FileExistsError(EEXIST, why, str(target)) from error
        return
    with _alone_in(target):
        for file in files:
            file.replace(target / file.name)


def publish_files(folder: Path, target: Path, overwrite: bool) -> None:
    """Move files into a directory that other processes may write to, one by one.

    All is checked before the first one is moved, and processes wait for each other. The limit: each
    rename is complete or not done, but not all of them together. If the process is killed between
    two renames, some files are new and others missing, or those of an earlier run.

    Parameters
    ----------
    folder
        Folder of :func:`temporary_folder`, complete.
    target
        Directory of the files; it is created if it does not exist.
    overwrite
        Whether files of the same names are replaced.

    Raises
    ------
    FileExistsError
        If there is a file of one of the names without ``overwrite``; ``filename`` is its path.
    IsADirectoryError
        If there is a directory, or else no regular file, of one of the names. As all errors here,
        it leaves the directory as it was.
    """
    files = sorted(folder.iterdir())
    for file in files:
        flush(file)
    target.mkdir(parents=True, exist_ok=True)
    with _alone_in(target):
        taken = [target / file.name for file in files if os.path.lexists(target / file.name)]
        if taken and not overwrite:
            raise FileExistsError(EEXIST, "There is such a file already", str(taken[0]))
        for path in taken:
            if path.exists() and not path.is_file():
                raise IsADirectoryError(EISDIR, "There is something else than a file", str(path))
        for file in files:
            file.replace(target / file.name)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Wait for other processes that publish files to a directory, so that their files do not mix."""
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Wait until files are on disk; only then the error of a full disk may appear.

    Parameters
    ----------
    path
        File, or folder with files.
    """
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                try:
                    os.fsync(opened.fileno())
                except OSError as error:
                    if error.errno in _NOT_WRITTEN:  # else the disk does not support it
                        raise
