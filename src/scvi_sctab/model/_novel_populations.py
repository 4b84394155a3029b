"""Populations of a query, and which of them are of no label of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from scvi_sctab._constants import FALSE_DISCOVERY_RATE
from scvi_sctab._messages import warn
from scvi_sctab.annotation import (
    MIN_CELLS_OF_POPULATION,
    MIN_POPULATIONS,
    AnnotationState,
    Populations,
    Profiles,
    can_be_tested,
    cluster_cells,
    compare_populations,
    embed_cells,
    gene_excess,
    possible_causes,
)
from scvi_sctab.data import normalize_block, read_counts
from scvi_sctab.model._groups import group_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from scvi_sctab.data import CellSelection, GeneAlignment
    from scvi_sctab.metrics import CellLogits
    from scvi_sctab.model._annotator import CellAnnotator

POPULATION_COLUMNS = ("population", "novel_population", "novelty_score")
"""Columns that cells get from their populations."""
_N_MARKERS = 10


@dataclass(frozen=True, eq=False)
class TestedPopulations:
    """Populations of a query with the results of their test.

    Parameters
    ----------
    table
        A row per population, as of :meth:`scvi_sctab.SCTAB.get_novel_populations`.
    codes
        Row of each cell in the table, ``(n_cells,)``; -1 for cells of a population that is too small.
    p_values
        Novelty p-value of each cell, ``(n_cells,)``.
    """

    table: pd.DataFrame
    codes: NDArray[np.intp]
    p_values: NDArray[np.floating]

    def of_cells(self, names: pd.Index) -> pd.DataFrame:
        """Return the columns that a cell gets from its population.

        Parameters
        ----------
        names
            Names of the cells.
        """
        there, row = self.codes >= 0, np.maximum(self.codes, 0)
        score = np.append(self.table["score"].to_numpy(), 0.0)[np.where(there, row, -1)]
        novel = np.append(self.table["novel"].to_numpy(bool), False)[np.where(there, row, -1)]
        columns = {
            "population": pd.Categorical.from_codes(self.codes, categories=self.table.index),
            "novel_population": novel,
            "novelty_score": np.nan_to_num(score) + surprise(self.p_values),
        }
        return pd.DataFrame(columns, index=names)


def profile_labels(
    model: CellAnnotator, cells: CellSelection, codes: NDArray[np.int64]
) -> Profiles:
    """Measure the expression of labels.

    Parameters
    ----------
    model
        The model, whose genes and labels count.
    cells
        Cells that it was trained on.
    codes
        Codes of their labels, ``(n_cells,)``; -1 for those that do not count.
    """
    alignment = model._read(cells).alignment
    return Profiles.fit(read_expression(cells, alignment), codes, len(model.labels))


def surprise(p_values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return ``-log(p)``; 0 for cells of labels that a query added, which have no p-value.

    Parameters
    ----------
    p_values
        Novelty p-values, ``(n_cells,)``.
    """
    return -np.log(np.where(np.isnan(p_values), 1.0, p_values))


def require_profiles(model: CellAnnotator) -> Profiles:
    """Return the expression of the labels of a model.

    Parameters
    ----------
    model
        The model.

    Raises
    ------
    RuntimeError
        If it is not calibrated, or does not hold them.
    """
    model._require_calibration()
    if model.annotation.profiles is None:
        raise RuntimeError(
            "This model does not hold the expression of its labels, since it was imported, joined "
            "from models, or saved by an early version. With the cells that it was trained on: "
            "`SCTAB.load(path, reference).calibrate()`."
        )
    return model.annotation.profiles


def find_populations(
    model: CellAnnotator,
    cells: CellSelection,
    state: AnnotationState,
    logits: CellLogits,
    groupby: str | Sequence[object] | None = None,
    false_discovery_rate: float = FALSE_DISCOVERY_RATE,
) -> TestedPopulations:
    """Find the populations of a query, and test each.

    Parameters
    ----------
    model
        Calibrated model.
    cells
        The query.
    state
        State of the model for this query.
    logits
        Of the cells, in their order.
    groupby, false_discovery_rate
        As of :meth:`scvi_sctab.SCTAB.get_novel_populations`.
    """
    reference = require_profiles(model)
    alignment = model._read(cells).alignment
    blocks: Iterable[sparse.csr_matrix] = read_expression(cells, alignment)
    if groupby is None:
        blocks = [sparse.vstack(list(blocks), format="csr")]
        groups = cluster_cells(embed_cells(blocks[0], model._latent(cells))).astype(str)
    else:
        groups = group_values(cells, groupby, "groupby").astype(str)
    names, codes = _large_groups(groups)
    p_values = state.calibrated().novelty(logits)
    genes = np.flatnonzero(alignment.is_measured)
    found = Populations(
        codes,
        Profiles.fit(blocks, codes, len(names)).take_genes(genes),
        _means(state.probabilities(logits.logits), codes, len(names)),
        _means(surprise(p_values)[:, None], codes, len(names)).ravel(),
    )
    table = _table(model, found, reference.take_genes(genes), names, genes, logits.n_molecules)
    table["novel"] = table["q_value"] <= false_discovery_rate
    if len(table) < MIN_POPULATIONS:
        warn(
            f"There are {len(table)} populations of {MIN_CELLS_OF_POPULATION} or more cells; it takes "
            f"{MIN_POPULATIONS} to see which of them stand out, so that p-values are missing."
        )
    return TestedPopulations(table, codes, p_values)


def _table(
    model: CellAnnotator,
    found: Populations,
    reference: Profiles,
    names: NDArray[np.str_],
    genes: NDArray[np.intp],
    depth: NDArray[np.floating] | None,
) -> pd.DataFrame:
    """Describe and test each population."""
    tests = compare_populations(found, reference)
    of_population = (found.codes == code for code in range(len(names)))
    n_molecules = np.array(
        [np.nan if depth is None else np.median(depth[cells]) for cells in of_population]
    )
    tested = can_be_tested(found, reference)
    own, gene_names = found.take(tested), model.gene_names[genes]
    markers, causes = np.full((2, len(names)), "", dtype=object)
    excess = gene_excess(own, reference)
    highest = np.argsort(-excess, axis=1, kind="stable")[:, :_N_MARKERS]
    markers[tested] = [", ".join(gene_names[best]) for best in highest]
    causes[tested] = possible_causes(own, reference, model.labels, n_molecules[tested])
    table = pd.DataFrame(
        {
            "nearest_label": pd.Categorical.from_codes(tests["nearest"], categories=model.labels),
            "n_cells": found.profiles.n_cells,
            "n_molecules": n_molecules,
            **{name: tests[name] for name in ("novelty", "excess", "score", "p_value", "q_value")},
            "markers": markers,
            "possible_cause": causes,
        }
    )
    return table.set_axis(pd.Index(names, name="population"))


def read_expression(cells: CellSelection, alignment: GeneAlignment) -> Iterator[sparse.csr_matrix]:
    """Yield log-normalised expression over the genes of the model, block by block.

    Parameters
    ----------
    cells
        The cells.
    alignment
        Alignment of their genes with those of the model.
    """
    yield sparse.csr_matrix((0, alignment.n_genes), dtype=np.float32)
    for counts in read_counts(cells.adata, cells.layer, cells.positions, alignment):
        yield normalize_block(counts)


def _large_groups(groups: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    """Return names of the groups with enough cells, and the position of each cell's; else -1."""
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    large = np.flatnonzero(sizes >= MIN_CELLS_OF_POPULATION)
    order = large[np.argsort(-sizes[large], kind="stable")]
    row = np.full(len(names), -1)
    row[order] = np.arange(len(order))
    return names[order], row[codes.ravel()] if len(names) else codes


def _means(
    values: NDArray[np.floating], codes: NDArray[np.intp], n_groups: int
) -> NDArray[np.float64]:
    """Average rows over groups, ``(n_groups, n_columns)``."""
    means = [values[codes == code].mean(axis=0) for code in range(n_groups)]
    return np.asarray(means, np.float64).reshape(n_groups, values.shape[1])
