"""Import of the checkpoints that scTab published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scvi_sctab._constants import UNLABELED_CATEGORY
from scvi_sctab._messages import warn
from scvi_sctab.base import read_checkpoint, registry_without_cells

if TYPE_CHECKING:
    from torch import Tensor

    from scvi_sctab.model._sctab import SCTAB

_PREFIX = "classifier."
_SCORE = re.compile(r"val_f1_macro=(\d+\.\d+)")
_SHARED = re.compile(r"\.shared\.(?:shared_layers\.(\d+)|glu_layers\.(\d+)\.fc)\.weight$")
# Hyperparameters that do not follow from shapes; read from the record in the checkpoint.
_RECORDED = ("gamma", "epsilon", "virtual_batch_size", "momentum", "mask_type")


def load_published(
    cls: type[SCTAB], path: Path, var_names: Sequence[str], labels: Sequence[str]
) -> SCTAB:
    """Build a model with the weights of a published checkpoint.

    Parameters
    ----------
    cls
        Class of the model to build.
    path, var_names, labels
        As of :meth:`scvi_sctab.SCTAB.from_sctab_checkpoint`.
    """
    path = find_checkpoint(path)
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a Lightning checkpoint: it has no state_dict.")
    state = network_state(checkpoint, path)
    hyperparameters = read_hyperparameters(state, checkpoint.get("hyper_parameters", {}))
    n_labels, n_genes = (
        len(state["final_mapping.weight"]),
        len(state["encoder.initial_bn.weight"]),
    )
    if len(var_names) != n_genes or len(labels) != n_labels:
        raise ValueError(
            f"{path} has {n_genes:,} genes and {n_labels:,} labels, but {len(var_names):,} "
            f"var_names and {len(labels):,} labels were given."
        )
    model = cls(registry=make_registry(cls, var_names, labels), preset="paper", **hyperparameters)
    position = {label: i for i, label in enumerate(map(str, labels))}
    order = torch.tensor([position[label] for label in model.labels])
    state["final_mapping.weight"] = state["final_mapping.weight"][order]
    model.module.load_state_dict(state)
    model.module.eval()
    model.is_trained_ = True
    return model


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint of a run with the best macro F1, the first by name if equal."""
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"There is no file or directory {path}.")
    scores = {
        file: float(match[1])
        for file in sorted(path.glob("*.ckpt"))
        if (match := _SCORE.search(file.name))
    }
    if not scores:
        raise FileNotFoundError(f"There is no checkpoint `val_f1_macro_epoch=...ckpt` in {path}.")
    return max(scores, key=lambda file: scores[file])


def network_state(checkpoint: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the state dict of the network, after a check that aliases have the same weights."""
    state = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(_PREFIX)
    }
    if "encoder.initial_bn.weight" not in state or "final_mapping.weight" not in state:
        raise ValueError(
            f"{path} is not a checkpoint of scTab's TabNet: it has {sorted(state)[:3]}."
        )
    shared: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = _SHARED.search(name)
        if match and not torch.equal(tensor, shared.setdefault(match[1] or match[2], tensor)):
            raise ValueError(f"{path} is damaged: shared weights differ at {name}.")
    return state


def read_hyperparameters(state: dict[str, Tensor], recorded: dict[str, Any]) -> dict[str, Any]:
    """Read hyperparameters from shapes, and the others from the record in the checkpoint."""

    def count(pattern: str) -> int:
        return len({m[1] for name in state if (m := re.match(pattern, name))})

    hyperparameters = {
        "n_d": state["final_mapping.weight"].shape[1],
        "n_a": state["encoder.att_transformers.0.fc.weight"].shape[1],
        "n_steps": count(r"encoder\.att_transformers\.(\d+)\."),
        "n_shared": count(r"encoder\.initial_splitter\.shared\.glu_layers\.(\d+)\."),
        "n_independent": count(r"encoder\.initial_splitter\.specifics\.glu_layers\.(\d+)\."),
    }
    unrecorded = [key for key in _RECORDED if key not in recorded]
    if unrecorded:
        warn(
            f"The checkpoint does not record {unrecorded}; the published values are taken. If it "
            "was trained with others, its predictions will be wrong."
        )
    return hyperparameters | {key: recorded[key] for key in _RECORDED if key in recorded}


def make_registry(cls: Any, var_names: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Build the registry of a reference with these genes and labels, without its cells."""
    names = pd.Index(labels).astype(str)
    if names.has_duplicates:
        raise ValueError(f"Labels are duplicated: {list(names[names.duplicated()])}.")
    unlabeled = UNLABELED_CATEGORY
    while unlabeled in names:
        unlabeled = f"_{unlabeled}"
    # scvi-tools warns about labels with fewer than three cells.
    column = np.repeat(names.to_numpy(), 3)
    obs = pd.DataFrame({"cell_type": column}, index=np.arange(len(column)).astype(str))
    arguments = {
        "layer": None,
        "labels_key": "cell_type",
        "unlabeled_category": unlabeled,
    }
    return registry_without_cells(
        cls.__name__, cls._fields(**arguments), arguments, var_names, obs
    )
