"""Refit of what is convex in a model, on the cells that it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from scvi_sctab._config import PANEL, PRESETS
from scvi_sctab.base import draw_cells
from scvi_sctab.data import class_weights, normalize_block, read_counts
from scvi_sctab.sparse import CSR
from scvi_sctab.train import refit_layer

if TYPE_CHECKING:
    from torch import Tensor

    from scvi_sctab.model._sctab import SCTAB


def refit_to_panel(model: SCTAB) -> None:
    """Fit the linear path and the head of the encoder to the training cells of a model.

    The loss is that of training, with its class weights. The encoder stays as it is; with running
    statistics of batch norm of these cells it was no better.

    Parameters
    ----------
    model
        Model on the CPU, with its AnnData; only the weights of its module are changed.
    """
    module, n_labels = model.module, len(model.labels)
    codes, trained = model._label_codes(), model.train_indices_
    trained = trained[codes[trained] < n_labels]
    of_label = (trained[codes[trained] == code] for code in range(n_labels))
    chosen = np.sort(
        np.concatenate([draw_cells(cells, PANEL.max_cells_per_label) for cells in of_label])
    )
    counts = np.bincount(codes[trained], minlength=n_labels)
    drawn = np.bincount(codes[chosen], minlength=n_labels)
    power = PRESETS[model.preset_].train.class_weight_power
    # Labels of which only some cells are read weigh as all of their cells.
    weights = class_weights(codes[trained], n_labels, power) * counts / np.maximum(drawn, 1)
    weights *= len(chosen) / len(trained)

    blocks = read_counts(model.adata, model.layer, chosen)
    x = CSR.from_scipy(sparse.vstack(list(map(normalize_block, blocks)), format="csr"))
    labels, class_weight = torch.from_numpy(codes[chosen]), torch.from_numpy(weights).float()

    def loss(logits: Tensor) -> Tensor:
        masked = module._mask_coarse(logits)
        value: Tensor = module._cross_entropy(masked, labels, class_weight, "mean", None)
        return value

    refit_layer(module.linear_skip, x, loss, PANEL)
    module.eval()
    with torch.no_grad():
        embedding = module.encoder(x).embedding
    refit_layer(module.final_mapping, embedding, loss, PANEL)
