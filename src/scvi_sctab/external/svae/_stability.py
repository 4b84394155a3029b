"""Agreement of targets between models from different random weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab.base import seed, seeded
from scvi_sctab.external.svae._training import TrainingArguments, finetune, prepare
from scvi_sctab.metrics import match_latents, target_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.external.svae._model import SpikeSlabVAE

# Cells by whose latents models are matched.
_MAX_CELLS = 5000

# Latents of some cells, and masks.
_Result = tuple["NDArray[np.float32]", "NDArray[np.bool_]"]


def compare_seeds(
    model: SpikeSlabVAE,
    arguments: TrainingArguments,
    *,
    sparsity: Sequence[float | None],
    n_seeds: int,
    max_epochs: int | None,
    finetune_epochs: int | None,
    n_starts: int,
) -> pd.DataFrame:
    """Train models from several random weights, and compare their targets.

    Parameters
    ----------
    model
        Model with cells; it is not changed.
    arguments
        Arguments of all stages.
    sparsity, n_seeds, max_epochs, finetune_epochs, n_starts
        As in :meth:`SpikeSlabVAE.stability`.
    """
    results: dict[int, list[_Result]] = {row: [] for row in range(len(sparsity))}
    used = np.zeros(len(sparsity))
    rng = np.random.default_rng(seed())
    n_cells = model.adata.n_obs
    chosen = np.sort(rng.permutation(n_cells)[:_MAX_CELLS])
    for repeat in range(n_seeds):
        with seeded(seed() + repeat):
            other = type(model)(model.adata, **model._arguments())
            if prepare(other, arguments, max_epochs=max_epochs, n_init=1, n_starts=n_starts):
                raise KeyboardInterrupt
            weights = {k: v.detach().clone() for k, v in other.module.state_dict().items()}
            for row, value in enumerate(sparsity):
                other.module.load_state_dict(weights)
                if finetune(other, arguments, max_epochs=finetune_epochs, sparsity=value):
                    raise KeyboardInterrupt
                used[row] += float(other.module.sparsity) / n_seeds
                latents = other.get_latent_representation(indices=chosen.tolist())
                targets = other.get_intervention_targets().to_numpy() > 0.5
                results[row].append((latents, targets))
    return pd.DataFrame(
        [summarize_agreement(results[row]) for row in results],
        index=pd.Index(used, name="sparsity"),
    )


def summarize_agreement(results: Sequence[_Result]) -> dict[str, float]:
    """Average the agreement of all pairs of models, after matching their latents.

    Parameters
    ----------
    results
        Latents ``(n_cells, n_latent)`` of the same cells, and masks
        ``(n_perturbations, n_latent)``, of each model.

    Returns
    -------
    ``agreement``, the F1 score of masks, its standard deviation over pairs, ``mask_rate`` and
    ``n_active``, the mean number of latents that are a target.
    """
    scores = []
    for (first, masks), (second, other_masks) in combinations(results, 2):
        matching = match_latents(first, second)
        scores.append(target_scores(masks, other_masks, matching).f1)
    return {
        "agreement": float(np.mean(scores)),
        "agreement_sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan"),
        "mask_rate": float(np.mean([masks.mean() for _, masks in results])),
        "n_active": float(np.mean([masks.any(axis=0).sum() for _, masks in results])),
    }
