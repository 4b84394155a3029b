"""Fit of a model to few labelled cells: solved at once, with each cell left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scipy import sparse
from sklearn.decomposition import TruncatedSVD

from scvi_sctab._config import FEW_LABELS, PRESETS
from scvi_sctab._logging import logger
from scvi_sctab.base import draw_cells, seed
from scvi_sctab.data import class_weights, identify, normalize_block, read_counts
from scvi_sctab.metrics import CellLogits
from scvi_sctab.nn import LinearEncoder
from scvi_sctab.train import RidgeFit, fit_ridge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from scvi_sctab.data import CellSelection
    from scvi_sctab.model._sctab import SCTAB
    from scvi_sctab.module import CellTypeClassifier
    from scvi_sctab.nn import GeneLinear

# Products of dense blocks are faster than those of sparse cells, even of shallow ones.
_GENES_PER_BLOCK = 2000
_CURE = "`preset='small'` trains a network by steps."


@dataclass(frozen=True)
class _Views:
    """Labelled cells as they are compared with each other.

    Parameters
    ----------
    genes
        Log-normalised expression, ``(n_cells, n_genes)``, CSR.
    components
        Directions of expression along which cells with and without labels vary most,
        ``(n_components, n_genes)``. The first is near their mean; that of labelled cells is
        subtracted in every view.
    embedding
        Embeddings of an encoder that was trained before, ``(n_cells, n_output)``, if there is one.
    """

    genes: sparse.csr_matrix
    components: NDArray[np.float64]
    embedding: NDArray[np.float64] | None

    @property
    def scores(self) -> NDArray[np.float64]:
        """Coordinates along the principal components, ``(n_cells, n_components)``."""
        return np.asarray(self.genes @ self.components.T)

    def kernels(self) -> list[NDArray[np.float64]]:
        """Compute the inner products of centred cells in each view, ``(n_cells, n_cells)``."""
        columns = self.genes.tocsc()
        products = np.zeros((columns.shape[0],) * 2)
        for first in range(0, columns.shape[1], _GENES_PER_BLOCK):
            block = columns[:, first : first + _GENES_PER_BLOCK].toarray()
            products += block @ block.T
        dense = [self.scores] if self.embedding is None else [self.scores, self.embedding]
        centred = (view - view.mean(axis=0) for view in dense)
        means = products.mean(axis=0)
        own = products - means - means[:, None] + means.mean()
        return [own, *(view @ view.T for view in centred)]


@dataclass(frozen=True)
class LeftOutCells:
    """Logits of the labelled cells of a model, each by the fit to all others.

    Parameters
    ----------
    positions
        Positions of the cells in the model's AnnData, ``(n_cells,)``, increasing.
    logits
        ``(n_cells, n_labels)``.
    """

    positions: NDArray[np.intp]
    logits: NDArray[np.float32]

    def put_into(
        self, parts: Iterable[CellLogits], positions: NDArray[np.intp]
    ) -> Iterator[CellLogits]:
        """Replace the logits of these cells among others.

        Parameters
        ----------
        parts
            Logits of minibatches of cells.
        positions
            Positions of all of these cells, ``(n_cells,)``.
        """
        start = 0
        for part in parts:
            here = positions[start : start + len(part)]
            start += len(part)
            known = np.flatnonzero(np.isin(here, self.positions))
            values = part.logits.copy()
            values[known] = self.logits[np.searchsorted(self.positions, here[known])]
            yield CellLogits(values, values, values, part.n_molecules)


def fit_few_labels(model: SCTAB) -> None:
    """Solve the linear path and the head of a model for its training cells.

    Genes, principal components of all cells and, if there is one, an encoder that was trained
    before are three views of the labelled cells, on which :func:`~scvi_sctab.train.fit_ridge`
    solves one regression. All of them are linear in what the model reads, so that the solution is
    one of its weights. A linear encoder gets the principal components.

    Parameters
    ----------
    model
        Model with its cells and their split.
    """
    trained, views, fit = _solve(model)
    _write(model.module, views, fit)
    model.is_trained_, model.history_ = True, {}
    model._left_out = LeftOutCells(trained, fit.left_out.astype(np.float32))
    names = ("genes", "principal components", "encoder")
    shares = (f"{name} {share:.0%}" for name, share in zip(names, fit.shares, strict=False))
    logger.info(f"Solved for {len(trained):,} labelled cells: {', '.join(shares)}.")


def are_all_here(model: SCTAB) -> bool:
    """Return whether the model's AnnData has all cells that the model was fitted to.

    Parameters
    ----------
    model
        A trained model.
    """
    record = model.training_record
    return record is not None and len(model._trained_cells()) >= len(record.trained)


def leave_out_again(model: SCTAB, cells: CellSelection) -> LeftOutCells:
    """Repeat the fit of a model that was loaded, for the logits of its labelled cells.

    Parameters
    ----------
    model
        Model with its cells.
    cells
        Those of them that it was fitted to.

    Raises
    ------
    ValueError
        If cells that it was fitted to are not here.
    """
    record = model.training_record
    n_recorded = 0 if record is None else len(record.trained)
    if len(cells) < n_recorded:
        raise ValueError(
            f"{n_recorded - len(cells):,} of the {n_recorded:,} cells that this model was fitted to "
            "are not here: load it with them, `SCTAB.load(path, adata)`, or calibrate on others, "
            "`model.calibrate(adata)`."
        )
    trained, _, fit = _solve(model)
    return LeftOutCells(trained, fit.left_out.astype(np.float32))


def check_few_labels(model: SCTAB, given: Mapping[str, Any]) -> None:
    """Refuse what a fit without steps cannot do.

    Parameters
    ----------
    model
        Model of a preset in closed form.
    given
        Arguments of ``train`` about steps, with their values.

    Raises
    ------
    ValueError
        If one of them is given, or the model has coarse labels, no linear path, or an encoder that
        was not trained.
    """
    if asked := ", ".join(name for name, value in given.items() if value):
        raise ValueError(
            f"{asked}: preset={model.preset_!r} is solved at once, without steps. Leave "
            f"it out; {_CURE}"
        )
    if model.coarse_labels:
        raise ValueError(f"preset={model.preset_!r} does not take coarse labels; {_CURE}")
    module, name = model.module, model.network_config.encoder
    if not module.reads_genes:
        raise ValueError(
            f"preset={model.preset_!r} reads genes, and this model a latent space; {_CURE}"
        )
    if module.linear_skip is None or not module.encoder_weight:
        raise ValueError(
            f"preset={model.preset_!r} solves a linear path of genes and a head of the encoder, and "
            f"this model lacks one of them: leave out `linear_skip` and `encoder_weight`. {_CURE}"
        )
    if not (has_trained_encoder(model) or isinstance(module.encoder, LinearEncoder)):
        raise ValueError(
            f"preset={model.preset_!r} trains no encoder, and encoder={name!r} needs it: leave "
            f"`encoder` out, or train it without labels, `model.pretrain()`. {_CURE}"
        )


def _solve(model: SCTAB) -> tuple[NDArray[np.intp], _Views, RidgeFit]:
    """Regress the labels of the training cells on all views of them."""
    codes, n_labels = model._label_codes(), len(model.labels)
    trained = np.sort(np.asarray(model.train_indices))
    trained = _without_copies(model, trained[codes[trained] < n_labels])
    codes = codes[trained]
    if len(codes) > FEW_LABELS.max_cells:
        raise ValueError(
            f"preset={model.preset_!r} is for up to {FEW_LABELS.max_cells:,} labelled cells to "
            f"train on, not {len(codes):,}: the time grows with their third power. {_CURE}"
        )
    weights = class_weights(codes, n_labels, PRESETS[model.preset_].train.class_weight_power)
    views = _view(model, trained)
    optional = (False, False, True)
    kernels = views.kernels()
    fit = fit_ridge(kernels, codes, weights, FEW_LABELS, optional[: len(kernels)])
    return trained, views, fit


def _without_copies(model: SCTAB, cells: NDArray[np.intp]) -> NDArray[np.intp]:
    """Keep the first of cells with the same counts, by which the others would be predicted."""
    counts = identify(model._select(None, cells), model.gene_names).counts
    first = np.unique(counts, return_index=True)[1]
    return cells[np.sort(np.union1d(first, np.flatnonzero(counts == 0)))]


def _view(model: SCTAB, trained: NDArray[np.intp]) -> _Views:
    """Read the labelled cells in each view; components are those of all cells but held-out ones."""
    nobody = np.zeros(0, np.intp)
    aside = [part for part in (model.validation_indices, model.test_indices) if part is not None]
    others = np.setdiff1d(np.arange(model.adata.n_obs), np.concatenate([nobody, *aside]))
    background = _expression(model, draw_cells(others, FEW_LABELS.max_cells_of_components))
    width = min(FEW_LABELS.n_components, *(max(side // 2, 1) for side in background.shape))
    if isinstance(model.module.encoder, LinearEncoder) and not has_trained_encoder(model):
        width = min(width, model.module.encoder.n_output)
    components = TruncatedSVD(width, random_state=seed()).fit(background).components_
    embedding = None
    if has_trained_encoder(model):
        embedded = model._map_cells(partial(_embed, model), model._select(None, trained))
        embedding = np.concatenate(list(embedded)).astype(np.float64)
    genes = _expression(model, trained).astype(np.float64)
    return _Views(genes, components.astype(np.float64), embedding)


def _embed(model: SCTAB, tensors: dict[str, torch.Tensor]) -> NDArray[np.float32]:
    """Embed a minibatch of cells of known batches, as predictions do."""
    outputs, _ = model.module(tensors, compute_loss=False)
    return outputs["z"].cpu().numpy()


def _expression(model: SCTAB, cells: NDArray[np.intp]) -> sparse.csr_matrix:
    """Log-normalised expression of cells of the model's AnnData."""
    blocks = read_counts(model.adata, model.layer, cells)
    return sparse.vstack(list(map(normalize_block, blocks)), format="csr")


def has_trained_encoder(model: SCTAB) -> bool:
    """Return whether the encoder of a model was trained without its labels.

    Parameters
    ----------
    model
        The model.
    """
    return bool(model.has_pretrained_encoder_) or hasattr(model, "pretraining_history_")


def _write(module: CellTypeClassifier, views: _Views, fit: RidgeFit) -> None:
    """Write a solution into the weights of the linear path and of the head."""
    own = fit.factors[0] * np.asarray(views.genes.T @ fit.coefficients).T
    head = fit.factors[1] * fit.coefficients.T @ views.scores
    intercept = fit.intercept - own @ np.asarray(views.genes.mean(axis=0)).ravel()
    intercept -= head @ views.scores.mean(axis=0)
    if views.embedding is None:
        _read_components(cast("LinearEncoder", module.encoder), views)
    else:
        own += head @ views.components
        head = fit.factors[2] * fit.coefficients.T @ views.embedding
        intercept -= head @ views.embedding.mean(axis=0)
    path = cast("GeneLinear", module.linear_skip)
    with torch.no_grad():
        path.weight.copy_(torch.from_numpy(own))
        path.bias.copy_(torch.from_numpy(intercept))
        module.final_mapping.weight.zero_()
        weight = torch.from_numpy(head / module.encoder_weight)
        module.final_mapping.weight[:, : head.shape[1]] = weight
        if module.batch_embedding is not None and views.embedding is None:
            for parameter in module.batch_embedding.parameters():
                parameter.zero_()
    module.eval()


def _read_components(encoder: LinearEncoder, views: _Views) -> None:
    """Let a linear encoder embed cells by their principal components."""
    n_components = len(views.components)
    with torch.no_grad():
        encoder.linear.weight.zero_()
        encoder.linear.bias.zero_()
        encoder.linear.weight[:n_components] = torch.from_numpy(views.components)
