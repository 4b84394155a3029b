"""Prediction of proteins by `ProteinPredictor`, on a pretrained encoder or without."""

from __future__ import annotations

from functools import partial

import anndata
import numpy as np
from _pretraining_ours import ENCODERS, QUIET, missing, pretrain
from _pretraining_protein_peers import ProteinArm
from _pretraining_protein_tasks import PROTEINS, ProteinSplit


def from_encoder(
    split: ProteinSplit, seed: int, *, key: str, both_sides: bool = False, frozen: bool = False
) -> np.ndarray:
    """`ProteinPredictor` by default on an encoder that was trained on RNA.

    Parameters
    ----------
    split, seed
        The split and the seed.
    key
        Key of `ENCODERS`.
    both_sides
        Whether the RNA of the query is there when the encoder is trained, as for totalVI.
    frozen
        Whether the encoder stays as it is.
    """
    import scvi

    from scvi_sctab.external import ProteinPredictor

    sides = [split.reference, split.query] if both_sides else [split.reference]
    encoder = pretrain(anndata.concat(sides, index_unique="-"), ENCODERS[key], seed)
    scvi.settings.seed = seed
    options = {"freeze_encoder": True} if frozen else {}
    model = ProteinPredictor.from_pretrained(encoder, split.reference.copy(), PROTEINS, **options)
    return _predict(model, split)


def without_encoder(split: ProteinSplit, seed: int) -> np.ndarray:
    """`ProteinPredictor` by default, nothing pretrained."""
    import scvi

    from scvi_sctab.external import ProteinPredictor

    scvi.settings.seed = seed
    reference = split.reference.copy()
    ProteinPredictor.setup_anndata(reference, PROTEINS)
    return _predict(ProteinPredictor(reference), split)


def _predict(model: object, split: ProteinSplit) -> np.ndarray:
    """Train, and give ``log1p`` counts in the order of the split's proteins."""
    model.train(**QUIET)
    predicted = model.predict_protein(split.query.copy())
    return predicted[list(split.reference.obsm[PROTEINS].columns)].to_numpy()


def build_protein_arms() -> dict[str, ProteinArm]:
    """Protein predictors of ours, by key, in the order of the table."""
    reason = missing("ProteinPredictor", "external")
    runs = {
        "predictor": ("ProteinPredictor", without_encoder),
        "mae": ("ProteinPredictor on MAE", partial(from_encoder, key="mae")),
        "mae-frozen": (
            "ProteinPredictor on MAE, frozen",
            partial(from_encoder, key="mae", frozen=True),
        ),
        "mae-both": (
            "ProteinPredictor on MAE of both sides",
            partial(from_encoder, key="mae", both_sides=True),
        ),
    }
    return {key: ProteinArm(name, run, True, reason) for key, (name, run) in runs.items()}
