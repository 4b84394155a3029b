"""Models that are trained again from the start on a part of the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from scvi_sctab.data import check_labels_unchanged
from scvi_sctab.model._few_labels import has_trained_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from scvi_sctab.model._sctab import SCTAB

# Arguments of `train` that say which cells to train on, or where its state is.
_OWN_ARGUMENTS = (
    "train_size",
    "validation_size",
    "shuffle_set_split",
    "datamodule",
    "checkpoint_dir",
    "resume",
)


def check_siblings(model: SCTAB, train_kwargs: Mapping[str, Any], part: str) -> None:
    """Refuse models of which a copy cannot be trained from the start, without the labels of a part.

    If another model was set up on the cells since, they are registered again as for this one.

    Parameters
    ----------
    model
        The model.
    train_kwargs
        Arguments of ``train``.
    part
        What is left out in turn, for messages: ``"study"``.

    Raises
    ------
    TypeError
        If an argument of the split or of checkpoints is given.
    ValueError
        If the model has no cells, labels have changed since it was set up, it is one of a query, or
        its encoder was trained before.
    """
    taken = [name for name in _OWN_ARGUMENTS if name in train_kwargs]
    if taken:
        raise TypeError(
            f"{', '.join(taken)}: cells and checkpoints are those of the model. Leave these out."
        )
    obstacle = find_obstacle(model, part)
    if obstacle is not None:
        raise ValueError(obstacle)
    check_labels_unchanged(model.adata_manager)
    model._renew_registration()


def find_obstacle(model: SCTAB, part: str) -> str | None:
    """Return why a model cannot be trained from the start without a part, or ``None``.

    Parameters
    ----------
    model, part
        As of :func:`check_siblings`.
    """
    if model.adata is None:
        return (
            "The cells of this model are not here: load it with them, `SCTAB.load(path, adata)`."
        )
    if model.query_record is not None:
        return f"A query model cannot be trained without a {part} of the reference."
    if has_trained_encoder(model) or not model.module.reads_genes:
        return (
            f"The encoder of this model was trained before, on every {part}, so that none can be "
            f"left out. Train both without a {part}, and ask that model about its cells."
        )
    return None


def train_sibling(
    model: SCTAB,
    trained: NDArray[np.intp],
    checked: NDArray[np.intp],
    train_kwargs: Mapping[str, Any],
) -> SCTAB:
    """Train a model of the same cells and arguments from the start on some of the cells.

    Parameters
    ----------
    model
        The model; it is left as it is.
    trained, checked
        Positions of cells to train on, and of those to choose the best epoch by.
    train_kwargs
        Arguments of ``train``.
    """
    arguments = {**model.init_params_["non_kwargs"], "coarse_labels": model.coarse_labels}
    sibling: SCTAB = model._build_again(**arguments)
    own_split = {"external_indexing": [trained, checked, np.zeros(0, np.intp)]}
    further = train_kwargs.get("datasplitter_kwargs") or {}
    sibling.train(**{**train_kwargs, "datasplitter_kwargs": {**further, **own_split}})
    return sibling


def without_batches(model: SCTAB) -> AnnData:
    """Return the model's cells as those of a new laboratory, whose batches no model knows.

    Parameters
    ----------
    model
        The model.
    """
    adata, layer = model.adata, model.layer
    return AnnData(
        adata.X if layer is None else None,
        obs=adata.obs.drop(columns=[condition.key for condition in model.conditions]),
        var=adata.var,
        layers=None if layer is None else {layer: adata.layers[layer]},
    )
