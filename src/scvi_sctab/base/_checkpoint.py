"""Saving and loading of models, in a format without code and in that of scvi-tools."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import torch

from scvi_sctab._constants import (
    ADATA_FILE,
    DONOR_KEY,
    ENSEMBLE_FILE,
    PICKLE_FILE,
    WEIGHTS_FILE,
)
from scvi_sctab.base._devices import is_other_process
from scvi_sctab.base._digest import hash_json, hash_tensors, read_checked, write_checked
from scvi_sctab.base._files import move_files, resolve_target, temporary_folder
from scvi_sctab.base._host import NOTES_OF_HOST, HostModel, arguments_of, choose_device
from scvi_sctab.base._loaded_cells import bring_cells, find_anndata
from scvi_sctab.base._serialization import decode, encode

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

_FORMAT = "scvi-sctab-2"
# Earlier format, without a checksum. It differs in two bits, so that damage of one bit cannot turn
# the new format into it.
_UNCHECKED_FORMAT = "scvi-sctab-1"
_WEIGHT = "module."


class CheckpointMixin(HostModel):
    """Saving and loading of a model."""

    def save(
        self,
        dir_path: str | os.PathLike[str],
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the model in two formats.

        ``model.safetensors`` is read by :meth:`load` and has weights, genes, labels, settings
        and history without any code, and a checksum of them. ``model.pt`` is the format of
        scvi-tools, for its hub and tools. Files are written to a temporary folder and then moved,
        so that a killed process or a full disk does not damage existing files. After a training on
        several devices, the first process saves, and the others return.

        Parameters
        ----------
        dir_path
            Directory to save to; a link is followed.
        prefix
            Prefix of the names of the files.
        overwrite
            Whether to replace files of an existing directory; other files in it are kept.
        save_anndata
            Whether to save the AnnData as well.
        **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.save`.

        Raises
        ------
        ValueError
            If the directory exists and ``overwrite`` is not set, or there is no AnnData to save.
        PermissionError
            If there is no permission to write to the directory.
        """
        if save_anndata and self.adata is None:
            raise ValueError(
                "This model has no AnnData to save: leave out `save_anndata=True`, or load the "
                f"model with its cells, `{type(self).__name__}.load(path, adata)`."
            )
        if is_other_process():
            return
        target = resolve_target(dir_path, overwrite)
        with temporary_folder(target) as beside:
            super().save(
                str(beside), prefix=prefix, overwrite=True, save_anndata=save_anndata, **kwargs
            )
            self._save_safely(beside / f"{prefix or ''}{WEIGHTS_FILE}", save_anndata)
            move_files(beside, target)

    def _save_safely(self, path: Path, save_anndata: bool) -> None:
        arrays: dict[str, Any] = {}
        attributes = dict(self._get_user_attributes())
        encoded = encode({k: v for k, v in attributes.items() if k != "registry_"}, arrays)
        registry = encode(_plain(self.registry), arrays)
        weights, aliases = _without_aliases(self.module.state_dict())
        tensors = {_WEIGHT + name: tensor for name, tensor in weights.items()}
        tensors |= {name: torch.from_numpy(array) for name, array in arrays.items()}
        metadata = {
            "format": _FORMAT,
            "class": type(self).__name__,
            "version": version("scvi-sctab"),
            # An AnnData in the folder may be that of an earlier model, or a file of the user.
            "anndata": json.dumps(save_anndata),
            "attributes": json.dumps(encoded),
            "registry": json.dumps(registry),
            "aliases": json.dumps(aliases),
            "digest": self.digest,
        }
        write_checked(path, tensors, metadata)
        # safetensors writes files that only their owner can read; `model.pt` has the user's umask.
        path.chmod(path.with_name(path.name.replace(WEIGHTS_FILE, PICKLE_FILE)).stat().st_mode)

    @property
    def digest(self) -> str:
        """SHA-256 of the content of the model, which identifies it in reports.

        The digest covers weights, genes, labels, batches, settings, history and calibration, but
        not place and time of training or saving, nor the cells. It is computed at each call, and
        saved with the model.
        """
        arrays: dict[str, Any] = {}
        attributes = {
            name: value
            for name, value in self._get_user_attributes()
            if name not in NOTES_OF_HOST and value is not None
        }
        content = encode([attributes, _content_of_registry(self.registry)], arrays)
        weights, aliases = _without_aliases(self.module.state_dict())
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        hashes = [hash_tensors(weights), hash_tensors(tensors)]
        return hash_json([type(self).__name__, content, *hashes, aliases])

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike[str],
        adata: AnnData | str | Path | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        *,
        allow_pickle: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a model; reading ``model.safetensors`` does not execute code.

        Parameters
        ----------
        dir_path
            Directory that :meth:`save` wrote.
        adata
            AnnData for further training, or its path; not needed to predict. Genes are matched by
            name; if they differ from those of the model, or in their order, ``model.adata`` is a
            copy. For a query model, give the cells that :meth:`load_query_data` was given; labels
            that the model does not know count as missing. ``None`` uses the AnnData saved with
            the model, if any; ``False`` uses none.
        accelerator, device
            Device of the model.
        prefix
            Prefix of the names of the files.
        allow_pickle
            Whether to read ``model.pt`` if there is no other file. It may execute any code: allow
            this only for files that you trust.
        **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.load` with ``allow_pickle``.

        Raises
        ------
        FileNotFoundError
            If there is no model.
        ValueError
            If the file is not a model or is damaged, there is only ``model.pt`` and
            ``allow_pickle`` is not set, ``adata`` lacks genes of the model or has batches that it
            does not know, or has labels that a model other than a query model does not know.
        """
        directory = Path(dir_path)
        path = directory / f"{prefix or ''}{WEIGHTS_FILE}"
        if not path.exists():
            pickle_path = directory / f"{prefix or ''}{PICKLE_FILE}"
            _require_pickle(pickle_path, path.name, allow_pickle)
            _require_whole(pickle_path)
            return super().load(
                str(directory),
                adata,
                accelerator,
                device,
                prefix=prefix,
                **{"allowed_classes_names_list": cls._names(), **kwargs},
            )
        if kwargs:
            raise TypeError(f"load() has no arguments {sorted(kwargs)} without allow_pickle=True.")
        weights, attributes, registry, with_anndata = _read_safely(path, cls._names())
        if adata is None and not with_anndata:
            adata = False
        adata = find_anndata(adata, directory / f"{prefix or ''}{ADATA_FILE}")
        if adata is not None:
            adata = bring_cells(adata, registry, attributes.get("surgery_"), cls)
            cls.setup_anndata(
                adata,
                source_registry=registry,
                allow_missing_labels=True,
                extend_categories=True,
                **registry["setup_args"],
            )
        arguments = arguments_of(attributes.pop("init_params_"))
        model = cls(adata, registry=registry, **arguments)
        for name, value in attributes.items():
            setattr(model, name, value)
        model.module.load_state_dict(weights)
        model.to_device(choose_device(accelerator, device))
        model.module.eval()
        if adata is not None:
            model._find_indices()
        return model

    def _find_indices(self) -> None:
        """Find the training and held-out cells among those that the model was loaded with."""

    @classmethod
    def _load_reference(
        cls,
        reference_model: Any,
        allow_pickle: bool,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Any:
        """Check a reference model, or load it from its path to a device."""
        if reference_model is None:
            raise ValueError("Give a reference: a trained model, or the path of a saved one.")
        if isinstance(reference_model, str | os.PathLike):
            return cls.load(reference_model, False, accelerator, device, allow_pickle=allow_pickle)
        # A model of a parent class is accepted, as its files are.
        is_parent = isinstance(reference_model, HostModel) and type(reference_model) in cls.__mro__
        if not is_parent and not isinstance(reference_model, cls):
            raise TypeError(
                f"The reference is a {type(reference_model).__name__}, not a {cls.__name__}."
            )
        reference_model._require_trained()
        return reference_model


def _require_pickle(pickle_path: Path, safe_name: str, allowed: bool) -> None:
    """Raise an error if there is no ``model.pt`` either, or reading it is not allowed."""
    directory = pickle_path.parent
    if not pickle_path.exists():
        hint = "`model.save(path)` writes both."
        if (directory / ENSEMBLE_FILE).exists():
            hint = "It holds an ensemble: `SCTABEnsemble.load(path)`."
        raise FileNotFoundError(
            f"There is no model in {directory}: neither {safe_name} nor {pickle_path.name}. {hint}"
        )
    if not allowed:
        raise ValueError(
            f"{directory} has no {safe_name}, only {pickle_path.name}, which runs code "
            "when loaded. If you trust it, pass allow_pickle=True and save it again."
        )


def _require_whole(pickle_path: Path) -> None:
    """Raise an error if a file of torch is damaged: it is an archive with a checksum of each part."""
    try:
        with ZipFile(pickle_path) as archive:
            damaged = archive.testzip()
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        damaged = str(error)
    if damaged is not None:
        raise ValueError(
            f"{pickle_path} is not a model or is damaged: {damaged}. Copy it again from where it "
            "was saved."
        )


def read_digest(path: Path) -> str | None:
    """Read the digest that a model was saved with.

    Parameters
    ----------
    path
        A file of :meth:`CheckpointMixin.save`.

    Returns
    -------
    The digest; ``None`` if the file is of a version without digests.

    Raises
    ------
    ValueError
        If the file is damaged or is not a model.
    """
    return read_checked(path, "a model", _FORMAT, _UNCHECKED_FORMAT)[1].get("digest")


def _read_safely(
    path: Path, names: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any], bool]:
    """Read weights, attributes, registry, and whether the AnnData was saved, too."""
    tensors, metadata = read_checked(path, "a model", _FORMAT, _UNCHECKED_FORMAT)
    if metadata["class"] not in names:
        raise ValueError(f"{path} holds a {metadata['class']}, not a {names[0]}.")
    arrays = {k: v.numpy() for k, v in tensors.items() if not k.startswith(_WEIGHT)}
    weights = {k.removeprefix(_WEIGHT): v for k, v in tensors.items() if k.startswith(_WEIGHT)}
    weights |= {alias: weights[name] for alias, name in json.loads(metadata["aliases"]).items()}
    attributes = decode(json.loads(metadata["attributes"]), arrays)
    registry = decode(json.loads(metadata["registry"]), arrays)
    return weights, attributes, registry, json.loads(metadata["anndata"])


def _without_aliases(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a state dict into distinct tensors, and names that share one of them."""
    owner: dict[int, str] = {}
    weights, aliases = {}, {}
    for name, tensor in state.items():
        first = owner.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
        if first == name:
            weights[name] = tensor.detach().cpu().contiguous()
        else:
            aliases[name] = first
    return weights, aliases


def _plain(value: Any) -> Any:
    """Convert attribute dictionaries of scvi-tools to plain ones."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _content_of_registry(registry: dict[str, Any]) -> dict[str, Any]:
    """Select the entries of a registry that do not depend on the cells or on scvi-tools."""
    states = {
        key: {k: v for k, v in field["state_registry"].items() if k != "n_obs"}
        for key, field in registry["field_registries"].items()
        if key != DONOR_KEY
    }
    return {"setup_args": _plain(registry["setup_args"]), "fields": _plain(states)}
