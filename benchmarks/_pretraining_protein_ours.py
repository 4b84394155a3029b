"""Proteins by an encoder that was pretrained on RNA."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anndata
import numpy as np
from _pretraining_ours import ENCODERS, QUIET, missing, pretrain
from _pretraining_protein_tasks import PROTEINS, ProteinSplit

if TYPE_CHECKING:
    from collections.abc import Sequence

from _pretraining_protein_peers import ProteinArm


def protein_predictor(
    split: ProteinSplit, seed: int, *, both_sides: bool, options: Sequence[tuple[str, object]] = ()
) -> np.ndarray:
    """A masked autoencoder of RNA, then a head on it for proteins.

    Parameters
    ----------
    split, seed
        The split and the seed.
    both_sides
        Whether the RNA of the query is there when the autoencoder is trained, as for totalVI.
    options
        Of `ProteinPredictor.from_pretrained`.
    """
    import scvi

    from scvi_sctab.pretrain import ProteinPredictor

    sides = [split.reference, split.query] if both_sides else [split.reference]
    encoder = pretrain(anndata.concat(sides, index_unique="-"), ENCODERS["mae"], seed)
    scvi.settings.seed = seed
    reference = split.reference.copy()
    predictor = ProteinPredictor.from_pretrained(
        encoder, reference, protein_obsm_key=PROTEINS, **dict(options)
    )
    predictor.train(**QUIET)
    proteins = predictor.predict_protein(split.query.copy())
    return proteins[list(reference.obsm[PROTEINS].columns)].to_numpy()


def build_protein_arms() -> dict[str, ProteinArm]:
    """Protein predictors of ours."""
    reason = missing("ProteinPredictor")
    alone, both = (partial(protein_predictor, both_sides=both) for both in (False, True))
    return {
        "mae": ProteinArm("MAE + protein head", alone, True, reason),
        "mae-both": ProteinArm("MAE of both sides + protein head", both, True, reason),
    }
