"""Tasks and panels of the benchmark of panels.

Settings were chosen on the tasks for choosing; the others were opened once, for the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scanpy as sc
from _mapping_tasks import iter_mapping_tasks
from _tasks import LABEL_KEY, PBMC3K, Task, iter_tasks, read

if TYPE_CHECKING:
    from anndata import AnnData

N_DRAWS = 5
# Share of the reference's cells that express a gene of a random panel.
_MIN_EXPRESSED = 0.01
OPENED_ONCE = ("kang -> pbmc3k", "10x v2 -> v3, 5'", "pancreas, UMI -> full length")


@dataclass(frozen=True)
class Draw:
    """A task with the number of the draw of its split and of its random panels.

    Parameters
    ----------
    task
        Reference and query.
    number
        Number of the draw, which is the seed of everything.
    is_opened_once
        Whether nothing was chosen on the task.
    has_split
        Whether the split differs between draws; if not, panels of variable genes do not either.
    """

    task: Task
    number: int
    is_opened_once: bool
    has_split: bool


def draws(folder: Path, *, opened_once: bool) -> Iterator[Draw]:
    """Yield the first draw of each task, then the second of each, and so on."""
    if opened_once:
        tasks = list(iter_mapping_tasks(folder, list(OPENED_ONCE)))
        for number in range(N_DRAWS):
            yield from (Draw(task, number, True, False) for task in tasks)
        return
    cells = read(folder, PBMC3K, "cell_type")
    for number, task in enumerate(iter_tasks(folder, ["kang donors", "bundled donors"])):
        donors = Task("kang donors", "kang donors", task.reference, task.query)
        yield Draw(donors, number, False, True)
        half = np.random.default_rng(number).permutation(cells.n_obs) < cells.n_obs // 2
        halves = Task("pbmc3k halves", "pbmc3k halves", cells[half].copy(), cells[~half].copy())
        yield Draw(halves, number, False, True)


def variable_genes(reference: AnnData, n_genes: int) -> np.ndarray:
    """Names of the highly variable genes of a reference, by scanpy's defaults."""
    cells = _normalised(reference)
    sc.pp.highly_variable_genes(cells, n_top_genes=n_genes)
    return cells.var_names[cells.var["highly_variable"]].to_numpy()


def marker_genes(reference: AnnData, n_genes: int) -> np.ndarray:
    """Names of the first genes of each type by scanpy's ``rank_genes_groups``, types in turn."""
    cells = _normalised(reference)
    counts = cells.obs[LABEL_KEY].value_counts()
    cells = cells[cells.obs[LABEL_KEY].isin(counts.index[counts > 1])].copy()
    sc.tl.rank_genes_groups(cells, LABEL_KEY, method="wilcoxon")
    names = np.array(cells.uns["rank_genes_groups"]["names"].tolist())  # ranks x types
    return np.array(list(dict.fromkeys(names.ravel()))[:n_genes])


def random_genes(reference: AnnData, n_genes: int, seed: int) -> np.ndarray:
    """Names of random genes that 1 % of the cells of a reference express."""
    share = np.asarray((reference.X > 0).mean(axis=0)).ravel()
    pool = reference.var_names[share >= _MIN_EXPRESSED].to_numpy()
    return np.random.default_rng(seed).choice(pool, min(n_genes, len(pool)), replace=False)


def _normalised(reference: AnnData) -> AnnData:
    cells = reference.copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return cells
