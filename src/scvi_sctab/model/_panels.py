"""Restriction of a model to the genes of a panel."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS

from scvi_sctab._config import PRESETS
from scvi_sctab._constants import MIN_GENES, N_NAMES_SHOWN
from scvi_sctab._logging import logger
from scvi_sctab._messages import list_names, warn
from scvi_sctab.data import (
    CellIdentities,
    TrainingRecord,
    align_genes,
    describe_mismatch,
    empty_cells,
    find_cells,
    identify,
    read_counts,
    strip_versions,
)
from scvi_sctab.metrics import f1_macro
from scvi_sctab.model._few_labels import fit_few_labels, has_trained_encoder
from scvi_sctab.model._panel_refit import refit_to_panel
from scvi_sctab.model._query_training import describe_reference
from scvi_sctab.model._records import PanelRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.model._sctab import SCTAB


def restrict_to_panel(model: SCTAB, genes: Sequence[str]) -> SCTAB:
    """Build a model that reads some genes only, from one that reads more.

    Parameters
    ----------
    model
        Trained model with the cells that it was trained on; it is left as it is.
    genes
        Names of the genes.
    """
    check_can_be_refitted(model)
    kept, unknown = match_panel(model.gene_names, genes)
    cells, rows = _cells_of_panel(model, kept)
    restricted = _build(model, cells, kept)
    _split_as(restricted, _parts_of(model, rows))
    if PRESETS[restricted.preset_].train.closed_form:
        fit_few_labels(restricted)
    else:
        refit_to_panel(restricted)
    restricted.is_trained_ = True
    restricted.to_device(model.module.device)
    restricted.reference_statistics = describe_reference(restricted)
    restricted._calibrate_after_training()
    restricted.panel_record = _compare(model, restricted, rows, unknown)
    _tell(restricted.panel_record)
    return restricted


def check_can_be_refitted(model: SCTAB) -> None:
    """Refuse models without genes or without the cells that they were trained on.

    Parameters
    ----------
    model
        The model.

    Raises
    ------
    RuntimeError
        If it is not trained.
    ValueError
        If it is that of a query, reads a latent space, was imported from CellTypist, or lacks the
        cells.
    """
    model._require_trained()
    model._refuse_imported("restricted to a panel")
    if model.query_record is not None:
        raise ValueError(
            "This model is that of a query: restrict the reference's model, and map the query onto "
            "the result, `SCTAB.load_query_data(query, reference_model.restrict(genes))`."
        )
    if not model.module.reads_genes:
        raise ValueError(
            "This model reads a latent space, whose genes are those of its autoencoder: train an "
            "autoencoder on the genes of the panel, and `SCTAB.from_pretrained` on it."
        )
    if model.adata is None or not len(model._trained_cells()):
        raise ValueError(
            "The cells that this model was trained on are not here, and on a panel they are "
            "normalised anew: load the model with them, `SCTAB.load(path, adata)`. With other "
            "labelled cells, train anew: `SCTAB.setup_anndata(adata[:, genes].copy(), ...)`."
        )


def match_panel(
    gene_names: NDArray[np.str_], genes: Sequence[str]
) -> tuple[NDArray[np.intp], list[str]]:
    """Find the genes of a panel among those of a model, Ensembl versions ignored.

    Parameters
    ----------
    gene_names
        Genes of the model.
    genes
        Genes of the panel, in any order.

    Returns
    -------
    Positions of the genes among those of the model, increasing, and those that it does not know.

    Raises
    ------
    TypeError
        If ``genes`` are not names.
    ValueError
        If the model knows fewer than ``MIN_GENES`` of them.
    """
    if isinstance(genes, str | AnnData):
        cure = "adata.var_names" if isinstance(genes, AnnData) else "['CD3D', 'MS4A1', ...]"
        kind = type(genes).__name__
        raise TypeError(f"genes= takes the names of genes, not a {kind}: `{cure}`.")
    names = strip_versions(list(genes)).unique()
    kept = np.flatnonzero(np.isin(gene_names, names.to_numpy(dtype=str)))
    unknown = [str(name) for name in names[~names.isin(gene_names)]]
    if len(kept) < MIN_GENES:
        raise ValueError(
            f"The model knows {len(kept)} of the {len(names):,} genes of the panel; it takes "
            f"{MIN_GENES}. {describe_mismatch(gene_names, names)}"
        )
    return kept, unknown


def _cells_of_panel(model: SCTAB, kept: NDArray[np.intp]) -> tuple[AnnData, NDArray[np.intp]]:
    """Return the model's cells with their counts of the panel, and their positions before.

    Cells without a molecule of the panel are left out.
    """
    everyone, genes = model._select(None), model.gene_names[kept]
    alignment = align_genes(genes, everyone.adata.var, 0.0)
    blocks = list(read_counts(everyone.adata, everyone.layer, alignment=alignment))
    counts = sparse.vstack(blocks, format="csr")
    rows = np.setdiff1d(np.arange(len(everyone)), empty_cells(counts))
    if len(rows) < len(everyone):
        logger.info(
            f"{len(everyone) - len(rows):,} of {len(everyone):,} cells of the reference have no "
            "molecule of the panel and are left out."
        )
        counts = counts[rows]
    cells = AnnData(
        counts,
        obs=everyone.adata.obs.iloc[rows].copy(),
        var=pd.DataFrame(index=pd.Index(genes, dtype=object)),
    )
    if model.layer is not None:
        cells.layers[model.layer] = cells.X
        cells.X = None
    return cells, rows


def _parts_of(model: SCTAB, rows: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
    """Return which of some cells the model was trained on, and which were held out or set aside."""
    everyone, record = model._select(None), model.training_record
    aside = CellIdentities.none() if record is None else record.set_aside
    nobody = np.zeros(0, np.intp)
    parts = {
        "train": model._trained_cells().positions,
        "validation": model._held_out_cells().positions if model._has_held_out() else nobody,
        "test": find_cells(everyone, aside, model.test_indices, model.gene_names).positions,
    }
    return {name: np.flatnonzero(np.isin(rows, positions)) for name, positions in parts.items()}


def _build(model: SCTAB, cells: AnnData, kept: NDArray[np.intp]) -> SCTAB:
    """Build the model of the panel, with what remains of the weights."""
    registry = deepcopy(model.registry)
    registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"] = {
        "n_obs": cells.n_obs,
        "n_vars": cells.n_vars,
        "column_names": np.asarray(cells.var_names, dtype=object),
    }
    cls = type(model)
    cls.setup_anndata(cells, source_registry=registry, **registry["setup_args"])
    restricted = cls(cells, registry=registry, **{**model._arguments(), "linear_skip": True})
    restricted.module.take_genes(model.module.state_dict(), torch.from_numpy(kept))
    restricted.modalities_ = model.modalities_
    restricted.has_pretrained_encoder_ = has_trained_encoder(model)
    restricted.annotation = replace(restricted.annotation, hierarchy=model.annotation.hierarchy)
    return restricted


def _split_as(model: SCTAB, parts: dict[str, NDArray[np.intp]]) -> None:
    """Record the parts of the split of a model."""
    for name, positions in parts.items():
        setattr(model, f"{name}_indices_", positions)
    model.training_record = TrainingRecord(
        *(identify(model._select(None, part), model.gene_names) for part in parts.values())
    )


def _compare(
    model: SCTAB, restricted: SCTAB, rows: NDArray[np.intp], unknown: list[str]
) -> PanelRecord:
    """Compare both models on the cells not seen in training with a molecule of the panel."""
    nobody = restricted._select(None, np.zeros(0, np.intp))
    after = restricted._unseen_cells() if restricted._has_unseen() else nobody
    if model._has_unseen():
        model._unseen_cells()  # of a model that was loaded, they are found by a fit
    truth = restricted._true_labels(after, None)
    known = np.flatnonzero(restricted._codes_of(after) >= 0)
    after, truth = after.take(known), truth[known].astype(str)
    before = model._select(None, rows[after.positions])
    predicted = model._predict(before), restricted._predict(after)
    scores = [
        f1_macro(list(truth), list(labels)) if len(truth) else np.nan for labels in predicted
    ]
    return PanelRecord(
        n_genes=len(restricted.gene_names),
        n_genes_before=len(model.gene_names),
        unknown_genes=unknown,
        macro_f1_before=float(scores[0]),
        macro_f1=float(scores[1]),
        confusions=compare_confusions(truth, *predicted),
    )


def compare_confusions(
    truth: NDArray[np.str_], before: NDArray[np.str_], after: NDArray[np.str_]
) -> pd.DataFrame:
    """Compare the confusions of two predictions of the same cells.

    Parameters
    ----------
    truth, before, after
        True labels, and predicted ones, ``(n_cells,)``.

    Returns
    -------
    A row per true label and other label that it is taken for by either: ``label``,
    ``predicted``, ``n_cells`` of the true label, and the shares of them ``before`` and ``after``;
    the largest increase first.
    """
    names = ["label", "predicted"]
    cells = pd.DataFrame({"label": truth, "before": before, "after": after})
    counts = pd.concat(
        {
            when: cells.groupby(["label", when]).size().rename_axis(names)
            for when in ("before", "after")
        },
        axis=1,
    )
    table = counts.fillna(0).reset_index()
    table = table[table["label"] != table["predicted"]]
    table.insert(2, "n_cells", table["label"].map(cells["label"].value_counts()))
    for when in ("before", "after"):
        table[when] = table[when] / table["n_cells"]
    rise = table["before"] - table["after"]
    order = np.lexsort([table["predicted"], table["label"], rise])
    return table.iloc[order].astype({"n_cells": int}).reset_index(drop=True)


def _tell(record: PanelRecord) -> None:
    """Log what was kept, and warn about labels that the panel cannot tell apart."""
    parts = [f"The model reads {record.n_genes:,} of its {record.n_genes_before:,} genes."]
    if record.unknown_genes:
        unknown = f"{len(record.unknown_genes):,} others of the panel"
        parts.append(f"It does not know {unknown}: {list_names(record.unknown_genes)}.")
    if np.isfinite(record.macro_f1):
        scores = f"{record.macro_f1:.3f}, with all genes {record.macro_f1_before:.3f}"
        parts.append(f"Macro F1 on held-out cells: {scores}.")
    logger.info(" ".join(parts))
    lost = record.lost()
    if not len(lost):
        return
    pairs = [
        f"{label!r} taken for {other!r} ({after:.0%} of {n_cells:,} cells, before {before:.0%})"
        for label, other, n_cells, before, after in lost.head(N_NAMES_SHOWN).to_numpy()
    ]
    more = f" and {len(lost) - len(pairs):,} more" * (len(lost) > len(pairs))
    warn(
        f"Labels that the panel tells apart less well, on held-out cells: {', '.join(pairs)}{more}; "
        "see `model.panel_record.confusions`."
    )
