"""Save, load and map an ensemble."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import from_numpy

from scvi_sctab._constants import ENSEMBLE_FILE, WEIGHTS_FILE
from scvi_sctab.mixins import decode, encode
from scvi_sctab.model._sctab import SCTAB

if TYPE_CHECKING:
    from anndata import AnnData

_FORMAT = "scvi-sctab-ensemble-1"


class EnsembleFilesMixin:
    """A directory per member, and what belongs to all of them."""

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
            As of :meth:`SCTAB.load_query_data`.

        Returns
        -------
        An ensemble of the query.

        Raises
        ------
        TypeError
            If ``reference_model`` is no ensemble.
        ValueError
            As of :meth:`SCTAB.load_query_data`.
        """
        if isinstance(reference_model, str | os.PathLike):
            reference_model = cls.load(reference_model, adata=False, allow_pickle=allow_pickle)
        if not isinstance(reference_model, cls):
            raise TypeError(
                f"The reference is a {type(reference_model).__name__}, not a {cls.__name__}."
            )
        members: list[SCTAB] = []
        for member in reference_model.members:
            # The first one brings the genes into order; the others share its counts.
            query = members[0].adata if members else adata
            arguments = {"policy": policy, "learn_labels": learn_labels, **kwargs}
            members.append(SCTAB.load_query_data(query, member, **arguments))
            members[-1].surgery_["missing_genes"] = members[0].surgery_["missing_genes"]
        ensemble = cls.from_members(members)
        ensemble.calibration_ = reference_model.calibration_
        ensemble._adopt_ontology(reference_model)
        return ensemble

    def save(
        self, dir_path: str | os.PathLike, overwrite: bool = False, save_anndata: bool = False
    ) -> None:
        """Save all members, each in both forms of :meth:`SCTAB.save`, and the calibration.

        The directory is written beside and then moved, so that a killed run or a full disk leaves
        what was there.

        Parameters
        ----------
        dir_path
            Directory to save to.
        overwrite
            Whether to replace the directory of an ensemble.
        save_anndata
            Whether to save the AnnData, too, once.

        Raises
        ------
        ValueError
            If the directory exists and ``overwrite`` is not set, or it holds something else.
        """
        target = Path(dir_path)
        if target.exists() and not overwrite:
            raise ValueError(
                f"{target} already exists and was left as it is. Choose another directory, or "
                "pass overwrite=True."
            )
        if target.exists() and not (target / ENSEMBLE_FILE).exists():
            raise ValueError(f"{target} holds no ensemble and was left as it is.")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            new = beside / "new"
            for number, member in enumerate(self.members):
                member.save(new / _folder(number), save_anndata=save_anndata and number == 0)
            self._save_own(new / ENSEMBLE_FILE)
            old = beside / "old"
            if target.exists():
                target.rename(old)
            try:
                new.rename(target)
            except BaseException:
                if old.exists():
                    old.rename(target)
                raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _save_own(self, path: Path) -> None:
        arrays: dict[str, Any] = {}
        metadata = {
            "format": _FORMAT,
            "version": version("scvi-sctab"),
            "n_members": str(len(self.members)),
            "calibration": json.dumps(encode(self.calibration_, arrays)),
            "hierarchy": json.dumps(encode(self.hierarchy_, arrays)),
        }
        tensors = {name: from_numpy(array) for name, array in arrays.items()}
        save_file(tensors, str(path), metadata=metadata)
        # safetensors writes files that only their owner can read; follow the user's umask instead.
        path.chmod((path.parent / _folder(0) / WEIGHTS_FILE).stat().st_mode)

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike,
        adata: AnnData | str | Path | bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load an ensemble; nothing in its files is executed.

        Parameters
        ----------
        dir_path
            Directory that :meth:`save` wrote.
        adata, **kwargs
            As of :meth:`SCTAB.load`.

        Raises
        ------
        FileNotFoundError
            If there is no ensemble.
        ValueError
            If a file is damaged, or as of :meth:`SCTAB.load`.
        """
        directory = Path(dir_path)
        path = directory / ENSEMBLE_FILE
        if not path.exists():
            raise FileNotFoundError(
                f"There is no ensemble in {directory}: no {ENSEMBLE_FILE}. A single model is "
                "loaded by `SCTAB.load`."
            )
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not an ensemble or is damaged: {error}") from error
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{path} is of another kind, or of a newer version of the package.")
        members: list[SCTAB] = []
        for number in range(int(metadata["n_members"])):
            cells = adata
            if members:
                cells = False if members[0].adata is None else members[0].adata
            members.append(SCTAB.load(directory / _folder(number), cells, **kwargs))
        ensemble = cls.from_members(members)
        ensemble.calibration_ = decode(json.loads(metadata["calibration"]), arrays)
        ensemble.hierarchy_ = decode(json.loads(metadata["hierarchy"]), arrays)
        return ensemble


def _folder(number: int) -> str:
    return f"member{number}"
