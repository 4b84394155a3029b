"""Annotation of one file, in the process of the user or in a worker."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from errno import EACCES, EDQUOT, EIO, ENOSPC, EPERM, EROFS
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._logging import hide_progress
from scvi_sctab._optional import import_optional
from scvi_sctab.base import flush
from scvi_sctab.data import X_LAYER
from scvi_sctab.data.files import RefusedInputError, find_query, open_stored

# Key of the metadata of a table under which its origin is recorded.
_ORIGIN_KEY = b"scvi_sctab"
# Errors of writing that every other file would have, too.
_OF_FOLDER = (EACCES, EDQUOT, EIO, ENOSPC, EPERM, EROFS)
# Torch's default type and the filters of warnings belong to the process, not to a thread.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class FileTask:
    """File to annotate.

    Parameters
    ----------
    name
        Name of the file in the results.
    path
        Absolute path of the file.
    output
        Absolute path of the table to write.
    origin
        Properties of file, model and arguments; a table with the same ones is up to date.
    """

    name: str
    path: str
    output: str
    origin: dict[str, Any]


@dataclass(frozen=True)
class AnnotationJob:
    """Settings that all files share.

    Parameters
    ----------
    model_class
        Class of the model.
    model_path
        Directory of the saved model.
    digest
        Digest of the model.
    scratch
        Folder for unfinished tables, on the disk of the finished ones.
    arguments
        Arguments of ``annotate``.
    accelerator
        Device of the model.
    run
        Name of the call, which is recorded with each table.
    """

    model_class: type[Any]
    model_path: str
    digest: str
    scratch: str
    arguments: dict[str, Any]
    accelerator: str
    run: str

    def load(self) -> Any:
        """Load the model.

        Raises
        ------
        RuntimeError
            If the directory holds another model by now.
        """
        model = self.model_class.load(self.model_path, adata=False, accelerator=self.accelerator)
        if model.digest != self.digest:
            raise RuntimeError(
                f"{self.model_path} holds another model than at the start: it was saved again "
                "meanwhile. Call again; files that the first model has annotated are done again."
            )
        return model


@dataclass(frozen=True)
class FileResult:
    """Outcome for one file.

    Parameters
    ----------
    status
        ``"done"``, ``"skipped"`` or ``"failed"``.
    n_cells
        Number of annotated cells.
    seconds
        Time from opening the file to the finished table.
    found
        Where counts and genes were found.
    error
        Message, empty if there was no error.
    warnings
        Messages of warnings, each on a line.
    errno
        Number of an error of the folder of tables, by which every other file would fail as well.
    """

    status: str
    n_cells: int | None = None
    seconds: float | None = None
    found: str = ""
    error: str = ""
    warnings: str = ""
    errno: int | None = None


# The last model of this process, so that a worker loads it once.
_loaded: tuple[AnnotationJob, Any] | None = None


def annotate_in_worker(task: FileTask, job: AnnotationJob) -> FileResult:
    """Annotate a file by the model of the worker, which is loaded at its first file.

    Parameters
    ----------
    task
        The file.
    job
        Settings that all files share.
    """

    def model() -> Any:
        global _loaded
        if _loaded is None or _loaded[0] != job:
            _loaded = None  # two models may not fit into memory
            _loaded = job, job.load()
        return _loaded[1]

    # Dask repeats a file whose outcome was lost with a worker.
    with suppress(ValueError):
        result = read_result(task, job.run)
        if result is not None:
            return replace(result, status="done")
    return annotate_file(task, job, model, progress=False)


def annotate_file(
    task: FileTask, job: AnnotationJob, model: Callable[[], Any], *, progress: bool = True
) -> FileResult:
    """Annotate a file and write the table; an error is returned, not raised.

    Parameters
    ----------
    task
        The file.
    job
        Settings that all files share.
    model
        Function that returns the model.
    progress
        Whether a progress bar of cells may be shown.
    """
    with (
        _one_at_a_time,
        warnings.catch_warnings(record=True) as caught,
        nullcontext() if progress else hide_progress(),
    ):
        start = time.perf_counter()
        warnings.simplefilter("always")
        try:
            n_cells, found = _annotate(task, job, model(), caught, start)
        except _FolderError as error:
            return FileResult("failed", error=str(error), errno=error.errno)
        except MemoryError as error:
            return FileResult("failed", error=f"{_describe(error)} {_MEMORY_CURE}")
        except Exception as error:  # noqa: BLE001 - one broken file must not stop the others
            return FileResult("failed", error=_describe(error))
        seconds = time.perf_counter() - start
    return FileResult("done", n_cells, seconds, found, warnings=_messages(caught))


_MEMORY_CURE = (
    "Memory was too small: pass a smaller `batch_size`, or fewer workers, `n_workers=1`. If the "
    "file holds counts by columns (CSC), it is read whole: store it as CSR."
)


class _FolderError(Exception):
    """Error of the folder of tables."""

    def __init__(self, error: OSError):
        super().__init__(error.strerror or str(error))
        self.errno = error.errno


def _annotate(
    task: FileTask, job: AnnotationJob, model: Any, caught: list[Any], start: float
) -> tuple[int, str]:
    given = dict(job.arguments)
    layer = given.pop("layer", None)
    with open_stored(Path(task.path)) as stored:
        query = find_query(
            stored,
            model.gene_names,
            layer=layer,
            own_layer=model.registry["setup_args"].get("layer"),
            min_gene_overlap=given.get("min_gene_overlap", MIN_GENE_OVERLAP),
        )
        frame = model.annotate(query.cells, layer=X_LAYER, **given)
    if fingerprint(Path(task.path)) != task.origin["input"]:
        raise RuntimeError("The file changed while it was read. Call again when it is complete.")
    seconds = time.perf_counter() - start
    found = query.describe()
    try:
        _write(
            frame, task, job, {"seconds": seconds, "warnings": _messages(caught), "found": found}
        )
    except OSError as error:
        if error.errno in _OF_FOLDER:
            raise _FolderError(error) from error
        raise
    return len(frame), found


def _messages(caught: list[Any]) -> str:
    """Join the messages of our warnings; those of other packages do not concern the cells."""
    ours = (str(entry.message) for entry in caught if entry.category is UserWarning)
    return "\n".join(dict.fromkeys(ours))


def _describe(error: Exception) -> str:
    if isinstance(error, RefusedInputError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def fingerprint(path: Path) -> dict[str, int]:
    """Return size and time of the last change of a file, or of all files of a folder.

    Parameters
    ----------
    path
        File or folder.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    if not path.is_dir():
        found = path.stat()
        return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    stats = [file.stat() for file in files]
    return {
        "size": sum(found.st_size for found in stats),
        "mtime_ns": max((found.st_mtime_ns for found in stats), default=0),
        "n_files": len(stats),
    }


def _write(frame: pd.DataFrame, task: FileTask, job: AnnotationJob, notes: dict[str, Any]) -> None:
    """Write a table to the folder of unfinished ones and rename it when it is on disk."""
    arrow, parquet = import_arrow()
    table = arrow.Table.from_pandas(frame)
    record = {"origin": task.origin, "run": job.run, "version": version("scvi-sctab"), **notes}
    metadata = {**(table.schema.metadata or {}), _ORIGIN_KEY: json.dumps(record)}
    unfinished = Path(job.scratch) / f"{secrets.token_hex(8)}.parquet"
    try:
        with unfinished.open("wb") as file:
            parquet.write_table(table.replace_schema_metadata(metadata), file)
        flush(unfinished)
        unfinished.replace(task.output)
    finally:
        unfinished.unlink(missing_ok=True)


def read_result(task: FileTask, run: str | None = None) -> FileResult | None:
    """Return the outcome of an earlier call; ``None`` if the table is missing or out of date.

    Parameters
    ----------
    task
        The file.
    run
        Call that has to have written the table; any if not given.

    Raises
    ------
    ValueError
        If the output exists and is no table of :func:`~scvi_sctab.annotate_files`.
    """
    path = Path(task.output)
    if not path.exists():
        return None
    arrow, parquet = import_arrow()
    try:
        with path.open("rb") as file:
            found = parquet.read_metadata(file)
        record = json.loads((found.metadata or {})[_ORIGIN_KEY])
        result = FileResult(
            "skipped",
            found.num_rows,
            float(record["seconds"]),
            record.get("found", ""),
            warnings=record["warnings"],
        )
        origin = record["origin"]
    except (OSError, ValueError, KeyError, arrow.ArrowException) as error:
        raise ValueError(
            f"{path} exists and is no table that `annotate_files` wrote. It was left as it is: "
            "move it, choose another `out_dir`, or pass overwrite=True."
        ) from error
    is_current = origin == task.origin and run in (None, record.get("run"))
    return result if is_current else None


def import_arrow() -> tuple[Any, Any]:
    """Import pyarrow and its module of Parquet files."""
    arrow = import_optional("pyarrow", "files", "annotate_files()")
    return arrow, import_optional("pyarrow.parquet", "files", "annotate_files()")
