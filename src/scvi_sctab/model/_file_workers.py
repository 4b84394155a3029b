"""Workers that annotate files: those of a Dask cluster, or the process of the user."""

from __future__ import annotations

import logging
import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scvi_sctab._logging import logger
from scvi_sctab._optional import import_optional
from scvi_sctab.model._file_annotation import FileResult, annotate_file, annotate_in_worker
from scvi_sctab.sparse import available_cpus

if TYPE_CHECKING:
    from scvi_sctab.model._file_annotation import AnnotationJob, FileTask

_CONNECT_SECONDS = 10
# A worker has torch, numba and the model in memory before it reads the first cell; with less, it
# would be killed and started again without end.
_MIN_BYTES = 1 << 30
_BYTES_PER_WORKER = 2 << 30
# For workers of our own. A file whose worker was killed is tried once more: it may have been killed
# for the memory of another program. No file waits in a worker that another file may kill.
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,
    "distributed.scheduler.worker-saturation": 1.0,
    # A worker that starts again imports torch; by default, the cluster gives it up after 15 s.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
}


def run_serially(
    tasks: Sequence[FileTask], job: AnnotationJob, model: Any
) -> Iterator[tuple[FileTask, FileResult]]:
    """Annotate files in this process, one after the other.

    Parameters
    ----------
    tasks
        Files.
    job
        Settings that all files share.
    model
        The model.

    Yields
    ------
    Each file with its outcome.
    """
    for task in tasks:
        yield task, annotate_file(task, job, lambda: model)


def run_on_cluster(
    tasks: Sequence[FileTask], job: AnnotationJob, client: Any
) -> Generator[tuple[FileTask, FileResult], None, None]:
    """Annotate files in the workers of a cluster.

    Parameters
    ----------
    tasks
        Files.
    job
        Settings that all files share.
    client
        A :class:`distributed.Client`.

    Yields
    ------
    Each file with its outcome, in the order in which they are finished.
    """
    distributed = _import_distributed()
    if not client.scheduler_info()["workers"]:
        logger.warning("The cluster has no workers yet; files wait for the first one.")
    futures = {client.submit(annotate_in_worker, task, job, pure=False): task for task in tasks}
    try:
        for future in distributed.as_completed(list(futures), loop=client.loop):
            yield futures[future], _result_of(future, distributed)
    finally:
        client.cancel(list(futures))


def _result_of(future: Any, distributed: Any) -> FileResult:
    """Return the outcome of a file, also if its worker or the scheduler died."""
    try:
        return future.result()
    except distributed.KilledWorker:
        error = (
            "The worker was killed while it annotated this file, at every try; most often because "
            "the file took more memory than the worker has. Give it more, `n_workers=1` or "
            "`memory_limit='8GiB'` (on a cluster of your own: when its workers are started), or "
            "pass a smaller `batch_size`. If the file holds counts by columns (CSC), it is read "
            "whole: store it as CSR."
        )
    except distributed.CancelledError:
        error = (
            "The connection to the scheduler was lost before this file was finished. Call again: "
            "finished files are not done again."
        )
    except ModuleNotFoundError as missing:
        error = f"The workers have no {missing.name!r}: install in their environment what is here."
    except Exception as other:  # noqa: BLE001 - one broken file must not stop the others
        error = f"{type(other).__name__}: {other}"
    return FileResult("failed", error=error)


@contextmanager
def connect(
    scheduler: Any, n_workers: int | None, memory_limit: int | str | None, n_files: int
) -> Iterator[Any]:
    """Connect to a cluster, or start one of processes on this machine.

    Parameters
    ----------
    scheduler
        Address, client, or ``None`` for a cluster of our own.
    n_workers, memory_limit
        As of :func:`~scvi_sctab.annotate_files`.
    n_files
        Number of files to do.

    Yields
    ------
    A :class:`distributed.Client`. What was started here is closed, and a client that was given is
    left open.

    Raises
    ------
    ConnectionError
        If there is no scheduler at the address.
    RuntimeError
        If workers cannot be started.
    """
    distributed = _import_distributed()
    if isinstance(scheduler, distributed.Client):
        yield scheduler
    elif scheduler is not None:
        with _connect_to(str(scheduler), distributed) as client:
            yield client
    else:
        with (
            import_optional("dask", "files", "annotate_files()").config.set(_SETTINGS),
            _start_cluster(n_workers, memory_limit, n_files, distributed) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client


def _import_distributed() -> Any:
    return import_optional("distributed", "files", "annotate_files(), but for scheduler='serial',")


def _connect_to(address: str, distributed: Any) -> Any:
    """Connect to a scheduler, in bounded time."""
    try:
        # A client that waits in vain for a scheduler leaves threads behind.
        scheme, _, place = address.rpartition("://")
        if scheme in ("", "tcp", "tls"):
            host, _, port = place.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        return distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except Exception as error:
        raise ConnectionError(
            f"There is no Dask scheduler at {address!r}: {error}. Pass the address that `dask "
            "scheduler` prints, such as 'tcp://192.168.0.10:8786', and see that this machine "
            "reaches it; or leave `scheduler` out, for workers on this machine."
        ) from error


def _start_cluster(
    n_workers: int | None, memory_limit: int | str | None, n_files: int, distributed: Any
) -> Any:
    """Start a process with one thread for each worker."""
    system = import_optional("distributed.system", "files", "annotate_files()")
    total = int(system.MEMORY_LIMIT)  # that of a control group, if there is one
    if n_workers is None:
        n_workers = max(1, min(available_cpus(), total // _BYTES_PER_WORKER, n_files))
    memory = total // n_workers if memory_limit is None else parse_memory(memory_limit)
    try:
        return distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=memory,
            dashboard_address=":0",  # any free port, without a warning if another is in use
            silence_logs=logging.CRITICAL,  # killed workers are reported with their file
        )
    except RuntimeError as error:
        raise RuntimeError(
            "The workers could not be started. In a script, call `annotate_files` within `if "
            "__name__ == '__main__':`, as workers import the script; or pass scheduler='serial'."
        ) from error


def parse_memory(memory_limit: int | str) -> int:
    """Return a limit of memory in bytes.

    Parameters
    ----------
    memory_limit
        Bytes, or a text such as ``"4GiB"``.

    Raises
    ------
    ValueError
        If it is no limit, or less than a worker takes at its start.
    """
    dask_utils = import_optional("dask.utils", "files", "annotate_files()")
    n_bytes = int(dask_utils.parse_bytes(memory_limit))
    if n_bytes < _MIN_BYTES:
        raise ValueError(
            f"{memory_limit=}: a worker takes about 1 GiB before it reads a cell. Give it more, "
            "'4GiB', and have fewer workers instead, `n_workers=1`."
        )
    return n_bytes
