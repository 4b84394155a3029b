"""Mapping of cells with new batches onto a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from scvi_sctab.data import check_anndata, check_query_conditions, name_as_known, name_values
from scvi_sctab.external.svae._adapt import align_screen
from scvi_sctab.external.svae._records import SurgeryRecord
from scvi_sctab.nn import GradientMask

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from scvi_sctab.external.svae._model import SpikeSlabVAE
    from scvi_sctab.external.svae._module import SpikeSlabModule


def map_query(
    cls: type[SpikeSlabVAE],
    reference: SpikeSlabVAE,
    adata: AnnData,
    layer: str | None,
    min_gene_overlap: float,
) -> SpikeSlabVAE:
    """Build a query model: the reference with columns for new batches in its decoder.

    Parameters
    ----------
    cls
        Class of the model.
    reference
        Trained model; it is not changed.
    adata, layer, min_gene_overlap
        As in :meth:`SpikeSlabVAE.load_query_data`.
    """
    setup = reference.registry["setup_args"]
    columns = _columns(setup)
    if not columns:
        raise ValueError(
            "The reference was set up without `batch_key`, so that a query has nothing of its own "
            "to train. Use the reference itself: `reference.get_latent_representation(adata)`."
        )
    check_query_conditions(check_anndata(adata).obs, columns)
    query = align_screen(reference, adata, layer, min_gene_overlap)
    for key, known in reference.conditions:
        query.obs[key] = name_as_known(name_values(query.obs[key]), known)
    cls.setup_anndata(
        query, source_registry=deepcopy(reference.registry), extend_categories=True, **setup
    )
    model = cls(query, **reference._arguments())
    n_known = tuple(len(condition.categories) for condition in reference.conditions)
    if n_known == tuple(model.module.n_categories):
        raise ValueError(
            f"The reference knows every value of {list(columns)} of the query, so that nothing is "
            "left to train. Use the reference itself."
        )
    weights = dict(reference.module.state_dict())
    columns_of = model.module.decoder_layer.weight
    name = next(name for name, p in model.module.named_parameters() if p is columns_of)
    weights[name] = grow_columns(weights[name], n_known, model.module.n_categories)
    model.module.load_state_dict(weights)
    model.to_device(reference.device)
    model.module.eval()
    model.surgery = SurgeryRecord(n_known)
    model.n_cells_, model.history_ = reference.n_cells_, deepcopy(reference.history_)
    model.n_trained_, model.n_controls_ = reference.n_trained_, reference.n_controls_
    if reference.rotation is not None:
        model.rotation = reference.rotation
    model.is_trained_ = True
    return model


def _columns(setup: dict[str, Any]) -> dict[str, str]:
    """Return the columns of categories, with the arguments that named them."""
    columns = {} if setup["batch_key"] is None else {setup["batch_key"]: "batch_key"}
    for key in setup["categorical_covariate_keys"] or ():
        columns.setdefault(key, "categorical_covariate_keys")
    return columns


def category_columns(n_categories: Sequence[int]) -> list[int]:
    """Count the columns of each covariate; a single category has none, as in the host."""
    return [n if n > 1 else 0 for n in n_categories]


def grow_columns(weight: Tensor, n_known: Sequence[int], n_categories: Sequence[int]) -> Tensor:
    """Add columns of new categories to a matrix, each the mean of those of the known ones.

    Parameters
    ----------
    weight
        ``(n_hidden, n_inputs)``; the last columns are those of categories.
    n_known, n_categories
        Number of known categories, and of all, of each covariate.

    Returns
    -------
    ``(n_hidden, n_inputs + number of new columns)``.

    Examples
    --------
    >>> grow_columns(torch.tensor([[5.0, 1.0, 3.0]]), [2], [3]).tolist()
    [[5.0, 1.0, 3.0, 2.0]]
    """
    old = category_columns(n_known)
    dense, *blocks = weight.split([weight.shape[1] - sum(old), *old], dim=1)
    grown = [dense]
    for block, known, n in zip(blocks, n_known, category_columns(n_categories), strict=True):
        if n and not block.shape[1]:
            # The effect of the only category is in the bias.
            block = weight.new_zeros(len(weight), known)
        new = block.mean(dim=1, keepdim=True).expand(-1, n - block.shape[1]) if n else block
        grown.append(torch.cat([block, new], dim=1) if n else block)
    return torch.cat(grown, dim=1)


def is_new_column(module: SpikeSlabModule, n_known: Sequence[int]) -> Tensor:
    """Return which columns of the first layer of the decoder are those of new categories.

    Parameters
    ----------
    module
        Module of a query model.
    n_known
        Number of known categories of each covariate.
    """
    n_columns = category_columns(module.n_categories)
    flags = [torch.zeros(module.decoder_layer.in_features - sum(n_columns), dtype=torch.bool)]
    flags += [torch.arange(n) >= known for n, known in zip(n_columns, n_known, strict=True)]
    return torch.cat(flags)


@contextmanager
def only_new_columns(module: SpikeSlabModule, n_known: Sequence[int]) -> Iterator[None]:
    """Train the columns of new categories alone.

    Parameters
    ----------
    module
        Module of a query model.
    n_known
        Number of known categories of each covariate.
    """
    before = {p: p.requires_grad for p in module.parameters()}
    weight = module.decoder_layer.weight
    mask = is_new_column(module, n_known).to(weight.device)
    module.requires_grad_(False)
    weight.requires_grad_(True)
    hook = weight.register_hook(GradientMask(mask))
    try:
        yield
    finally:
        hook.remove()
        for parameter, trained in before.items():
            parameter.requires_grad_(trained)
