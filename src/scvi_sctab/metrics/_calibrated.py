"""Calibration of a classifier on held-out cells: scaling of logits, sets, novelty and shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logsumexp

from scvi_sctab.metrics._conformal import p_values, prediction_sets
from scvi_sctab.metrics._novelty import LabelCenters, distance_to_centers
from scvi_sctab.metrics._scaling import Scaling, ScalingMethod, fit_scaling
from scvi_sctab.metrics._shift import shift_test

Array = NDArray[Any]

# Standard errors added to the log-temperature: the held-out cells also chose the best epoch and
# come from few donors, so that the temperature fitted to them is too low for other cells.
_CAUTION = 1.0


@dataclass(frozen=True)
class CellLogits:
    """Logits of cells, with and without adaptation to a query.

    Parameters
    ----------
    logits
        Logits of the model, ``(n_cells, n_labels)``.
    reference_logits
        Logits without the query adapter, ``(n_cells, n_labels)``.
    features
        Values by which cells are compared with those of the reference, ``(n_cells, n_labels)``:
        reference logits that have not been normalised.
    """

    logits: Array
    reference_logits: Array
    features: Array

    def __len__(self) -> int:
        return len(self.logits)

    @staticmethod
    def concatenate(parts: list[CellLogits]) -> CellLogits:
        """Join the logits of several groups of cells."""
        return CellLogits(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.reference_logits for part in parts]),
            np.concatenate([part.features for part in parts]),
        )

    def take(self, cells: Array) -> CellLogits:
        """Select cells by position."""
        return CellLogits(self.logits[cells], self.reference_logits[cells], self.features[cells])


@dataclass(frozen=True)
class Calibration:
    """Scaling of logits, and the scores of held-out cells; created by :meth:`fit`.

    Parameters
    ----------
    scaling
        Scaling of logits to calibrated probabilities.
    centers
        Centers of the known labels.
    truth, probability
        Code of the true label of each held-out cell, and its calibrated probability,
        ``(n_held_out,)``.
    distance
        Distance of each held-out cell to the nearest label, ``(n_held_out,)``.
    statistics
        Result of :meth:`describe` for the held-out cells.
    """

    scaling: Scaling
    centers: LabelCenters
    truth: Array
    probability: Array
    distance: Array
    statistics: pd.DataFrame

    @classmethod
    def fit(
        cls,
        centers: LabelCenters,
        held_out: CellLogits,
        labels: Array,
        method: ScalingMethod = "prior",
        counts: Array | None = None,
    ) -> Calibration:
        """Calibrate on labelled cells that were not trained on.

        Parameters
        ----------
        centers
            Centers of labels, by :func:`fit_centers` of other cells, such as those trained on.
        held_out, labels
            Held-out cells and the codes of their labels.
        method, counts
            As in :func:`fit_scaling`.
        """
        scaling = fit_scaling(held_out.logits, labels, method, counts, caution=_CAUTION)
        probabilities = scaling.probabilities(held_out.logits)
        return cls(
            scaling=scaling,
            centers=centers,
            truth=np.asarray(labels),
            probability=probabilities[np.arange(len(held_out)), labels],
            distance=distance_to_centers(held_out.features, centers),
            statistics=_statistics(held_out, scaling),
        )

    def probabilities(self, cells: CellLogits) -> NDArray[np.float32]:
        """Compute calibrated probabilities, ``(n_cells, n_labels)``."""
        return self.scaling.probabilities(cells.logits)

    def novelty(self, cells: CellLogits) -> NDArray[np.float64]:
        """Compute the novelty p-value of each cell, ``(n_cells,)``.

        NaN where the predicted label was added after calibration.
        """
        features = cells.features[:, : len(self.centers.whitening)]
        p = p_values(distance_to_centers(features, self.centers), self.distance)
        return np.where(cells.logits.argmax(axis=1) < len(self.scaling.bias), p, np.nan)

    def sets(
        self, probabilities: NDArray[np.float32], error_rate: float, by_label: bool = False
    ) -> NDArray[np.bool_]:
        """Return the labels that cannot be ruled out, as :func:`prediction_sets`."""
        return prediction_sets(probabilities, self.probability, self.truth, error_rate, by_label)

    def describe(self, cells: CellLogits) -> pd.DataFrame:
        """Return the code of the predicted label and the statistics of the shift test per cell."""
        n_labels = len(self.scaling.bias)
        known = (a[:, :n_labels] for a in (cells.reference_logits, cells.features))
        return _statistics(CellLogits(cells.logits, *known), self.scaling)

    def shift(self, described: pd.DataFrame) -> pd.DataFrame:
        """Compare cells, as :meth:`describe` returns them, with held-out cells: `shift_test`."""
        return shift_test(described, self.statistics)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, arrays and frames, to save."""
        return {
            **self.scaling._asdict(),
            **self.centers._asdict(),
            "truth": self.truth,
            "probability": self.probability,
            "distance": self.distance,
            "statistics": self.statistics,
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Calibration:
        """Restore the result of :meth:`to_dict`."""
        rest = dict(saved)
        scaling = Scaling(*(rest.pop(name) for name in Scaling._fields))
        centers = LabelCenters(*(rest.pop(name) for name in LabelCenters._fields))
        return cls(scaling=scaling, centers=centers, **rest)


def _statistics(cells: CellLogits, scaling: Scaling) -> pd.DataFrame:
    """Compute the statistics; sequencing depth is left out, as it also differs between donors."""
    probabilities = scaling.probabilities(cells.reference_logits)
    return pd.DataFrame(
        {
            "label": probabilities.argmax(axis=1),
            "probability": probabilities.max(axis=1),
            "log-sum-exp of logits": logsumexp(cells.features, axis=1),
        }
    )
