"""Manifest of a corpus: its files, genes, filters and parts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

MANIFEST_FILE = "manifest.json"
CELLS_FOLDER = "cells.zarr"
_FORMAT = "scvi-sctab-corpus-1"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class SourceRecord:
    """File that a corpus was made of.

    Attributes
    ----------
    path
        As it was given.
    size
        Bytes.
    modified
        Time of the last change, in nanoseconds.
    sha256
        Hash of its content.
    n_cells, n_kept
        Number of cells, and of those in the corpus.
    n_genes, n_genes_found
        Number of genes, and of those in the corpus.
    """

    path: str
    size: int
    modified: int
    sha256: str
    n_cells: int
    n_kept: int
    n_genes: int
    n_genes_found: int


@dataclass(frozen=True)
class Manifest:
    """Description of a corpus.

    Attributes
    ----------
    settings
        Arguments of :func:`prepare_corpus`.
    sources
        Files.
    removed
        Number of cells that each condition of the filter removes.
    columns
        Columns of ``obs``.
    n_genes
        Number of genes.
    parts
        Number of cells for training, validation and test, if the corpus was split.
    datasets
        Number of cells of each dataset of the collection, in their order.
    plan
        Hash of cells, genes and order, by which a stopped preparation recognises its own.
    finished
        Number of datasets that are written.
    """

    settings: dict[str, Any]
    sources: list[SourceRecord]
    removed: dict[str, int]
    columns: list[str]
    n_genes: int
    parts: dict[str, int]
    datasets: list[int]
    plan: str = ""
    finished: int = 0
    format: str = field(default=_FORMAT)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return sum(self.datasets)

    @property
    def is_whole(self) -> bool:
        """True if all datasets are written."""
        return self.finished == len(self.datasets)

    def write(self, folder: Path) -> None:
        """Write the manifest beside the old one and rename it."""
        temporary = folder / f".{MANIFEST_FILE}"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        with temporary.open("rb") as opened:
            os.fsync(opened.fileno())
        temporary.replace(folder / MANIFEST_FILE)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a corpus.

        Parameters
        ----------
        folder
            The corpus.

        Raises
        ------
        FileNotFoundError
            If there is no corpus.
        ValueError
            If the manifest cannot be read, or is of a newer version.
        """
        path = folder / MANIFEST_FILE
        if not path.is_file():
            partial = partial_of(folder)
            hint = (
                f" Its preparation was stopped ({partial}): call `prepare_corpus` again with the "
                "same arguments to finish it."
                if partial.exists()
                else " Make one: `scvi_sctab.data.stores.prepare_corpus(paths, out, ...)`."
            )
            raise FileNotFoundError(f"{folder} is no corpus: it has no {MANIFEST_FILE}.{hint}")
        try:
            saved = json.loads(path.read_text())
            found = saved.get("format")
            if found != _FORMAT:
                raise ValueError(f"its format is {found!r}, not {_FORMAT!r}; a newer version?")
            sources = [SourceRecord(**source) for source in saved.pop("sources")]
            manifest = cls(sources=sources, **saved)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read, or is damaged: {error}") from error
        return manifest


def partial_of(folder: Path) -> Path:
    """Return the folder to which a corpus is written until it is whole."""
    return folder.with_name(f"{folder.name}.partial")


def hash_path(path: Path) -> str:
    """Hash a file, or all files of a folder with their names, in bounded memory.

    Parameters
    ----------
    path
        File, or folder such as a zarr store.
    """
    hashed = sha256()
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            hashed.update(f"{file.relative_to(path).as_posix()}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                hashed.update(block)
    return hashed.hexdigest()


def stat_path(path: Path) -> tuple[int, int]:
    """Return size in bytes and time of the last change in nanoseconds, of all files of a folder.

    Parameters
    ----------
    path
        File or folder.
    """
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
