"""Tasks of the mapping benchmark: fixed pairs of real data sets that differ in their batches.

Every task has a column of technical batches (sample or library), and no batch of the query is in
the reference. `FORWARD` are the tasks of the benchmark. `TUNING` are the same pairs in the reverse
direction, on which settings are chosen, so that no setting is chosen by a forward result. No pair or
direction was chosen by its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from _tasks import (
    BUNDLED,
    CD4_SUBSETS_TO_CD4,
    DONOR_KEY,
    KANG,
    LABEL_KEY,
    PBMC3K,
    PLATELET_IS_MEGAKARYOCYTE,
    TERM_KEY,
    Task,
    read,
)
from anndata import AnnData

BATCH_KEY = "benchmark_batch"
CHEMISTRIES = "pbmc_10x_3chem_savercat.h5ad"
CELL_LINES = "cell_lines_mixology_celseq2_dropseq.h5ad"
PANCREAS = "pancreas_panc8_small_500.h5ad"
MIN_SHARED = 0.5
"""Share of the reference's genes that a query holds, or the others leave the reference."""
UMI_PROTOCOLS = ("celseq", "celseq2", "indrop")

Pair = tuple[AnnData, AnnData]


@dataclass(frozen=True)
class MappingTask(Task):
    """A task whose two sides differ in their technical batches.

    Parameters
    ----------
    batch_key
        Column of ``obs`` that holds the sample or library, on both sides.
    """

    batch_key: str = BATCH_KEY

    def __post_init__(self) -> None:
        shared = set(self.reference.obs[self.batch_key]) & set(self.query.obs[self.batch_key])
        if shared:
            raise ValueError(f"{self.name}: batches {sorted(shared)} are on both sides.")

    def labelled_reference(self) -> AnnData:
        """Copy of the reference with label, donor and batch as the only columns of ``obs``."""
        return self._copy(self.reference, self._columns([self.label_key]))

    def unlabelled_query(self) -> AnnData:
        """Copy of the query with donor and batch, and without any label."""
        return self._copy(self.query, self._columns([]))

    def _columns(self, first: list[str]) -> list[str]:
        return list(dict.fromkeys([*first, self.donor_key, self.batch_key]))


def _with_batch(adata: AnnData, *columns: str) -> AnnData:
    """Write the values of `columns`, joined by ``_``, to ``BATCH_KEY``."""
    values = adata.obs[columns[0]].astype(str)
    for column in columns[1:]:
        values = values + "_" + adata.obs[column].astype(str)
    adata.obs[BATCH_KEY] = pd.Categorical(values)
    return adata


def _select(adata: AnnData, mask: np.ndarray) -> AnnData:
    """Copy of the cells under `mask`, without the categories of the others."""
    part = adata[mask].copy()
    for key in (LABEL_KEY, DONOR_KEY, BATCH_KEY):
        part.obs[key] = part.obs[key].cat.remove_unused_categories()
    return part


def _drop_unknown_types(reference: AnnData, query: AnnData) -> Pair:
    """The query without the cells of types that the reference lacks."""
    known = query.obs[LABEL_KEY].isin(reference.obs[LABEL_KEY].unique()).to_numpy()
    return reference, query if known.all() else _select(query, known)


def _drop_absent_genes(reference: AnnData, query: AnnData) -> Pair:
    """The reference without the genes that the query lacks, where the query lacks most of them.

    Only `pbmc3k -> kang` is such a task: its query holds 1,280 of 13,714 genes, a model of which
    would see zeros almost everywhere (SCTAB refuses such a query).
    """
    shared = reference.var_names.isin(query.var_names)
    return reference if shared.mean() >= MIN_SHARED else reference[:, shared].copy(), query


def _ctrl_stim(folder: Path) -> Pair:
    """The bundled cells, 13 labels: control, stimulated. The 8 donors are on both sides."""
    adata = _with_batch(read(folder, BUNDLED, "cell_type"), DONOR_KEY, "condition")
    control = adata.obs["condition"].eq("ctrl").to_numpy()
    return _select(adata, control), _select(adata, ~control)


def _kang_pbmc3k(folder: Path) -> Pair:
    """All control cells of Kang et al. and pbmc3k; 8 terms, naive and memory CD4 T as one."""
    merge = CD4_SUBSETS_TO_CD4 | PLATELET_IS_MEGAKARYOCYTE
    kang, pbmc3k = read(folder, KANG, TERM_KEY), read(folder, PBMC3K, TERM_KEY, merge)
    return _with_batch(kang, DONOR_KEY), _with_batch(pbmc3k, DONOR_KEY)


def _bundled_pbmc3k(folder: Path) -> Pair:
    """The bundled cells of both conditions and pbmc3k; naive and memory CD4 T apart.

    Types that the query alone holds (the other way round: activated T, pDC, erythroid) stay in
    the query and are left out of the score (`Task.scored`).
    """
    bundled = read(folder, BUNDLED, TERM_KEY)
    pbmc3k = read(folder, PBMC3K, TERM_KEY, PLATELET_IS_MEGAKARYOCYTE)
    return _with_batch(bundled, DONOR_KEY, "condition"), _with_batch(pbmc3k, DONOR_KEY)


def _chemistries(folder: Path) -> Pair:
    """10x 3' v2, and 10x 3' v3 with 5' v1: one donor each; 3 labels."""
    adata = _with_batch(read(folder, CHEMISTRIES, "cell_type"), "batch")
    v2 = adata.obs["batch"].eq("V2").to_numpy()
    return _select(adata, v2), _select(adata, ~v2)


def _cell_lines(folder: Path) -> Pair:
    """CEL-seq2 (5 lines) and Drop-seq (3 lines), cells that demuxlet calls singlets.

    In the file a donor is a line, that is, a label. The plate stands for the donor here, so that
    no method that holds out donors holds out labels.
    """
    adata = _with_batch(read(folder, CELL_LINES, "cell_type"), "batch")
    adata.obs[DONOR_KEY] = adata.obs[BATCH_KEY]
    single = adata.obs["demuxlet_cls"].eq("SNG").to_numpy()
    celseq2 = adata.obs["assay"].eq("CEL-seq2").to_numpy()
    return _select(adata, single & celseq2), _select(adata, single & ~celseq2)


def _pancreas(folder: Path) -> Pair:
    """CEL-seq, CEL-seq2 and inDrop (UMI), and Smart-seq2 and Fluidigm C1 (reads)."""
    adata = _with_batch(read(folder, PANCREAS, "cell_type"), "batch")
    umi = adata.obs["dataset_id"].isin(UMI_PROTOCOLS).to_numpy()
    return _select(adata, umi), _select(adata, ~umi)


# Forward name: name of the reversed task, the two sides in the forward order, and whether query
# cells of types that the reference lacks are dropped (elsewhere they stay and are not scored).
PAIRS: dict[str, tuple[str, Callable[[Path], Pair], bool]] = {
    "kang ctrl -> stim": ("kang stim -> ctrl", _ctrl_stim, False),
    "kang -> pbmc3k": ("pbmc3k -> kang", _kang_pbmc3k, False),
    "bundled -> pbmc3k": ("pbmc3k -> bundled", _bundled_pbmc3k, False),
    "10x v2 -> v3, 5'": ("10x v3, 5' -> v2", _chemistries, False),
    "cell lines CEL-seq2 -> Drop-seq": ("cell lines Drop-seq -> CEL-seq2", _cell_lines, True),
    "pancreas, UMI -> full length": ("pancreas, full length -> UMI", _pancreas, True),
}
FORWARD = list(PAIRS)
TUNING = [name for name, _, _ in PAIRS.values()]
INTEGRATION = 3
"""How many tasks, the first of either list, have enough cells to score an integration."""


def iter_mapping_tasks(
    folder: Path, names: list[str] | None = None, *, tuning: bool = False
) -> Iterator[MappingTask]:
    """Yield the tasks in a fixed order, one in memory at a time.

    Parameters
    ----------
    folder
        Folder with the ``.h5ad`` files.
    names
        Names out of `FORWARD`, or with `tuning` out of `TUNING`; all of them where `None`.
    tuning
        Yield the reversed tasks.

    Raises
    ------
    FileNotFoundError
        Where a data set is not in `folder`.
    ValueError
        Where a batch is on both sides of a task.
    """
    for forward, (backward, build, drop) in PAIRS.items():
        name = backward if tuning else forward
        if names is not None and name not in names:
            continue
        first, second = build(folder)
        reference, query = (second, first) if tuning else (first, second)
        if drop:
            reference, query = _drop_unknown_types(reference, query)
        reference, query = _drop_absent_genes(reference, query)
        yield MappingTask(name, name, reference, query)
