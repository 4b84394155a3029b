"""Annotation of many files, each to a table beside the others."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from scvi_sctab._logging import logger, shows_progress
from scvi_sctab._messages import list_names
from scvi_sctab.base import temporary_folder
from scvi_sctab.data import check_arguments
from scvi_sctab.model._annotator import CellAnnotator
from scvi_sctab.model._file_annotation import (
    AnnotationJob,
    FileResult,
    FileTask,
    fingerprint,
    import_arrow,
    read_result,
)
from scvi_sctab.model._file_workers import connect, run_on_cluster, run_serially
from scvi_sctab.model._load import load_model

if TYPE_CHECKING:
    from distributed import Client

    from scvi_sctab.model._ensemble import SCTABEnsemble
    from scvi_sctab.model._sctab import SCTAB

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_SUFFIX = ".annotations.parquet"
_STATEMENTS = ("error_rate", "false_alarm_rate", "term_level", "unassigned")
_ARGUMENTS = (*_STATEMENTS, "layer", "min_gene_overlap")
_CURES = {
    "adata": "files are given as `paths`",
    "indices": "all cells of a file are annotated",
    "key_added": "tables have the columns of `annotate`; files are not written to",
    **dict.fromkeys(("n_jobs", "num_workers", "processes", "threads"), "`n_workers=`"),
    **dict.fromkeys(("client", "cluster", "address"), "`scheduler=`"),
    **dict.fromkeys(("device", "use_gpu"), "`accelerator=`"),
}


def annotate_files(
    paths: Paths | Mapping[str, str | os.PathLike[str]],
    model: SCTAB | SCTABEnsemble | str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    scheduler: str | Client | None = None,
    n_workers: int | None = None,
    memory_limit: int | str | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    accelerator: str = "auto",
    **annotate_kwargs: Any,
) -> pd.DataFrame:
    """Annotate files, several at a time, and write a table for each.

    Each file gives ``<stem>.annotations.parquet``, the data frame of
    :meth:`~scvi_sctab.SCTAB.annotate`, rows named by cell. A table is complete or not there. If
    the call is interrupted or the machine fails, call again: files with a table that is up to
    date are skipped. A file that cannot be annotated is reported and does not stop the others.

    Parameters
    ----------
    paths
        Files of raw counts: ``.h5ad``, ``.h5mu``, ``.zarr``, 10x ``.h5``, or folders with a
        ``matrix.mtx``. Counts are found in ``X``, layers or ``raw``, and genes in ``var_names`` or
        a column of ``var``. Counts of the first three kinds are read in blocks, so that memory
        does not grow with the number of cells if they are stored by rows (CSR). A mapping gives
        each its name in place of the stem, ``{"sample1": "sample1/counts.h5ad"}``.
    model
        A trained model, or the directory of a saved one.
    out_dir
        Folder of the tables; it is created if it does not exist.
    scheduler
        ``None`` for processes on this machine, which end with the call; the address of a Dask
        scheduler, such as ``"tcp://192.168.0.10:8786"``, or a :class:`distributed.Client`, whose
        workers need this package, and ``paths``, ``out_dir`` and the model under the same names;
        ``"serial"`` for this process, without Dask.
    n_workers
        Number of processes on this machine; if not given, one per CPU, as far as there are 2 GiB
        of memory for each. Each process annotates one file at a time.
    memory_limit
        Memory of each of them, such as ``"4GiB"``; a process that takes more is killed, and its
        file is reported. If not given, equal shares of the memory of the machine.
    batch_size
        Cells per minibatch.
    overwrite
        Whether files with a table are annotated again. A table that is out of date, because the
        file, the model or an argument of ``annotate`` has changed, is replaced in any case.
    progress
        Whether to show a progress bar; if not given, in a terminal or notebook.
    accelerator
        Device of models that are loaded.
    **annotate_kwargs
        ``error_rate``, ``false_alarm_rate``, ``term_level``, ``unassigned``, ``layer`` and
        ``min_gene_overlap`` of :meth:`~scvi_sctab.SCTAB.annotate`.

    Returns
    -------
    A row per file, in the order of ``paths``: ``path``; ``output``, the table; ``n_cells``;
    ``seconds``; ``status``, ``"done"``, ``"skipped"`` or ``"failed"``; ``found``, where its counts
    and genes are; ``error``; and ``warnings`` about its cells.

    Raises
    ------
    ImportError
        If pyarrow, or for workers ``distributed``, is not installed.
    TypeError
        If there is no such argument.
    ValueError
        If there are no files, two files would be written to the same table, or an argument is out
        of range.
    RuntimeError
        If the model is not trained, or workers cannot be started.
    ConnectionError
        If there is no scheduler at the address.
    OSError
        If tables cannot be written to ``out_dir``, as on a full disk. Tables written before are
        kept.

    Examples
    --------
    >>> from pathlib import Path
    >>> from scvi_sctab import annotate_files
    >>> if __name__ == "__main__":  # in a script, as workers import it
    ...     files = sorted(Path("counts").glob("*.h5ad"))
    ...     table = annotate_files(files, "reference_model", "annotations")  # doctest: +SKIP
    """
    import_arrow()
    check_arguments(annotate_kwargs, _ARGUMENTS, "annotate_files", _CURES)
    _check_workers(scheduler, n_workers, memory_limit)
    named = _name(paths)
    folder = _make_folder(out_dir)
    loaded, model_path = _load(model, accelerator)
    arguments = _fill(annotate_kwargs)
    loaded._check_statements(**{name: arguments[name] for name in _STATEMENTS})
    origin = {"model": loaded.digest, "arguments": arguments}
    results: dict[str, FileResult] = {}
    tasks: list[FileTask] = []
    for name, path in named.items():
        found = _plan(name, path, folder, origin, overwrite)
        if isinstance(found, FileTask):
            tasks.append(found)
        else:
            results[name] = found
    bar = tqdm(
        total=len(named),
        initial=len(results),
        desc="Files",
        unit=" files",
        disable=not (shows_progress() if progress is None else progress),
    )
    with temporary_folder(folder) as scratch, bar:
        job = AnnotationJob(
            type(loaded),
            model_path or str(scratch / "model"),
            origin["model"],
            str(scratch),
            {**arguments, "batch_size": batch_size},
            accelerator,
            secrets.token_hex(8),
        )
        with _workers(tasks, job, loaded, scheduler, n_workers, memory_limit) as finished:
            for task, result in finished:
                if result.errno is not None:
                    raise _refuse_folder(result, folder, results, len(named))
                results[task.name] = result
                bar.update()
    return _tabulate(named, results, Path(out_dir))


def _check_workers(scheduler: Any, n_workers: int | None, memory_limit: int | str | None) -> None:
    """Refuse a number or a memory of workers that are not started here."""
    for name, value in (("n_workers", n_workers), ("memory_limit", memory_limit)):
        if value is not None and scheduler is not None:
            raise ValueError(
                f"{name}={value!r} is for workers that are started here: leave it out, or leave "
                "out `scheduler`."
            )
    if n_workers is not None and n_workers < 1:
        raise ValueError(f"{n_workers=}: at least one worker annotates.")


def _fill(given: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults of `annotate`, so that a default that is given is no other argument."""
    parameters = signature(CellAnnotator.annotate).parameters
    filled = {name: given.get(name, parameters[name].default) for name in _ARGUMENTS}
    # Numbers of numpy are not written as JSON.
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in filled.items()}


def _name(paths: Any) -> dict[str, str]:
    """Return the name of each file; refuse files that would have the same table."""
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if isinstance(paths, Mapping):
        pairs = [(str(name), os.fspath(path)) for name, path in paths.items()]
        for name, _ in pairs:
            if Path(name).name != name:
                raise ValueError(f"{name!r} is no name of a file: leave out folders.")
    else:
        pairs = [(Path(path).stem, os.fspath(path)) for path in paths]
    if not pairs:
        raise ValueError("There are no files to annotate: `paths` is empty.")
    # Some disks do not distinguish upper and lower case.
    alike = defaultdict(list)
    for name, path in pairs:
        alike[name.casefold()].append(path)
    for group in alike.values():
        if len(group) > 1:
            raise ValueError(
                f"{list_names(group)} would be written to the same table, "
                f"{Path(group[0]).stem + _SUFFIX!r}. Give each a name of its own: "
                "`annotate_files({'sample1': path1, 'sample2': path2}, ...)`."
            )
    return dict(pairs)


def _make_folder(out_dir: str | os.PathLike[str]) -> Path:
    """Create the folder of the tables."""
    folder = Path(os.path.realpath(out_dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"The folder of the tables cannot be created ({error.strerror}); choose another "
            "`out_dir`",
            str(out_dir),
        ) from error
    return folder


def _load(model: Any, accelerator: str) -> tuple[Any, str | None]:
    """Return a trained model, and its directory if it is saved."""
    path = None
    if isinstance(model, str | os.PathLike):
        path = os.path.abspath(model)
        model = load_model(path, accelerator)
    if not isinstance(model, CellAnnotator):
        raise TypeError(
            "`model` is a trained SCTAB or SCTABEnsemble, or the directory of a saved one, not a "
            f"{type(model).__name__}."
        )
    model._require_trained()
    return model, path


def _plan(
    name: str, path: str, folder: Path, origin: dict[str, Any], overwrite: bool
) -> FileTask | FileResult:
    """Return a file that is to be annotated, or the outcome where there is nothing to do."""
    source = Path(path).absolute()
    try:
        origin = {"input": fingerprint(source), **origin}
        task = FileTask(name, str(source), str(folder / f"{name}{_SUFFIX}"), origin)
        return task if overwrite else read_result(task) or task
    except FileNotFoundError:
        return FileResult("failed", error=f"There is no file {path}.")
    except (OSError, ValueError) as error:
        return FileResult("failed", error=str(error))


@contextmanager
def _workers(
    tasks: list[FileTask],
    job: AnnotationJob,
    model: Any,
    scheduler: Any,
    n_workers: int | None,
    memory_limit: int | str | None,
) -> Iterator[Iterable[tuple[FileTask, FileResult]]]:
    """Start workers, if there is anything to do, and yield the outcomes as they come."""
    if not tasks:
        yield ()
        return
    if isinstance(scheduler, str) and scheduler == "serial":
        yield run_serially(tasks, job, model)
        return
    with connect(scheduler, n_workers, memory_limit, len(tasks)) as client:
        if not os.path.exists(job.model_path):
            model.save(job.model_path)
        with closing(run_on_cluster(tasks, job, client)) as finished:
            yield finished


def _refuse_folder(
    result: FileResult, folder: Path, results: Mapping[str, FileResult], n_files: int
) -> OSError:
    n_finished = sum(found.status != "failed" for found in results.values())
    return OSError(
        result.errno,
        f"Tables cannot be written ({result.error}). {n_finished} of {n_files} files are finished "
        "and will be skipped: make space or get permission, and call again",
        str(folder),
    )


def _tabulate(
    named: Mapping[str, str], results: Mapping[str, FileResult], out_dir: Path
) -> pd.DataFrame:
    """Make the table of outcomes, and log what needs attention."""
    found = [results[name] for name in named]
    table = pd.DataFrame(
        {
            "path": list(named.values()),
            "output": [str(out_dir / f"{name}{_SUFFIX}") for name in named],
            "n_cells": pd.array([result.n_cells for result in found], dtype="Int64"),
            "seconds": pd.array([result.seconds for result in found], dtype="Float64"),
            "status": [result.status for result in found],
            "found": [result.found for result in found],
            "error": [result.error for result in found],
            "warnings": [result.warnings for result in found],
        }
    )
    for column, what in (("error", "could not be annotated"), ("warnings", "have warnings")):
        rows = table[table[column] != ""]
        if len(rows):
            logger.warning(
                f"{len(rows):,} of {len(table):,} files {what}, see the column {column!r}. "
                f"{rows['path'].iloc[0]}: {rows[column].iloc[0]}"
            )
    return table
