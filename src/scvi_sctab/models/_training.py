"""Training of a ready-made model, the same for the one that is shipped and for those scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scvi
import torch

from scvi_sctab.model import SCTAB
from scvi_sctab.models._recipes import BATCH, DONOR, LABELS

if TYPE_CHECKING:
    from anndata import AnnData

    from scvi_sctab.models._recipes import Recipe

SEED = 0


def train_model(cells: AnnData, recipe: Recipe) -> SCTAB:
    """Train a model with default settings, on one thread, so that it can be repeated bit for bit.

    Parameters
    ----------
    cells
        Cells of the recipe, or some of them.
    recipe
        The recipe.
    """
    torch.set_num_threads(1)
    scvi.settings.seed = SEED
    several = {key: cells.obs[key].nunique() > 1 for key in (BATCH, DONOR)}
    SCTAB.setup_anndata(
        cells,
        labels_key=LABELS,
        batch_key=BATCH if several[BATCH] else None,
        donor_key=DONOR if several[DONOR] else None,
    )
    model = SCTAB(cells)
    present = set(model.labels)
    model.set_ontology(coarse_labels=[label for label in recipe.coarse_labels if label in present])
    model.train(train_size=recipe.train_size, accelerator="cpu", enable_progress_bar=False)
    return model
