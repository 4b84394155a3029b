"""Report on the annotation of a query: from a model and cells to a page."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab._constants import ERROR_RATE, FALSE_ALARM_RATE, MIN_GENE_OVERLAP, TERM_LEVEL
from scvi_sctab.explanation import gene_weights, group_means, marker_table
from scvi_sctab.model._annotate_query import AnnotatedQuery, annotate_selection
from scvi_sctab.model._novel_populations import find_populations
from scvi_sctab.report import (
    Findings,
    Provenance,
    Report,
    build_report,
    check_page,
    choose_cells,
    embed,
    find_annotators,
    find_batch,
    pack_points,
    write_report,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data import CellSelection
    from scvi_sctab.model._annotator import CellAnnotator

# Cells on which means of genes rest; they need no more.
_MAX_CELLS_MARKERS = 10_000
_N_GENES = 12
_MIN_NOVEL, _MAX_NOVEL_GROUPS = 5, 8
# Before the name of a label: its novel cells. No label starts with it.
_NOVEL = "\1"
_PACKAGES = ("scvi-sctab", "scvi-tools", "torch", "anndata", "numpy")
_CITATIONS = (
    "Fischer et al. 2024, scTab: Scaling cross-tissue single-cell annotation models, Nature "
    "Communications 15:6611.",
    "Gayoso et al. 2022, A Python library for probabilistic analysis of single-cell omics data, "
    "Nature Biotechnology 40:163.",
)


# Cells among which populations are looked for.
_FEWEST_TO_CLUSTER, _MOST_TO_CLUSTER = 100, 50_000


def report_query(
    model: CellAnnotator,
    adata: AnnData | None,
    path: str | os.PathLike[str] | None = None,
    *,
    error_rate: float = ERROR_RATE,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    term_level: float = TERM_LEVEL,
    name: str = "query",
    basis: str | None = None,
    compare: Sequence[str] | None = None,
    populations: pd.DataFrame | None = None,
    card: Mapping[str, Any] | None = None,
    call: str | None = None,
    layer: str | None = None,
    min_gene_overlap: float = MIN_GENE_OVERLAP,
    annotated: AnnotatedQuery | None = None,
    overwrite: bool = False,
) -> Report:
    """Report on the annotation of cells.

    Parameters
    ----------
    model
        A trained model.
    adata, path, error_rate, false_alarm_rate, term_level, name, basis, compare, populations
        As of :meth:`scvi_sctab.SCTAB.report`.
    card, layer, min_gene_overlap, overwrite
        As of :meth:`scvi_sctab.SCTAB.report`.
    call
        Line to type for the same report.
    annotated
        Annotation of these cells at these rates, if there is one.

    Raises
    ------
    FileExistsError, KeyError, ValueError
        As of :meth:`scvi_sctab.SCTAB.report`.
    """
    if path is not None:
        check_page(path, overwrite)
    model._require_trained()
    rates = model._check_statements(error_rate, false_alarm_rate, term_level)
    cells = model._select(adata, None, layer, min_gene_overlap)
    obs = cells.adata.obs.iloc[cells.positions]
    given = None if basis is None else _coordinates(cells, basis)
    batch = find_batch(obs, model.registry["setup_args"].get("batch_key"))
    columns = _columns(obs, compare, batch)
    annotated = annotated or annotate_selection(model, cells, rates)
    state, predictable = model.annotation, model.annotation.predictable
    with warnings.catch_warnings():
        # On genes, which the annotation has warned of.
        warnings.simplefilter("ignore", UserWarning)
        placed = np.arange(len(cells.names))
        if given is not None:
            placed = np.flatnonzero(np.isfinite(given).all(axis=1))
        positions = placed[choose_cells(cells.names[placed])]
        if given is None:
            latent = model._latent(cells.take(positions))
            coordinates, basis = embed(latent, _labels(annotated.columns).iloc[positions])
        else:
            coordinates = given[positions]
        markers, novel_markers = _rank_genes(model, cells, annotated.columns)
        measured = model._read(cells).alignment.is_measured
        if populations is None and _can_find_populations(model, cells):
            for_query, parts = model._look_at(cells)
            logits = for_query.join_logits(parts)
            populations = find_populations(model, cells, for_query, logits).table
    weights = gene_weights(model.networks, predictable)
    findings = Findings(
        title=name,
        annotation=annotated.columns,
        labels=[str(label) for label in model.labels[predictable]],
        all_labels=[str(label) for label in model.labels],
        rates=rates,
        provenance=describe_provenance(model, name, card or {}, call or _call(path)),
        gene_names=model.gene_names,
        gene_found=measured,
        gene_weights=None if weights is None else weights[predictable],
        positions=positions,
        coordinates=coordinates,
        basis=str(basis),
        n_unplaced=len(cells.names) - len(placed),
        markers=markers,
        novel_markers=novel_markers,
        populations=populations,
        columns=columns,
        batch=batch,
        compared=compare,
        calibration=state.calibration,
        shift=annotated.shift,
        difference=annotated.difference,
        hierarchy=state.hierarchy,
        n_trained=model._n_trained_on(cells),
    )
    report = build_report(findings)
    if path is not None:
        write_report(report, pack_points(findings, report), path, overwrite)
    return report


def _can_find_populations(model: CellAnnotator, cells: CellSelection) -> bool:
    """Whether populations can be found in reasonable time and memory."""
    state = model.annotation
    known = state.calibration is not None and state.profiles is not None
    return known and _FEWEST_TO_CLUSTER <= len(cells) <= _MOST_TO_CLUSTER


def _coordinates(cells: CellSelection, basis: str) -> NDArray[np.float64]:
    if basis not in cells.adata.obsm:
        raise KeyError(
            f"`adata.obsm` has no {basis!r}; it has {list(cells.adata.obsm)}. Leave out `basis` "
            "for a layout of the latent space."
        )
    values = np.asarray(cells.adata.obsm[basis], dtype=float)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"`adata.obsm[{basis!r}]` has shape {values.shape}, not two columns.")
    chosen = values[cells.positions, :2]
    if not np.isfinite(chosen).all(axis=1).any():
        raise ValueError(
            f"`adata.obsm[{basis!r}]` has no finite coordinates. Leave out `basis` for a layout of "
            "the latent space."
        )
    return chosen


def _columns(
    obs: pd.DataFrame, compare: Sequence[str] | None, batch: str | None
) -> dict[str, pd.Series]:
    """Return columns to compare with, the one with batches first."""
    names = find_annotators(obs, [batch] if batch else []) if compare is None else list(compare)
    if lacking := [name for name in names if name not in obs]:
        raise KeyError(
            f"`adata.obs` has no column {lacking[0]!r} to compare with; it has {list(obs.columns)}."
        )
    return {name: obs[name] for name in dict.fromkeys([*([batch] if batch else []), *names])}


def _rank_genes(
    model: CellAnnotator, cells: CellSelection, frame: pd.DataFrame
) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Rank genes of labels, and of the novel cells near each label; ``None`` without genes."""
    if any(network.is_imported or not network.reads_genes for network in model.networks):
        return None, None
    step = max(1, -(-len(frame) // _MAX_CELLS_MARKERS))
    places = np.arange(0, len(frame), step)
    labels = _labels(frame).iloc[places]
    novel = np.zeros(len(labels), bool)
    if "status" in frame:
        # Cells of low quality are counted as such, also if they are far from all labels.
        novel = (frame["status"] == "novel").to_numpy()[places]
        counts = labels[novel].value_counts()
        kept = counts.index[counts >= _MIN_NOVEL][:_MAX_NOVEL_GROUPS]
        novel &= labels.isin(kept).to_numpy()
    apart = pd.Categorical(labels.where(~novel, _NOVEL + labels))
    # Read once: means over a label are those of its two groups together.
    means = group_means(
        model.networks,
        model.annotation.predictable,
        model._read(cells.take(places)),
        pd.Index(model.labels).get_indexer(labels),
        apart,
    )
    together = pd.Categorical(labels)
    member = (
        np.array(
            [name.removeprefix(_NOVEL) == together.categories for name in apart.categories], float
        )
        * np.bincount(apart.codes, minlength=len(apart.categories))[:, None]
    )
    merged = np.einsum("gl,kgn->kln", member / member.sum(axis=0), means)
    markers = marker_table(together, model.gene_names, merged, _N_GENES)
    ranked = marker_table(apart, model.gene_names, means, _N_GENES)
    ranked = ranked[ranked["group"].astype(str).str.startswith(_NOVEL)]
    return markers, ranked.assign(group=ranked["group"].str.removeprefix(_NOVEL))


def _labels(frame: pd.DataFrame) -> pd.Series:
    """Return the most probable label of each cell, assigned or not."""
    return frame["closest_label" if "closest_label" in frame else "label"].astype(str)


def describe_provenance(
    model: CellAnnotator, name: str, card: Mapping[str, Any], call: str
) -> Provenance:
    """Describe how to reproduce a page.

    Parameters
    ----------
    model
        The model.
    name
        Name of the cells.
    card
        Card of the model; it may be empty.
    call
        Line to type.
    """
    data = card.get("training_data", ())
    return Provenance(
        query=name,
        model=str(card.get("name", type(model).__name__)),
        digest=model.digest,
        call=call,
        date=datetime.now(UTC).date().isoformat(),
        n_labels=len(model.labels),
        versions={
            "Python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        training_data=tuple(
            f"{row.get('study', '')}: {row.get('publication', '')}, {row.get('assay', '')}"
            for row in data
        ),
        licences=(
            "scvi-sctab: BSD-3-Clause",
            *(f"{row.get('study', '')}: {row['licence']}" for row in data if "licence" in row),
        ),
        citations=(
            *_CITATIONS,
            *(f"{row['publication']}." for row in data if row.get("publication")),
        ),
        not_for=str(card.get("not_for", "")),
    )


def _call(path: str | os.PathLike[str] | None) -> str:
    page = "report.html" if path is None else Path(path).name
    return f'model.report(adata, "{page}")'
