"""Shifts of further perturbations under a trained model."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scvi_sctab._config import ROTATION
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.base import seed
from scvi_sctab.data import check_anndata, choose_layer, list_names, query_cells
from scvi_sctab.external.svae._field import MIN_CELLS, PERTURBATIONS_KEY
from scvi_sctab.external.svae._guides import distinct
from scvi_sctab.external.svae._shift_estimates import (
    count_cells,
    half_included_shift,
    inclusions,
    least_squares_shifts,
    standard_errors,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.external.svae._model import SpikeSlabVAE

# Bound of logits, so that they stay finite.
_MAX_LOGIT = 10.0


def adapt_model(
    model: SpikeSlabVAE,
    adata: AnnData,
    *,
    train_size: float,
    layer: str | None = None,
    min_gene_overlap: float = MIN_GENE_OVERLAP,
) -> SpikeSlabVAE:
    """Build a model that knows the perturbations of further cells, too.

    Parameters
    ----------
    model
        Trained model; it is not changed.
    adata, train_size, layer, min_gene_overlap
        As in :meth:`SpikeSlabVAE.adapt`.
    """
    if not 0 < train_size <= 1:
        raise ValueError(f"{train_size=} is not in (0, 1].")
    cells = align_screen(model, adata, layer, min_gene_overlap)
    known = set(model.perturbations)
    guides = model._guides.read(cells)
    new = [name for name in distinct(guides) if name not in known]
    _require_new(new, guides, model)
    type(model)._set_up(
        cells,
        model.registry["setup_args"],
        may_extend=True,
        source_registry=deepcopy(model.registry),
    )
    adapted = type(model)(cells, **model._arguments())
    _copy_weights(model, adapted)
    concerned = np.array([not known.issuperset(names) for names in guides])
    parts = split_by_group(
        [tuple(names) for names in guides], np.flatnonzero(concerned), train_size, seed()
    )
    counts = _estimate(adapted, parts[0], len(known))
    adapted.train_indices, adapted.validation_indices = parts
    adapted.test_indices = parts[0][:0]
    adapted.n_cells_ = np.concatenate([model.n_cells_, counts])
    return adapted


def align_screen(
    model: SpikeSlabVAE, adata: AnnData, layer: str | None, min_gene_overlap: float
) -> AnnData:
    """Check counts of cells, and bring them to the genes of a model, with their perturbations.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; they are not changed.
    layer, min_gene_overlap
        As in :meth:`SpikeSlabVAE.adapt`.
    """
    place = choose_layer(check_anndata(adata), layer, model.layer)
    cells = query_cells(adata, place, model.gene_names, min_gene_overlap, into=model.layer)
    key = model._guides.obsm_key
    if key is not None and key in adata.obsm:
        cells.obsm[key] = adata.obsm[key]
    return cells


def split_by_group(
    groups: list[tuple[str, ...]], cells: NDArray[np.intp], train_size: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split cells at random within groups; each group keeps a cell for training.

    Parameters
    ----------
    groups
        Group of each cell.
    cells
        Positions of the cells to split.
    train_size
        Share of each group for training, rounded up.
    seed
        Seed of the split.

    Returns
    -------
    Positions for training and validation, sorted.

    Examples
    --------
    >>> train, held_out = split_by_group([("A",)] * 10, np.arange(10), 0.75, 0)
    >>> len(train), len(held_out)
    (8, 2)
    """
    members: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for cell in cells:
        members[groups[cell]].append(cell)
    rng = np.random.default_rng(seed)
    train: list[int] = []
    held_out: list[int] = []
    for group in sorted(members):
        order = rng.permutation(members[group])
        n_train = int(np.ceil(train_size * len(order)))
        train.extend(order[:n_train])
        held_out.extend(order[n_train:])
    return np.sort(np.array(train, dtype=np.intp)), np.sort(np.array(held_out, dtype=np.intp))


def _require_new(new: list[str], guides: list[list[str]], model: SpikeSlabVAE) -> None:
    """Check that there are new perturbations, and that the model has shifts."""
    if model.module.prior == "none":
        raise ValueError("A model with prior='none' has no shifts to learn.")
    if not new:
        raise ValueError(
            f"{model._guides.place} holds no perturbation that the model does not know: "
            f"{list_names(distinct(guides))}. To predict them, use the model as it is."
        )
    few = [name for name in new if sum(name in names for names in guides) < MIN_CELLS]
    if few:
        raise ValueError(
            f"{model._guides.place}: {list_names(few)} have fewer than {MIN_CELLS} cells. Leave "
            "them out."
        )


def _copy_weights(model: SpikeSlabVAE, adapted: SpikeSlabVAE) -> None:
    """Copy weights and attributes of a model; rows of new perturbations keep their values."""
    weights: dict[str, Any] = dict(adapted.module.state_dict())
    for name, old in model.module.state_dict().items():
        if name in ("shift", "inclusion_logit"):
            weights[name] = torch.cat([old.cpu(), weights[name][len(old) :]])
        else:
            weights[name] = old.detach().clone()
    adapted.module.load_state_dict(weights)
    adapted.to_device(model.device)
    adapted.module.eval()
    adapted.history_ = deepcopy(model.history_)
    adapted.n_cells_ = model.n_cells_
    adapted.n_trained_ = model.n_trained_ or len(model.n_cells_)
    adapted.n_controls_ = model.n_controls_
    if model.rotation is not None:
        adapted.rotation = model.rotation
    adapted.is_trained_ = True


@torch.no_grad()
def _estimate(adapted: SpikeSlabVAE, train: NDArray[np.intp], n_known: int) -> NDArray[np.intp]:
    """Set shifts and inclusions of the perturbations after the first ``n_known``.

    Encoder and decoder do not read perturbations, so that the bound depends on shifts by the KL
    divergence alone, whose minimum is known: means of latents, and the inclusion by their size.

    Returns
    -------
    Number of cells of each new perturbation.
    """
    module = adapted.module
    latents, _ = adapted._posterior(adapted._select(None, train))
    codes = adapted._arrays(adapted.adata)[PERTURBATIONS_KEY][train]
    of_known = np.where(codes < n_known, codes, -1)
    explained, _ = module.prior_mean(torch.from_numpy(of_known).to(module.device), "expected")
    of_new = np.where(codes >= n_known, codes - n_known, -1)
    n_new = len(module.shift) - n_known
    shifts = least_squares_shifts(latents - explained.cpu().numpy(), of_new, n_new)
    module.shift[n_known:] = torch.from_numpy(shifts).to(module.device)
    counts = count_cells(of_new, n_new)
    if module.prior == "spike_slab":
        p = torch.from_numpy(inclusions(shifts, _half_included_shifts(adapted, counts))).float()
        logits = p.logit().clamp(-_MAX_LOGIT, _MAX_LOGIT)
        module.inclusion_logit[n_known:] = logits.to(module.device)
    return counts


def _half_included_shifts(adapted: SpikeSlabVAE, counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Compute the shifts with an inclusion of one half: that of the training, or noise."""
    module = adapted.module
    n_cells = adapted._n_cells_per_trained
    shift = half_included_shift(float(module.sparsity), n_cells, module.beta)
    floor = ROTATION.noise_floor * standard_errors(counts, adapted.n_controls_)
    return np.maximum(shift, floor)
