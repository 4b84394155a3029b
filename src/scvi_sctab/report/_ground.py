"""Ground of the statements: rates, held-out cells and the test of shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scvi_sctab._constants import WARN_GENE_OVERLAP
from scvi_sctab.report._format import count, percent
from scvi_sctab.report._held_out import describe_held_out, list_confusions
from scvi_sctab.report._report import GeneCover, Ground, ShiftRow

if TYPE_CHECKING:
    from scvi_sctab.report._build import Findings


def describe_ground(findings: Findings, genes: GeneCover) -> Ground:
    """Describe held-out cells, the test of shift, and what may not hold.

    Parameters
    ----------
    findings
        Frames of the report.
    genes
        Genes that the query has.
    """
    rates, calibration = findings.rates, findings.calibration
    stated = (rates.error_rate, rates.false_alarm_rate, rates.term_level)
    cautions = []
    if findings.n_trained:
        cautions.append(
            f"The model was trained on {count(findings.n_trained)} of these cells. Annotate cells "
            "that it was not trained on; `model.evaluate()` scores those held out in training."
        )
    elif findings.difference:
        cautions.append(
            "The cells differ from the held-out ones: probabilities, prediction sets and novelty "
            "may be wrong more often than stated. Calibrate on 50 or more labelled cells of this "
            "study, `model.calibrate(labelled_cells)`, to make the rates hold."
        )
    if genes.share < WARN_GENE_OVERLAP:
        cautions.append(
            f"The query has {percent(genes.share)} of the model's genes; the others count as not "
            "expressed, which makes labels less certain than they look."
        )
    if calibration is None:
        cautions.append(
            "The model is not calibrated, so that there are no prediction sets and no test of "
            "novelty: `model.calibrate(labelled_cells)`."
        )
        return Ground(*stated, cautions=tuple(cautions))
    cautions.append(
        "Rates hold for cells like the held-out ones, on the mean over cells and not within each "
        "type."
    )
    shift = (
        ()
        if findings.shift is None
        else tuple(
            ShiftRow(str(name), float(row["distance"]), float(row["limit"]), bool(row["shifted"]))
            for name, row in findings.shift.iterrows()
        )
    )
    predicted = calibration.statistics["label"].to_numpy()
    probability = calibration.statistics["probability"].to_numpy(dtype=float)
    right = predicted == calibration.truth
    names = np.asarray(findings.all_labels)
    held_out = describe_held_out(probability, right)
    return Ground(
        *stated,
        n_held_out=held_out.n_held_out,
        accuracy=held_out.accuracy,
        calibration_error=held_out.calibration_error,
        bins=held_out.bins,
        confusions=list_confusions(names[np.asarray(calibration.truth)], names[predicted]),
        shift=shift,
        cautions=tuple(cautions),
    )
