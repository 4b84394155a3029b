"""Label tasks of the pretraining benchmark: one split of donors, with different labelled cells.

The query is two donors of Kang et al.; the reference is the other six, of which some cells are
labelled, depending on the task. Representations are fitted to all cells of the reference, without
labels, and never to the query. The labelled cells depend only on the task and the seed, so that
methods are paired by seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _mapping_tasks import MappingTask
from _tasks import DONOR_KEY, KANG, hold_out, read

if TYPE_CHECKING:
    from anndata import AnnData

QUERY_DONORS = ("1256", "1488")
SPLIT = f"kang donors {'+'.join(QUERY_DONORS)}"
UNLABELLED = "unknown"
FEW = 10
"""Labelled cells of each type where labels are few."""

ONE_DONOR = f"{FEW} per type, one donor"
SIX_DONORS = f"{FEW} per type, six donors"
ALL_LABELS = "all labels"
ZERO_SHOT = "zero-shot, 5-NN"
TASKS = [ONE_DONOR, SIX_DONORS, ALL_LABELS, ZERO_SHOT]


@dataclass(frozen=True)
class PretrainingTask(MappingTask):
    """A split whose reference has labels in part. Donors are its batches."""

    batch_key: str = DONOR_KEY

    def labelled(self, seed: int) -> np.ndarray:
        """Mask of the reference's cells whose labels are known, ``(n_reference,)``.

        Where labels are few, each type has `FEW` cells, drawn without replacement, or as many as
        there are (three of the six donors have fewer than `FEW` megakaryocytes). The one donor is
        the reference's donor number `seed`, in the order of names, so five seeds are five donors.
        """
        labels = self.train_labels
        if self.name in (ALL_LABELS, ZERO_SHOT):
            return np.ones(len(labels), dtype=bool)
        donors = self.reference.obs[self.donor_key].to_numpy().astype(str)
        known = np.unique(donors)
        if self.name == ONE_DONOR:
            known = known[[seed % len(known)]]
        rng = np.random.default_rng(seed)
        drawn = np.zeros(len(labels), dtype=bool)
        for label in np.unique(labels):
            cells = np.flatnonzero((labels == label) & np.isin(donors, known))
            drawn[rng.choice(cells, min(FEW, len(cells)), replace=False)] = True
        return drawn

    def split(self) -> MappingTask:
        """The same cells under one name for all tasks, as representations are kept."""
        names = {"name": SPLIT, "family": SPLIT, "batch_key": self.batch_key}
        return MappingTask(reference=self.reference, query=self.query, **names)

    def partly_labelled(self, seed: int) -> AnnData:
        """Copy of the reference; cells whose label is not known are `UNLABELLED`."""
        reference = self.labelled_reference()
        labels = np.where(self.labelled(seed), self.train_labels, UNLABELLED)
        reference.obs[self.label_key] = labels
        reference.obs[self.label_key] = reference.obs[self.label_key].astype("category")
        return reference


def build_tasks(folder: Path, names: list[str] | None = None) -> list[PretrainingTask]:
    """Tasks of one split; they share its cells.

    Parameters
    ----------
    folder
        Folder with the ``.h5ad`` files.
    names
        Names out of `TASKS`; all of them where `None`.
    """
    reference, query = hold_out(read(folder, KANG, "cell_type"), QUERY_DONORS)
    first = PretrainingTask(TASKS[0], SPLIT, reference, query)
    return [replace(first, name=name) for name in TASKS if names is None or name in names]
