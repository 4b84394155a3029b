"""Save and load: the host's format, and a form that executes nothing when loaded."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import torch
from anndata import AnnData, read_h5ad
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scvi.model._utils import parse_device_args

from scvi_sctab._constants import ADATA_FILE, PICKLE_FILE, WEIGHTS_FILE
from scvi_sctab.data import (
    condition_codes,
    list_names,
    registered_conditions,
    strip_versions,
)
from scvi_sctab.mixins._serialization import decode, encode

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = "scvi-sctab-1"
_WEIGHT = "module."


class CheckpointMixin:
    """Files of a model."""

    def save(
        self,
        dir_path: str | os.PathLike,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the model in two forms.

        ``model.safetensors`` is read by :meth:`load` and holds weights, genes, labels, settings
        and history without any code. ``model.pt`` is scvi-tools' own format, for its hub and
        tools. Files are written beside and then moved, so that a killed run or a full disk
        leaves what was there.

        Parameters
        ----------
        dir_path
            Directory to save to.
        prefix
            Put before the names of the files.
        overwrite
            Whether to replace files of an existing directory; other files in it stay.
        save_anndata
            Whether to save the AnnData, too.
        **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.save`.

        Raises
        ------
        ValueError
            If the directory exists and ``overwrite`` is not set.
        """
        target = Path(dir_path)
        if target.exists() and not (overwrite and target.is_dir()):
            raise ValueError(
                f"{target} already exists and was left as it is. Choose another directory, or "
                "pass overwrite=True."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            super().save(
                str(beside), prefix=prefix, overwrite=True, save_anndata=save_anndata, **kwargs
            )
            self._save_safely(beside / f"{prefix or ''}{WEIGHTS_FILE}", save_anndata)
            target.mkdir(exist_ok=True)
            for file in sorted(beside.iterdir()):
                file.replace(target / file.name)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _save_safely(self, path: Path, save_anndata: bool) -> None:
        attributes = {k: v for k, v in self._get_user_attributes() if k.endswith("_")}
        arrays: dict[str, Any] = {}
        encoded = encode({k: v for k, v in attributes.items() if k != "registry_"}, arrays)
        registry = encode(_plain(self.registry), arrays)
        weights, aliases = _without_aliases(self.module.state_dict())
        tensors = {_WEIGHT + name: tensor for name, tensor in weights.items()}
        tensors |= {name: torch.from_numpy(array) for name, array in arrays.items()}
        metadata = {
            "format": _FORMAT,
            "class": type(self).__name__,
            "version": version("scvi-sctab"),
            # An AnnData that lies beside may be that of an earlier model, or the user's own.
            "anndata": json.dumps(save_anndata),
            "attributes": json.dumps(encoded),
            "registry": json.dumps(registry),
            "aliases": json.dumps(aliases),
        }
        save_file(tensors, str(path), metadata=metadata)
        # safetensors writes files that only their owner can read; follow the user's umask instead.
        path.chmod(path.with_name(path.name.replace(WEIGHTS_FILE, PICKLE_FILE)).stat().st_mode)

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike,
        adata: AnnData | str | Path | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        *,
        allow_pickle: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a model; its safe form executes nothing.

        Parameters
        ----------
        dir_path
            Directory that :meth:`save` wrote.
        adata
            AnnData to go on training with, or its path, with the genes of the model in their
            order. Not needed to predict. ``None`` takes the one saved with the model, if any;
            ``False`` none.
        accelerator, device
            Where to put the model.
        prefix
            Prefix of the names of the files.
        allow_pickle
            Whether to fall back on ``model.pt``. Loading it runs any code that was put in it: do
            so only with files that you trust.
        **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.load` with ``allow_pickle``.

        Raises
        ------
        FileNotFoundError
            If there is no model.
        ValueError
            If the file is not a model or is damaged, or only ``model.pt`` is there and
            ``allow_pickle`` is not set, or the genes of ``adata`` are not the model's, or its
            batches unknown to the model.
        """
        directory = Path(dir_path)
        path = directory / f"{prefix or ''}{WEIGHTS_FILE}"
        if not path.exists():
            pickle_path = directory / f"{prefix or ''}{PICKLE_FILE}"
            if not pickle_path.exists():
                raise FileNotFoundError(
                    f"There is no model in {directory}: neither {path.name} nor "
                    f"{pickle_path.name}. `model.save(path)` writes both."
                )
            if not allow_pickle:
                raise ValueError(
                    f"{directory} has no {path.name}, only {pickle_path.name}, which runs code "
                    "when loaded. If you trust it, pass allow_pickle=True and save it again."
                )
            return super().load(
                str(directory), adata, accelerator, device, prefix=prefix, **kwargs
            )
        if kwargs:
            raise TypeError(f"load() has no arguments {sorted(kwargs)} without allow_pickle=True.")
        weights, attributes, registry, with_anndata = _read_safely(path, cls.__name__)
        if adata is None and not with_anndata:
            adata = False
        adata = _find_anndata(adata, directory / f"{prefix or ''}{ADATA_FILE}")
        if adata is not None:
            _require_genes(adata, registry, cls.__name__)
            _require_batches(adata, registry, cls)
            cls.setup_anndata(
                adata,
                source_registry=registry,
                allow_missing_labels=True,
                extend_categories=True,
                **registry["setup_args"],
            )
        init_params = attributes.pop("init_params_")
        overrides = {k: v for part in init_params["kwargs"].values() for k, v in part.items()}
        model = cls(adata, registry=registry, **init_params["non_kwargs"], **overrides)
        for name, value in attributes.items():
            setattr(model, name, value)
        model.module.load_state_dict(weights)
        *_, torch_device = parse_device_args(accelerator, device, return_device="torch")
        model.to_device(torch_device)
        model.module.eval()
        return model

    @classmethod
    def _load_reference(cls, reference_model: Any, allow_pickle: bool) -> Any:
        """Return a trained model, or load it."""
        if reference_model is None:
            raise ValueError("Give a reference: a trained model, or the path of a saved one.")
        if isinstance(reference_model, str | os.PathLike):
            return cls.load(reference_model, adata=False, allow_pickle=allow_pickle)
        if type(reference_model).__name__ != cls.__name__:
            raise TypeError(
                f"The reference is a {type(reference_model).__name__}, not a {cls.__name__}."
            )
        reference_model._require_trained()
        return reference_model


def _find_anndata(adata: AnnData | str | Path | bool | None, saved: Path) -> AnnData | None:
    """Resolve what ``load`` was given."""
    if adata is None:
        return read_h5ad(saved) if saved.exists() else None
    if adata is False:
        return None
    if isinstance(adata, str | Path):
        return read_h5ad(adata)
    if not isinstance(adata, AnnData):
        raise TypeError(f"adata must be an AnnData, a path, None or False, not {adata!r}.")
    return adata


def _read_safely(path: Path, class_name: str) -> tuple[dict[str, Tensor], dict, dict, bool]:
    """Read weights, attributes, registry, and whether the AnnData was saved, too."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except PermissionError:
        raise
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a model or is damaged: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a model of this package, or of a newer version of it.")
    if metadata["class"] != class_name:
        raise ValueError(f"{path} holds a {metadata['class']}, not a {class_name}.")
    arrays = {k: v.numpy() for k, v in tensors.items() if not k.startswith(_WEIGHT)}
    weights = {k.removeprefix(_WEIGHT): v for k, v in tensors.items() if k.startswith(_WEIGHT)}
    weights |= {alias: weights[name] for alias, name in json.loads(metadata["aliases"]).items()}
    attributes = decode(json.loads(metadata["attributes"]), arrays)
    registry = decode(json.loads(metadata["registry"]), arrays)
    return weights, attributes, registry, json.loads(metadata["anndata"])


def _without_aliases(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a state dict into tensors of their own and names that share one."""
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
    """Turn the host's attribute dictionaries into plain ones."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _require_genes(adata: AnnData, registry: dict, model: str) -> None:
    expected = registry["field_registries"]["X"]["state_registry"]["column_names"]
    if list(strip_versions(adata.var_names)) != list(strip_versions(expected)):
        raise ValueError(
            "The genes of `adata` are not those of the model in their order. To predict, load "
            f"without it, `{model}.load(path, adata=False)`: cells given later are matched by name. "
            f"To train on, bring it to them: `{model}.prepare_query_anndata(adata, path)`."
        )


def _require_batches(adata: AnnData, registry: dict, cls: type) -> None:
    """Stop at batches for which the network has no row."""
    model = cls.__name__
    mapping = (
        f"Map these cells, `{model}.load_query_data(adata, path)`; to"
        if hasattr(cls, "load_query_data")
        else "To"
    )
    for condition in registered_conditions(registry):
        unknown = condition_codes([condition], adata.obs).ravel() < 0
        if unknown.any():
            values = (
                adata.obs[condition.key].astype(str)[unknown].unique()
                if condition.key in adata.obs
                else []
            )
            raise ValueError(
                f"`adata.obs[{condition.key!r}]` is missing or holds values that the model does not "
                f"know: {list_names(values)}. {mapping} predict alone, load without them, `{model}.load(path, adata=False)`."
            )
