"""Repositories of ``scvi.hub`` that were fetched before, found without importing the hub."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from scvi_sctab._constants import ENSEMBLE_FILE, WEIGHTS_FILE

METADATA_FILE = "_scvi_required_metadata.json"
"""File of ``scvi.hub`` that names the class of the model."""
PARENT_MODULE = "scvi_sctab"
"""Module of the class."""


def is_repository(folder: Path) -> bool:
    """Return whether a folder is a repository of a model of this package.

    Parameters
    ----------
    folder
        Any folder.
    """
    try:
        metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(metadata, dict) or metadata.get("model_parent_module") != PARENT_MODULE:
        return False
    try:
        files = model_files(folder)
    except ValueError:
        return False
    return bool(files) and all((folder / name).is_file() for name in files)


def model_files(folder: Path) -> list[str]:
    """List the files that a saved model needs to be loaded; none if there is no model.

    Parameters
    ----------
    folder
        Any folder.

    Returns
    -------
    Names relative to the folder. An ensemble has the networks of its members in folders of their own.

    Raises
    ------
    ValueError
        If the file of an ensemble is damaged.
    """
    if not (folder / ENSEMBLE_FILE).is_file():
        return [WEIGHTS_FILE] if (folder / WEIGHTS_FILE).is_file() else []
    return [
        ENSEMBLE_FILE,
        *(f"{name}/{WEIGHTS_FILE}" for name in _members(folder / ENSEMBLE_FILE)),
    ]


def _members(file: Path) -> list[str]:
    """Read the folders of an ensemble's members from the header, without importing torch."""
    try:
        with file.open("rb") as opened:
            (size,) = struct.unpack("<Q", opened.read(8))
            if size > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            metadata = json.loads(opened.read(size))["__metadata__"]
        # An early format numbers its members.
        if "members" not in metadata:
            return [f"member{number}" for number in range(int(metadata["n_members"]))]
        names = [str(name) for name in json.loads(metadata["members"])]
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"{file} is not an ensemble or is damaged: {error}.") from error
    # A name with slashes could lead out of the folder.
    if wrong := [
        name for name in names if not name.startswith("member") or Path(name).name != name
    ]:
        raise ValueError(f"{file} is damaged: {wrong[0]!r} is no name of a member's folder.")
    return names


def fetched_repositories() -> Iterator[tuple[str, Path]]:
    """Yield names and folders of the repositories in the cache of the hub, without importing it."""
    try:
        cached = sorted(_cache().glob("models--*--*"))
    except OSError:
        return
    for entry in cached:
        name = entry.name.removeprefix("models--").replace("--", "/", 1)
        try:
            commit = (entry / "refs" / "main").read_text().strip()
        except OSError:
            continue  # a revision that was asked for by its commit has no name
        if is_repository(folder := entry / "snapshots" / commit):
            yield name, folder


def _cache() -> Path:
    """Return the folder that the hub downloads to, by its own rules."""
    if own := os.environ.get("HF_HUB_CACHE"):
        return Path(own).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(cache, "huggingface"))
    return Path(home).expanduser() / "hub"
