"""Opening of files of cells, whatever their format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from scvi_sctab._messages import list_names
from scvi_sctab._optional import import_optional
from scvi_sctab.data.files._refusal import RefusedInputError
from scvi_sctab.data.files._stored import StoredCells, read_stored
from scvi_sctab.data.files._tenx import (
    is_matrix_folder,
    is_tenx,
    read_matrix_folder,
    read_tenx,
)
from scvi_sctab.sparse import BrokenMatrixError

_RNA = "rna"
# Packages that decode the blocks of a .zarr folder.
_DECODERS = ("numcodecs", "zarr")
# What HDF5 says of a damaged block; of a failed writing it says other things.
_OF_READING = ("read data", "open object")
_FORMATS = (
    "Convert it to .h5ad; .h5mu, .zarr, 10x .h5 files and matrix-market folders are read, too."
)


@contextmanager
def open_stored(path: Path, modality: str | None = None) -> Iterator[StoredCells]:
    """Open a file of cells; counts of .h5ad, .h5mu and .zarr stay on disk.

    Parameters
    ----------
    path
        An ``.h5ad`` or ``.h5mu`` file, a ``.zarr`` folder, a 10x ``.h5`` file, or a folder with a
        matrix-market file.
    modality
        Modality of an ``.h5mu`` file; ``"rna"`` if not given, or the only one.

    Yields
    ------
    The cells, which are read while the context lasts.

    Raises
    ------
    RefusedInputError
        If there is no such file, it is of another format, or damaged, which may be found only when
        its counts are read.
    """
    with _open(path, modality) as stored:
        try:
            yield stored
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            if _is_of_reading(error):
                raise _damaged(path, error) from error
            raise


@contextmanager
def _open(path: Path, modality: str | None) -> Iterator[StoredCells]:
    if not path.exists():
        raise RefusedInputError(f"There is no file {path}.", "Check its name and folder.")
    if path.is_dir():
        yield _read_folder(path)
        return
    if path.suffix not in (".h5ad", ".h5mu", ".h5"):
        raise RefusedInputError(f"{path} is of a format that is not read.", _FORMATS)
    try:
        file = h5py.File(path, "r")
    except PermissionError:
        raise RefusedInputError(
            f"There is no permission to read {path}.", f"Allow it: `chmod u+r {path}`."
        ) from None
    except OSError as error:
        raise _damaged(path, error) from error
    with file:
        try:
            stored = _read_file(file, path, modality)
        except (RefusedInputError, MemoryError):
            raise
        except Exception as error:
            raise _damaged(path, error) from error
        yield stored


def _read_folder(path: Path) -> StoredCells:
    try:
        if is_matrix_folder(path):
            return read_matrix_folder(path)
        if not any((path / name).exists() for name in (".zgroup", "zarr.json")):
            raise RefusedInputError(
                f"{path} is neither a .zarr folder nor one with a matrix.mtx.", _FORMATS
            )
        zarr = import_optional("zarr", "files", "Reading .zarr folders")
        return read_stored(zarr.open_group(str(path), mode="r"), path, "zarr folder")
    except (RefusedInputError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _read_file(file: Any, path: Path, modality: str | None) -> StoredCells:
    if "mod" in file and path.suffix == ".h5mu":
        return read_stored(file["mod"][_choose(list(file["mod"]), path, modality)], path, "h5mu")
    if "obs" in file and "var" in file:
        return read_stored(file, path, "h5ad")
    if is_tenx(file):
        return read_tenx(file, path)
    raise RefusedInputError(
        f"{path} is an HDF5 file without cells: it lacks `obs` and `var`, and `matrix`.", _FORMATS
    )


def _choose(names: list[str], path: Path, modality: str | None) -> str:
    """Choose the modality with counts of genes."""
    if modality is None and len(names) == 1:
        return names[0]
    wanted = _RNA if modality is None else modality
    if wanted in names:
        return wanted
    cause = f"has no modality {wanted!r}" if modality else "does not say which modality holds RNA"
    raise RefusedInputError(
        f"{path} {cause}: it has {list_names(names)}.", "Name the modality with counts of genes."
    )


def _is_of_reading(error: Exception) -> bool:
    """Return whether HDF5 or zarr could not decode a block on disk, or what it holds is no matrix."""
    if isinstance(error, BrokenMatrixError):
        return True
    if isinstance(error, KeyError | OSError):
        # HDF5 gives a failed filter no number; a failed disk has one.
        is_numbered = isinstance(error, OSError) and error.errno is not None
        return not is_numbered and any(text in str(error) for text in _OF_READING)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return module.split(".")[0] in _DECODERS


def _damaged(path: Path, error: Exception) -> RefusedInputError:
    why = " ".join(str(error).split())
    return RefusedInputError(
        f"{path} cannot be read, it is damaged or incomplete: {why.rstrip('.')}.",
        "Copy or write it again.",
    )
