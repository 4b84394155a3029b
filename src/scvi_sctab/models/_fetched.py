"""Repositories of ``scvi.hub`` that were fetched before, found without importing the hub."""

from __future__ import annotations

import json
import os
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
    is_ours = isinstance(metadata, dict) and metadata.get("model_parent_module") == PARENT_MODULE
    return is_ours and any((folder / name).is_file() for name in (WEIGHTS_FILE, ENSEMBLE_FILE))


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
