"""State of annotations beside logits: labels, calibration, ontology, coarse labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from scvi_sctab.annotation._coarse import accepted_labels
from scvi_sctab.annotation._profiles import Profiles
from scvi_sctab.annotation._status import FEWEST_MOLECULES
from scvi_sctab.metrics import Calibration, CellLogits
from scvi_sctab.ontology import LabelHierarchy

# Lower bound of probabilities, to take finite logarithms.
_MIN_PROBABILITY = 1e-30


@dataclass(frozen=True, eq=False)
class AnnotationState:
    """All state that an annotation depends on beside logits; it is replaced, not changed.

    Probabilities are computed in three stages: **logits** of the network; **class-balanced**
    probabilities, for which every label is about equally frequent, as in training with class
    weights; and calibrated probabilities **with the label prior**.

    Parameters
    ----------
    labels
        Names of the labels in the order of the logits, ``(n_labels,)``.
    calibration
        Calibration on held-out cells; ``None`` if there is none, or if it is no longer valid.
    hierarchy
        Terms of the labels in the Cell Ontology, if they were matched.
    coarse_labels
        Finer labels of each coarse label; coarse labels are not predicted.
    one_vs_rest
        Whether a logit is that of a label against all others, as in models imported from
        CellTypist. Before a calibration the probabilities of a cell then need not sum to one.
    profiles
        Expression of the labels in the reference, over the genes of the model, if it was measured.
    """

    labels: NDArray[np.str_]
    calibration: Calibration | None = None
    hierarchy: LabelHierarchy | None = None
    coarse_labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    one_vs_rest: bool = False
    profiles: Profiles | None = None

    @property
    def predictable(self) -> NDArray[np.bool_]:
        """Labels that can be predicted, ``(n_labels,)``."""
        return ~np.isin(self.labels, list(self.coarse_labels))

    @property
    def accepted(self) -> NDArray[np.bool_] | None:
        """Labels that each label stands for, ``(n_labels, n_labels)``, if some are coarse."""
        return accepted_labels(self.labels, self.coarse_labels) if self.coarse_labels else None

    def class_balanced(self, logits: NDArray[np.floating]) -> NDArray[np.float32]:
        """Compute probabilities without the label prior, at the calibrated temperature."""
        if self.calibration is None:
            return self.as_shares(self.probabilities(logits))
        return softmax(logits / self.calibration.scaling.temperature, axis=1)

    def with_label_prior(self, probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
        """Apply the label prior to class-balanced probabilities."""
        if self.calibration is None:
            return probabilities
        logits = np.log(np.maximum(probabilities, _MIN_PROBABILITY))
        return self.calibration.scaling._replace(temperature=1.0).probabilities(logits)

    def probabilities(self, logits: NDArray[np.floating]) -> NDArray[np.float32]:
        """Compute probabilities, with the label prior if calibrated, ``(n_cells, n_labels)``."""
        if self.calibration is None:
            return expit(logits) if self.one_vs_rest else softmax(logits, axis=1)
        return self.calibration.scaling.probabilities(logits)

    def as_shares(self, probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
        """Divide probabilities of a label against all others by their sum over the labels."""
        if not self.one_vs_rest or self.calibration is not None:
            return probabilities
        total = probabilities.sum(axis=1, keepdims=True)
        return probabilities / np.maximum(total, _MIN_PROBABILITY)

    def prediction_sets(
        self, probabilities: NDArray[np.float32], error_rate: float, by_label: bool = False
    ) -> NDArray[np.bool_]:
        """Find labels not ruled out at an error rate, ``(n_cells, n_labels)``."""
        return self.calibrated().sets(probabilities, error_rate, by_label) & self.predictable

    def calibrated(self) -> Calibration:
        """Return the calibration.

        Raises
        ------
        RuntimeError
            If there is none.
        """
        if self.calibration is None:
            raise RuntimeError(
                "This model is not calibrated: too few cells were held out in training, it was "
                "joined from models or imported, or a query has changed the reference's parameters "
                "since. `model.calibrate(adata)` with labelled cells that it was not trained on."
            )
        return self.calibration

    def for_labels(self, labels: NDArray[np.str_]) -> AnnotationState:
        """Return the state for a model with further labels; the calibration is kept."""
        hierarchy = None if self.hierarchy is None else self.hierarchy.with_labels(labels)
        return replace(self, labels=labels, hierarchy=hierarchy)

    def for_query(self, cells: CellLogits) -> AnnotationState:
        """Return the state for a query, of which some cells are given.

        See :meth:`Calibration.for_query`; cells of low quality do not count.
        """
        if self.calibration is None:
            return self
        if cells.n_molecules is not None:
            cells = cells.take(cells.n_molecules >= FEWEST_MOLECULES)
        return replace(self, calibration=self.calibration.for_query(cells))

    def no_logits(self) -> CellLogits:
        """Return the logits of no cells."""
        none = np.zeros((0, len(self.labels)), np.float32)
        return CellLogits(none, none, none)

    def join_logits(self, parts: Iterable[CellLogits]) -> CellLogits:
        """Join the logits of several groups of cells, which may be none."""
        return CellLogits.concatenate(list(parts) or [self.no_logits()])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and arrays, to save."""
        return {
            "labels": [str(label) for label in self.labels],
            "calibration": self.calibration and self.calibration.to_dict(),
            "hierarchy": self.hierarchy and self.hierarchy.to_dict(),
            "coarse_labels": {label: list(finer) for label, finer in self.coarse_labels.items()},
            # Only where it holds: the digest of a model of an early version stays the same.
            **({"one_vs_rest": True} if self.one_vs_rest else {}),
            **({} if self.profiles is None else {"profiles": self.profiles.to_dict()}),
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> AnnotationState:
        """Restore the result of :meth:`to_dict`."""
        calibration, hierarchy = saved["calibration"], saved["hierarchy"]
        profiles = saved.get("profiles")
        return cls(
            np.asarray(saved["labels"]),
            None if calibration is None else Calibration.from_dict(calibration),
            None if hierarchy is None else LabelHierarchy.from_dict(hierarchy),
            dict(saved["coarse_labels"]),
            saved.get("one_vs_rest", False),
            None if profiles is None else Profiles.from_dict(profiles),
        )

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return isinstance(other, AnnotationState) and same_values(self.to_dict(), other.to_dict())

    def __hash__(self) -> int:
        """Hash the names of the labels, which is fast."""
        return hash((tuple(self.labels), tuple(self.coarse_labels)))


def same_values(one: Any, other: Any) -> bool:
    """Compare plain values, arrays and data frames, nested in dictionaries and lists.

    Parameters
    ----------
    one, other
        Values of the saved form of a state.

    Examples
    --------
    >>> same_values({"a": np.arange(2)}, {"a": np.arange(2)})
    True
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_values(one[k], other[k]) for k in one)
    if hasattr(one, "equals"):
        return type(one) is type(other) and bool(one.equals(other))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        a, b = np.asarray(one), np.asarray(other)
        kind = np.issubdtype(a.dtype, np.floating)
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=bool(kind))
    return bool(one == other)
