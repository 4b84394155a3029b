"""Environment of a command: threads, and folders for caches where there is no home."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def prepare(threads: int | None) -> None:
    """Set the environment before libraries are imported that read it.

    Parameters
    ----------
    threads
        Number of threads.
    """
    if threads is not None:
        os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    package = Path(__file__).parents[1]
    if not _is_writable(Path.home()):
        cache = None
        for variable, is_needed in (
            ("MPLCONFIGDIR", True),
            ("NUMBA_CACHE_DIR", not _is_writable(package / "sparse")),
        ):
            if is_needed and variable not in os.environ:
                cache = cache or _make_cache()
                os.environ[variable] = cache


def _is_writable(folder: Path) -> bool:
    """Return whether files can be created; permissions alone do not say it of a read-only disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _make_cache() -> str:
    """Create a folder that only the user can write to, since numba's cache holds code."""
    path = Path(tempfile.gettempdir()) / f"scvi-sctab-{getattr(os, 'getuid', int)()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if path.is_dir() and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return str(path)
    except (OSError, AttributeError):
        pass
    return tempfile.mkdtemp(prefix="scvi-sctab-")
