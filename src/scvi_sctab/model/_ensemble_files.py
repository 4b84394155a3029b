"""Files of an ensemble: a directory per member, and what belongs to all of them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import from_numpy

from scvi_sctab._constants import (
    ADATA_FILE,
    ENSEMBLE_FILE,
    JOURNAL_FILE,
    PICKLE_FILE,
    WEIGHTS_FILE,
)
from scvi_sctab.base import (
    decode,
    encode,
    find_leftovers,
    flush,
    hash_json,
    hash_tensors,
    move_files,
    read_checked,
    read_digest,
    temporary_folder,
    write_checked,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from scvi_sctab.model._ensemble import SCTABEnsemble
    from scvi_sctab.model._sctab import SCTAB

_FORMAT = "scvi-sctab-ensemble-2"
_UNCHECKED_FORMAT = "scvi-sctab-ensemble-1"
_FOLDER = re.compile(r"member\d+-[0-9a-f]{8}(-\d+)?")


def save_ensemble(ensemble: SCTABEnsemble, target: Path, save_anndata: bool) -> None:
    """Save members into new folders, then the file that names them, then remove the old ones.

    Parameters
    ----------
    ensemble
        The ensemble.
    target
        Directory; what is there stays until the new files are whole.
    save_anndata
        Whether to save the AnnData, too, once.
    """
    for leftover in find_leftovers(target):
        _remove_replaced(target, leftover / JOURNAL_FILE)
    with temporary_folder(target) as beside:
        digests = {}
        for number, member in enumerate(ensemble.members):
            digest = member.digest
            folder = _free_name(target, f"member{number}-{digest[:8]}")
            member.save(beside / folder, save_anndata=save_anndata and number == 0)
            digests[folder] = digest
        _save_own(ensemble, beside / ENSEMBLE_FILE, digests)
        if target.exists():
            _replace(target, beside, list(digests))
        else:
            move_files(beside, target)


def hash_ensemble(ensemble: SCTABEnsemble) -> str:
    """SHA-256 of what an ensemble holds.

    Parameters
    ----------
    ensemble
        The ensemble.
    """
    arrays: dict[str, Any] = {}
    content = _own_content(ensemble, arrays)
    hashes = hash_tensors({name: from_numpy(array) for name, array in arrays.items()})
    members = [member.digest for member in ensemble.members]
    return hash_json([type(ensemble).__name__, members, content, hashes])


def read_ensemble(
    member_class: type[SCTAB],
    directory: Path,
    adata: AnnData | str | Path | bool | None,
    arguments: dict[str, Any],
) -> tuple[list[SCTAB], Any, Any]:
    """Read members, calibration and hierarchy; nothing in the files is executed.

    Parameters
    ----------
    member_class
        Class of the members.
    directory
        Directory of :func:`save_ensemble`.
    adata, arguments
        As of :meth:`SCTAB.load`.

    Raises
    ------
    FileNotFoundError
        If there is no ensemble.
    ValueError
        If a file is damaged, or members of two ensembles are mixed.
    """
    path = directory / ENSEMBLE_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"There is no ensemble in {directory}: no {ENSEMBLE_FILE}. A single model is "
            "loaded by `SCTAB.load`."
        )
    tensors, metadata = read_checked(path, "an ensemble", _FORMAT, _UNCHECKED_FORMAT)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    members: list[SCTAB] = []
    for folder, digest in _members(metadata).items():
        cells = adata
        if members:
            cells = False if members[0].adata is None else members[0].adata
        _require_digest(directory / folder, digest)
        members.append(member_class.load(directory / folder, cells, **arguments))
    calibration, hierarchy = (
        decode(json.loads(metadata[name]), arrays) for name in ("calibration", "hierarchy")
    )
    return members, calibration, hierarchy


def _save_own(ensemble: SCTABEnsemble, path: Path, members: dict[str, str]) -> None:
    arrays: dict[str, Any] = {}
    metadata = {
        "format": _FORMAT,
        "version": version("scvi-sctab"),
        "members": json.dumps(members),
        **{k: json.dumps(v) for k, v in _own_content(ensemble, arrays).items()},
        "digest": ensemble.digest,
    }
    tensors = {name: from_numpy(array) for name, array in arrays.items()}
    write_checked(path, tensors, metadata)
    # safetensors writes files that only their owner can read; follow the user's umask instead.
    path.chmod((path.parent / next(iter(members)) / WEIGHTS_FILE).stat().st_mode)


def _own_content(ensemble: SCTABEnsemble, arrays: dict[str, Any]) -> dict[str, Any]:
    """Encode what belongs to all members."""
    return {
        "calibration": encode(ensemble.calibration_, arrays),
        "hierarchy": encode(ensemble.hierarchy_, arrays),
    }


def _members(metadata: dict[str, str]) -> dict[str, str | None]:
    """Return the folders of members with their digests, if these were saved."""
    if metadata["format"] == _UNCHECKED_FORMAT:
        return {f"member{number}": None for number in range(int(metadata["n_members"]))}
    members = json.loads(metadata["members"])
    for folder in members:
        # A name with slashes could lead out of the directory, and other files be removed.
        if not _FOLDER.fullmatch(folder):
            raise ValueError(f"{folder!r} is no name of a member's folder.")
    return members


def _require_digest(folder: Path, digest: str | None) -> None:
    """Refuse a member of another ensemble, or of another save of this one."""
    path = folder / WEIGHTS_FILE
    if digest is None or not path.exists():
        return
    if read_digest(path) != digest:
        raise ValueError(
            f"{folder} holds another model than the one that {ENSEMBLE_FILE} beside it names: "
            "members of two ensembles are mixed. Copy the whole directory again from where it was "
            "saved, or save the ensemble again."
        )


def _free_name(target: Path, name: str) -> str:
    """Find a name without a folder: old folders are needed until the new ones are complete."""
    names = (f"{name}-{n}" if n else name for n in count())
    return next(free for free in names if not (target / free).exists())


def _replace(target: Path, beside: Path, folders: list[str]) -> None:
    """Move new members to an ensemble's directory, list them, and remove the old ones."""
    flush(beside)
    journal = beside / JOURNAL_FILE
    journal.write_text(json.dumps([*_named(target / ENSEMBLE_FILE), *folders]))
    try:
        for folder in folders:
            (beside / folder).rename(target / folder)
        (beside / ENSEMBLE_FILE).replace(target / ENSEMBLE_FILE)
    finally:
        _remove_replaced(target, journal)


def _remove_replaced(target: Path, journal: Path) -> None:
    """Remove the members that a save wrote or replaced and that the ensemble does not list."""
    if not journal.exists():
        return
    try:
        written = json.loads(journal.read_text())
    except ValueError:
        written = []  # the process was killed while it wrote the journal, before any move
    for folder in set(written) - set(_named(target / ENSEMBLE_FILE)):
        for file in (WEIGHTS_FILE, PICKLE_FILE, ADATA_FILE):
            (target / folder / file).unlink(missing_ok=True)
        with suppress(OSError):  # the folder has other files, or was not moved
            (target / folder).rmdir()
    journal.unlink()


def _named(path: Path) -> list[str]:
    """List the folders of members in the file of an ensemble; none if missing or damaged."""
    try:
        return [*_members(read_checked(path, "an ensemble", _FORMAT, _UNCHECKED_FORMAT)[1])]
    except ValueError:
        return []
