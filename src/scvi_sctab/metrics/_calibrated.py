"""Calibration of a classifier on held-out cells: scaling of logits, sets, novelty and shift."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import entr, logsumexp

from scvi_sctab.metrics._conformal import p_values, prediction_sets
from scvi_sctab.metrics._novelty import LabelCenters, distance_to_centers
from scvi_sctab.metrics._scaling import Scaling, ScalingMethod, fit_scaling
from scvi_sctab.metrics._shift import shift_test

Array = NDArray[Any]

# Standard errors added to the log-temperature: the held-out cells also chose the best epoch and
# come from few donors, so that the temperature fitted to them is too low for other cells.
_CAUTION = 1.0
# Held-out cells that are all right do not show that no cell is wrong.
_N_DOUBTFUL = 1.0
# Fewer cells say nothing about a query as a whole.
MIN_CELLS_TO_WIDEN = 50
# Quantile of distances that is hardly moved by new types, as long as they are not the majority.
_TYPICAL = 0.25
# Cells of another laboratory are up to 1.7 times as far from the labels as held-out cells of the
# same types, in ten pairs of studies of blood; those of another tissue, from 2.3 times on.
_MAX_STRETCH = 2.0
# Of held-out cells all of which are certain; a tenth of what one cell in two hundred at 50 % adds.
_MIN_ENTROPY = 3e-4


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
    n_molecules
        Number of molecules of the model's genes, ``(n_cells,)``, if it was counted.
    """

    logits: Array
    reference_logits: Array
    features: Array
    n_molecules: Array | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @staticmethod
    def concatenate(parts: list[CellLogits]) -> CellLogits:
        """Join the logits of several groups of cells."""
        numbers = [part.n_molecules for part in parts if part.n_molecules is not None]
        return CellLogits(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.reference_logits for part in parts]),
            np.concatenate([part.features for part in parts]),
            np.concatenate(numbers) if len(numbers) == len(parts) else None,
        )

    def take(self, cells: Array) -> CellLogits:
        """Select cells by position."""
        numbers = None if self.n_molecules is None else self.n_molecules[cells]
        parts = (self.logits[cells], self.reference_logits[cells], self.features[cells])
        return CellLogits(*parts, numbers)


@dataclass(frozen=True)
class LeftOut:
    """Cells of studies that were left out in turn, as the models without their study see them.

    Parameters
    ----------
    groups
        Code of the study of each cell, ``(n_cells,)``.
    distance
        Distance of each cell to the nearest label of its model, ``(n_cells,)``: the models have
        coordinates of their own.
    """

    groups: Array
    distance: Array


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
        Distance to the nearest label of each held-out cell of the reference, ``(n_cells,)``; the
        same cells, unless whole studies were left out.
    statistics
        Result of :meth:`describe` for the held-out cells.
    groups
        Code of the study that each held-out cell is of, ``(n_held_out,)``, if whole studies were
        left out in turn; the rate of prediction sets is then kept within each.
    entropy
        Mean entropy of the calibrated probabilities of the held-out cells, in nats; ``None`` if it
        is not known, as in models of early versions.
    widening
        Factor by which the cells of a query are less certain than the held-out ones, see
        :meth:`for_query`; at least 1.
    """

    scaling: Scaling
    centers: LabelCenters
    truth: Array
    probability: Array
    distance: Array
    statistics: pd.DataFrame
    groups: Array | None = None
    entropy: float | None = None
    widening: float = 1.0

    @classmethod
    def fit(
        cls,
        centers: LabelCenters,
        held_out: CellLogits,
        labels: Array,
        method: ScalingMethod = "prior",
        counts: Array | None = None,
        left_out: LeftOut | None = None,
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
        left_out
            What is known of the held-out cells beside their logits, if these are of models that
            were trained without the study of each cell.
        """
        scaling = fit_scaling(
            held_out.logits, labels, method, counts, caution=_CAUTION, n_doubtful=_N_DOUBTFUL
        )
        probabilities = scaling.probabilities(held_out.logits)
        return cls(
            scaling=scaling,
            centers=centers,
            truth=np.asarray(labels),
            probability=probabilities[np.arange(len(held_out)), labels],
            distance=distance_to_centers(held_out.features, centers)
            if left_out is None
            else left_out.distance,
            statistics=_statistics(held_out, scaling),
            groups=None if left_out is None else left_out.groups,
            entropy=_mean_entropy(held_out, scaling),
        )

    def for_query(self, cells: CellLogits) -> Calibration:
        """Adapt prediction sets and novelty to cells of another laboratory.

        Such cells reach the threshold of the held-out cells less often, with their true label,
        too. Without labels, the ratio of the mean entropies shows by how much: the threshold of
        prediction sets is divided by it where it is above 1, after :cite:t:`Kasa25`.

        All cells of another laboratory are farther from the labels, too. The ratio of the lower
        quartiles of the distances shows by how much: distances are divided by it where it is above
        1. Where it is above 2, the cells as a whole are unlike the reference, and nothing changes.

        Sets and novelty then aim at the stated rates; there is no guarantee for cells of another
        laboratory.

        Parameters
        ----------
        cells
            Cells of the query, or a sample of them; with fewer than 50 nothing changes. The logits
            before an adaptation count, since adaptation raises all probabilities.
        """
        if len(cells) < MIN_CELLS_TO_WIDEN:
            return self
        centers = self.centers.divided_by(self._stretch(cells))
        return replace(self, widening=self._widening(cells), centers=centers)

    def _widening(self, cells: CellLogits) -> float:
        if self.entropy is None:
            return 1.0
        known = cells.reference_logits[:, : len(self.scaling.bias)]
        found = _mean_entropy(replace(cells, reference_logits=known), self.scaling)
        return max(found / max(self.entropy, _MIN_ENTROPY), 1.0)

    def _stretch(self, cells: CellLogits) -> float:
        found, held_out = (
            float(np.quantile(distance, _TYPICAL))
            for distance in (self._distance(cells), self.distance)
        )
        ratio = found / max(held_out, 1e-12)
        return ratio if 1 <= ratio <= _MAX_STRETCH else 1.0

    def probabilities(self, cells: CellLogits) -> NDArray[np.float32]:
        """Compute calibrated probabilities, ``(n_cells, n_labels)``."""
        return self.scaling.probabilities(cells.logits)

    def novelty(self, cells: CellLogits) -> NDArray[np.float64]:
        """Compute the novelty p-value of each cell, ``(n_cells,)``.

        NaN where the predicted label was added after calibration.
        """
        p = p_values(self._distance(cells), self.distance)
        return np.where(cells.logits.argmax(axis=1) < len(self.scaling.bias), p, np.nan)

    def _distance(self, cells: CellLogits) -> NDArray[np.float64]:
        features = cells.features[:, : len(self.centers.whitening)]
        return distance_to_centers(features, self.centers)

    def sets(
        self, probabilities: NDArray[np.float32], error_rate: float, by_label: bool = False
    ) -> NDArray[np.bool_]:
        """Return the labels that cannot be ruled out, as :func:`prediction_sets`."""
        held_out = self.probability / self.widening
        return prediction_sets(
            probabilities, held_out, self.truth, error_rate, by_label, self.groups
        )

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
            # Only where they are known: the digest of a model of an early version stays the same.
            **({} if self.groups is None else {"groups": self.groups}),
            **({} if self.entropy is None else {"entropy": self.entropy}),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Calibration:
        """Restore the result of :meth:`to_dict`."""
        rest = dict(saved)
        scaling = Scaling(*(rest.pop(name) for name in Scaling._fields))
        centers = LabelCenters(*(rest.pop(name) for name in LabelCenters._fields))
        return cls(scaling=scaling, centers=centers, **rest)


def _mean_entropy(cells: CellLogits, scaling: Scaling) -> float:
    return float(entr(scaling.probabilities(cells.reference_logits)).sum(axis=1).mean())


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
