"""Saving, loading and mapping of ensembles."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import replace
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
    resolve_target,
    temporary_folder,
    write_checked,
)
from scvi_sctab.model._sctab import SCTAB

if TYPE_CHECKING:
    from anndata import AnnData

_FORMAT = "scvi-sctab-ensemble-2"
_UNCHECKED_FORMAT = "scvi-sctab-ensemble-1"
_FOLDER = re.compile(r"member\d+-[0-9a-f]{8}(-\d+)?")


class EnsembleFilesMixin:
    """Saving, loading and mapping of an ensemble, with a directory per member."""

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData,
        reference_model: Any,
        *,
        policy: str | list[str] = "batch",
        learn_labels: bool = False,
        allow_pickle: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Map a query onto each member; see :meth:`SCTAB.load_query_data`.

        Parameters
        ----------
        adata
            Cells of the query.
        reference_model
            A trained ensemble, or the directory that one was saved to.
        policy, learn_labels, allow_pickle, **kwargs
            As in :meth:`SCTAB.load_query_data`, including ``layer`` and ``min_gene_overlap``.

        Returns
        -------
        An ensemble of query models.

        Raises
        ------
        TypeError
            If ``reference_model`` is not an ensemble.
        ValueError
            As in :meth:`SCTAB.load_query_data`.
        """
        if isinstance(reference_model, str | os.PathLike):
            reference_model = cls.load(reference_model, adata=False, allow_pickle=allow_pickle)
        if not isinstance(reference_model, cls):
            raise TypeError(
                f"The reference is a {type(reference_model).__name__}, not a {cls.__name__}."
            )
        members: list[SCTAB] = []
        for member in reference_model.members:
            # The first member aligns the genes; the others share its counts.
            query = members[0].adata if members else adata
            if members:
                kwargs.pop("layer", None)
            arguments = {"policy": policy, "learn_labels": learn_labels, **kwargs}
            members.append(SCTAB.load_query_data(query, member, **arguments))
            record = members[-1].query_record
            missing = members[0].query_record.missing_genes
            members[-1].query_record = replace(record, missing_genes=missing)
        ensemble = cls.from_members(members)
        ensemble.annotation = reference_model.annotation.for_labels(ensemble.labels)
        return ensemble

    def save(
        self, dir_path: str | os.PathLike, overwrite: bool = False, save_anndata: bool = False
    ) -> None:
        """Save all members, each in both formats of :meth:`SCTAB.save`, and the calibration.

        Members are written to new folders. The file that lists them is replaced last, so that
        after a killed process or on a full disk the directory has the old ensemble, never members
        of two ensembles.

        Parameters
        ----------
        dir_path
            Directory to save to; a link is followed.
        overwrite
            Whether to replace the ensemble in an existing directory; other files in it are kept.
        save_anndata
            Whether to save the AnnData as well, once.

        Raises
        ------
        ValueError
            If the directory exists and ``overwrite`` is not set.
        PermissionError
            If there is no permission to write to the directory.
        """
        target = resolve_target(dir_path, overwrite)
        for leftover in find_leftovers(target):
            _remove_replaced(target, leftover / JOURNAL_FILE)
        with temporary_folder(target) as beside:
            digests = {}
            for number, member in enumerate(self.members):
                digest = member.digest
                folder = _free_name(target, f"member{number}-{digest[:8]}")
                member.save(beside / folder, save_anndata=save_anndata and number == 0)
                digests[folder] = digest
            self._save_own(beside / ENSEMBLE_FILE, digests)
            if target.exists():
                _replace(target, beside, list(digests))
            else:
                move_files(beside, target)

    def _save_own(self, path: Path, members: dict[str, str]) -> None:
        arrays: dict[str, Any] = {}
        metadata = {
            "format": _FORMAT,
            "version": version("scvi-sctab"),
            "members": json.dumps(members),
            **{k: json.dumps(v) for k, v in self._own_content(arrays).items()},
            "digest": self.digest,
        }
        tensors = {name: from_numpy(array) for name, array in arrays.items()}
        write_checked(path, tensors, metadata)
        # safetensors writes files that only their owner can read; members have the user's umask.
        path.chmod((path.parent / next(iter(members)) / WEIGHTS_FILE).stat().st_mode)

    def _own_content(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Encode calibration and hierarchy of the ensemble."""
        return {
            "calibration": encode(self.calibration_, arrays),
            "hierarchy": encode(self.hierarchy_, arrays),
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the content of the ensemble; see :attr:`SCTAB.digest`."""
        arrays: dict[str, Any] = {}
        content = self._own_content(arrays)
        hashes = hash_tensors({name: from_numpy(array) for name, array in arrays.items()})
        members = [member.digest for member in self.members]
        return hash_json([type(self).__name__, members, content, hashes])

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike,
        adata: AnnData | str | Path | bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load an ensemble, without executing code from its files.

        Parameters
        ----------
        dir_path
            Directory that :meth:`save` wrote.
        adata, **kwargs
            As in :meth:`SCTAB.load`.

        Raises
        ------
        FileNotFoundError
            If there is no ensemble.
        ValueError
            If a file is damaged, or as in :meth:`SCTAB.load`.
        """
        directory = Path(dir_path)
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
            members.append(SCTAB.load(directory / folder, cells, **kwargs))
        ensemble = cls.from_members(members)
        ensemble.calibration_ = decode(json.loads(metadata["calibration"]), arrays)
        ensemble.hierarchy_ = decode(json.loads(metadata["hierarchy"]), arrays)
        return ensemble


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
