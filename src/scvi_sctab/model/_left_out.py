"""Predictions for the cells of each study by a model that was trained without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scvi_sctab._logging import logger
from scvi_sctab.annotation import MIN_CELLS_TO_CALIBRATE
from scvi_sctab.base import draw_cells
from scvi_sctab.data import find_column, name_values
from scvi_sctab.metrics import CellLogits, LeftOut, distance_to_centers, fit_centers
from scvi_sctab.model._siblings import check_siblings, train_sibling, without_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.model._sctab import SCTAB

# Cells of each study that a calibration takes.
_MAX_CELLS_PER_STUDY = 10_000


def predict_left_out(
    model: SCTAB, study_key: str, train_kwargs: dict[str, Any]
) -> tuple[CellLogits, NDArray[np.int64], LeftOut]:
    """Train a model without each study in turn, and let it predict the cells of that study.

    Parameters
    ----------
    model
        Trained model of all studies; it is left as it is.
    study_key
        Column of its AnnData with the study of each cell.
    train_kwargs
        Arguments of ``train``.

    Returns
    -------
    Logits of labelled cells of all studies, codes of their labels, and what else is known of
    them. Cells whose label no other study has are left out.

    Raises
    ------
    KeyError
        If there is no such column.
    TypeError
        If an argument of the split or of checkpoints is given.
    ValueError
        If fewer than two studies have enough labelled cells, or the model cannot be trained again
        from the start.
    """
    check_siblings(model, train_kwargs, "study")
    if model.train_indices is None:
        raise ValueError(
            "The cells that this model was trained on are not here: load it with them, "
            "`SCTAB.load(path, adata)`, and train it again."
        )
    codes = model._codes_of(model._select(None))
    studies = name_values(find_column(model.adata.obs, study_key, "study_key"))
    enough = [
        study
        for study in range(len(studies.categories))
        if ((studies.codes == study) & (codes >= 0)).sum() >= MIN_CELLS_TO_CALIBRATE
    ]
    if len(enough) < 2:
        raise ValueError(
            f"Fewer than two values of {study_key!r} have {MIN_CELLS_TO_CALIBRATE} labelled cells; "
            "across studies a model can be calibrated on two or more. With one study: "
            "`model.calibrate()`."
        )
    logger.info(
        f"Training without each of {len(enough)} values of {study_key!r} in turn, as often again."
    )
    parts = [
        _predict_study(model, np.asarray(studies.codes == study), codes, train_kwargs)
        for study in enough
    ]
    groups = np.repeat(np.arange(len(parts)), [len(logits) for logits, _, _ in parts])
    logits, true, distances = zip(*parts, strict=True)
    left_out = LeftOut(groups, np.concatenate(distances))
    return CellLogits.concatenate(list(logits)), np.concatenate(true), left_out


def _predict_study(
    model: SCTAB,
    of_study: NDArray[np.bool_],
    codes: NDArray[np.int64],
    train_kwargs: dict[str, Any],
) -> tuple[CellLogits, NDArray[np.int64], NDArray[np.float64]]:
    """Return logits, codes of labels and novelty distances of the cells of one study."""
    nobody = np.zeros(0, np.intp)
    held_out = model._held_out_cells().positions if model._has_held_out() else nobody
    trained, checked = (
        part[~of_study[part]] for part in (model._trained_cells().positions, held_out)
    )
    sibling = train_sibling(model, trained, checked, train_kwargs)
    own, own_codes = sibling._labeled_logits(sibling._select(None, trained), None, None)
    chosen = draw_cells(np.flatnonzero(of_study & np.isin(codes, own_codes)), _MAX_CELLS_PER_STUDY)
    cells = sibling._select(without_batches(model), chosen)
    logits, true = sibling._labeled_logits(cells, None, None)
    distance = distance_to_centers(logits.features, fit_centers(own.features, own_codes))
    return logits, true, distance
