"""Import of the encoders that Richter et al. published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from scvi_sctab._messages import warn
from scvi_sctab.base import EncoderModel, read_checkpoint, registry_without_cells

# Prefixes of the encoder's weights by pretext task; Barlow Twins has two kinds of files.
_PREFIXES = {
    "MaskedAutoencoder": ("encoder.",),
    "BarlowTwins": ("backbone.", "barlow_twins.backbone."),
    "BYOL": ("byol.online_encoder.net.",),
}
_TARGET = "byol.target_encoder.net."
_BEST = "best_checkpoint_val.ckpt"
# Each linear layer is followed by SELU and dropout.
_STRIDE = 3


class PublishedEncoderMixin(EncoderModel):
    """Models from the checkpoints of ssl_in_scg."""

    _pretext: ClassVar[str]
    """Key of ``_PREFIXES``."""

    @classmethod
    def from_ssl_in_scg_checkpoint(
        cls, path: str | os.PathLike[str], var_names: Sequence[str]
    ) -> Any:
        """Import a published encoder :cite:p:`Richter24`; none of its pickled code is executed.

        For ``TillR/sc_pretrained`` at Hugging Face, and for checkpoints that ssl_in_scg writes in
        training. Only the encoder is imported; decoder, projector and predictor are initialised.
        To train it further, align cells with its genes: :meth:`load_query_data`.

        NOTE[DIFF] The decoder of a masked autoencoder is not imported, since its sigmoid cannot
        exceed 1. Train the model before you reconstruct. NOTE[DIFF] The last layer of the
        published BYOL was not trained, as its projector reads the layer before; its target, which
        was never updated, is not imported.

        Parameters
        ----------
        path
            A ``.ckpt`` file, or the directory of a run with ``best_checkpoint_val.ckpt``.
        var_names
            Genes in the order of the checkpoint: ``feature_id`` of the published ``var.parquet``
            for Ensembl ids, or ``feature_name`` for symbols.

        Returns
        -------
        A trained model without an AnnData, to embed cells, or for
        :meth:`scvi_sctab.SCTAB.from_pretrained`.

        Raises
        ------
        FileNotFoundError
            If there is no checkpoint.
        ValueError
            If the file is damaged, is not a checkpoint of this pretext task, has more than tensors
            and settings, or does not match ``var_names``.

        Warns
        -----
        UserWarning
            If the last layer of BYOL's encoder was not trained.

        Examples
        --------
        >>> import pandas as pd
        >>> from scvi_sctab import SCTAB
        >>> from scvi_sctab.pretrain import MaskedAutoencoder
        >>> genes = pd.read_parquet("var.parquet").feature_id  # doctest: +SKIP
        >>> encoder = MaskedAutoencoder.from_ssl_in_scg_checkpoint(
        ...     "RandomMask.ckpt", genes
        ... )  # doctest: +SKIP
        >>> SCTAB.from_pretrained(encoder, "cell_type", adata=adata)  # doctest: +SKIP
        """
        path = _find_checkpoint(Path(path))
        state = _read_state(path)
        layers = _encoder_layers(state, cls._pretext, path)
        weights = [tensor for name, tensor in layers.items() if name.endswith(".weight")]
        n_genes = weights[0].shape[1]
        if len(var_names) != n_genes:
            raise ValueError(
                f"{path} has {n_genes:,} genes, but {len(var_names):,} var_names were given."
            )
        if cls._pretext == "BYOL":
            _warn_untrained(state, layers)
        arguments = {"layer": None}
        registry = registry_without_cells(
            cls.__name__, cls._fields(**arguments), arguments, var_names
        )
        model = cls(registry=registry, encoder="selu", widths=tuple(len(w) for w in weights))
        model._take_encoder({f"layers.{name}": tensor for name, tensor in layers.items()})
        model.module.eval()
        model.is_trained_ = True
        return model

    def _take_encoder(self, weights: dict[str, Tensor]) -> None:
        """Give the encoder these weights."""
        self.module.encoder.load_state_dict(weights)


def _find_checkpoint(path: Path) -> Path:
    """Return the file itself, or the best checkpoint in the directory of a run."""
    file = path / _BEST if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    return file


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, alone or in a checkpoint of Lightning."""
    checkpoint = read_checkpoint(path)
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path} is not a checkpoint: it holds a {type(checkpoint).__name__}.")
    return state


def _encoder_layers(state: dict[str, Tensor], kind: str, path: Path) -> dict[str, Tensor]:
    """Return weights and biases of the encoder in order, after a check that it is an MLP."""
    prefix = _prefix(state, kind)
    if prefix is None:
        raise ValueError(f"{path} is not a checkpoint of {kind}: it {_describe(state)}.")
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    positions = range(0, _STRIDE * (len(found) // 2), _STRIDE)
    expected = [f"{i}.{part}" for i in positions for part in ("weight", "bias")]
    if set(found) != set(expected) or not _is_chain([found[name] for name in expected]):
        shapes = {f"{prefix}{name}": tuple(getattr(t, "shape", ())) for name, t in found.items()}
        raise ValueError(
            f"{path} is damaged or of another network: an encoder has linear layers, each followed "
            f"by SELU and dropout but the last, not {shapes}."
        )
    return {name: found[name] for name in expected}


def _is_chain(tensors: list[Tensor]) -> bool:
    """Return whether alternating weights and biases are finite, with matching shapes."""
    if not all(isinstance(t, Tensor) and t.is_floating_point() for t in tensors):
        return False
    weights, biases = tensors[::2], tensors[1::2]
    return (
        all(w.ndim == 2 and b.shape == w.shape[:1] for w, b in zip(weights, biases, strict=True))
        and all(b.shape[1] == len(a) for a, b in zip(weights, weights[1:], strict=False))
        and all(bool(t.isfinite().all()) for t in tensors)
    )


def _prefix(state: dict[str, Tensor], kind: str) -> str | None:
    """Find the prefix of the names of the encoder's weights, if there are any."""
    found = (p for p in _PREFIXES[kind] if any(name.startswith(p) for name in state))
    return next(found, None)


def _describe(state: dict[str, Tensor]) -> str:
    """Describe a checkpoint of another kind, for the error message."""
    for kind in _PREFIXES:
        if _prefix(state, kind):
            return f"is one of {kind}; take `{kind}.from_ssl_in_scg_checkpoint`"
    if any(name.startswith("classifier.encoder.") for name in state):
        return "is scTab's; take `SCTAB.from_sctab_checkpoint`"
    if any(name.startswith("classifier.") for name in state):
        return "is a classifier's, whose layers have another activation than those of an encoder"
    return f"has {sorted(state)[:3]}"


def _warn_untrained(state: dict[str, Tensor], layers: dict[str, Tensor]) -> None:
    """Warn if the last layer still has the initial weights, which the target has, too."""
    last = [name for name in layers if name.endswith(".weight")][-1]
    target = state.get(f"{_TARGET}{last}")
    if target is None or torch.equal(target, layers[last]):
        warn(
            "The last layer of this BYOL encoder never learnt: its embedding is a random "
            f"projection of the {layers[last].shape[1]} units before, which did."
        )
