"""Records of a model's reference and of its query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from scvi_sctab._constants import QUERY_POLICIES
from scvi_sctab.annotation import Profiles, same_values
from scvi_sctab.metrics import Calibration
from scvi_sctab.nn import NewEntries
from scvi_sctab.ontology import LabelHierarchy

if TYPE_CHECKING:
    from typing import Self

    from scvi_sctab.data import TrainingRecord


@dataclass(frozen=True)
class ReferenceStatistics:
    """Statistics of the training cells, with which a query is compared.

    Parameters
    ----------
    energy_floor
        Energy (log-sum-exp of the logits) below which a cell resembles nothing in the reference.
    diversity
        Effective number of labels.
    """

    energy_floor: float
    diversity: float

    def to_dict(self) -> dict[str, float]:
        """Return plain numbers, to save."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, saved: Mapping[str, float]) -> Self:
        """Restore the result of :meth:`to_dict`."""
        return cls(**saved)


@dataclass(frozen=True, eq=False)
class QueryTraining:
    """Result of the training of a query model.

    Parameters
    ----------
    trained
        Whether the model was trained on the query.
    changed_labels
        Share of the query's cells whose predicted label was changed by training.
    seems_sorted
        Whether this is a low-diversity query, such as a sorted sample.
    parameters
        A row per tensor with new or changed entries.
    not_adapted
        Reason why the query adapter was not fitted, with the cure; empty if it was.
    """

    trained: bool = False
    changed_labels: float = 0.0
    seems_sorted: bool = False
    parameters: pd.DataFrame = field(default_factory=pd.DataFrame)
    not_adapted: str = ""


@dataclass(frozen=True, eq=False)
class QueryRecord:
    """Record of :meth:`scvi_sctab.SCTAB.load_query_data` and of the training after it.

    Parameters
    ----------
    policy
        Name of the policy, or its patterns.
    new_entries
        Parameters with new entries; ``None`` if all entries are new.
    missing_genes
        Genes of the reference that the query lacks.
    reference_categories
        Batches and other categories of the reference, per column.
    reference_labels
        Labels of the reference.
    known_batches
        Categories of the query that the reference knows, per column.
    training
        Result of the training.
    """

    policy: str | list[str]
    new_entries: Mapping[str, NewEntries | None]
    missing_genes: list[str]
    reference_categories: Mapping[str, list[str]]
    reference_labels: list[str]
    known_batches: Mapping[str, list[str]]
    training: QueryTraining = field(default_factory=QueryTraining)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of names of the reference's parameters that the policy trains."""
        return QUERY_POLICIES[self.policy] if isinstance(self.policy, str) else tuple(self.policy)

    def after(self, training: QueryTraining) -> QueryRecord:
        """Return the record with the result of a training."""
        return replace(self, training=training)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and a data frame, to save."""
        entries = {name: new and new._asdict() for name, new in self.new_entries.items()}
        training = vars(self.training) if self.training.trained else {}
        return {**vars(self), "new_entries": entries, "training": dict(training)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> QueryRecord:
        """Restore the result of :meth:`to_dict`."""
        entries = {
            k: None if v is None else NewEntries(**v) for k, v in saved["new_entries"].items()
        }
        training = QueryTraining(**saved["training"])
        return cls(**{**saved, "new_entries": entries, "training": training})

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return isinstance(other, QueryRecord) and same_values(self.to_dict(), other.to_dict())

    def __hash__(self) -> int:
        """Hash the policy and the labels, which is fast."""
        return hash((str(self.policy), tuple(self.reference_labels)))


@dataclass(frozen=True, eq=False)
class PanelRecord:
    """Record of :meth:`scvi_sctab.SCTAB.restrict`.

    Parameters
    ----------
    n_genes, n_genes_before
        Numbers of genes that the model reads, and that it read before.
    unknown_genes
        Genes of the panel that it does not know.
    macro_f1_before, macro_f1
        Macro F1 on held-out cells, before and on the panel; NaN if no cells were held out.
    confusions
        A row per true label of held-out cells and other label that it is taken for: ``label``,
        ``predicted``, ``n_cells`` of the true label, and the shares of them ``before`` and
        ``after``; the largest increase first.
    """

    n_genes: int
    n_genes_before: int
    unknown_genes: list[str]
    macro_f1_before: float
    macro_f1: float
    confusions: pd.DataFrame

    def lost(self, min_increase: float = 0.1, min_cells: int = 3) -> pd.DataFrame:
        """Select the confusions that the panel added.

        Parameters
        ----------
        min_increase
            Smallest increase of the share of cells of a label.
        min_cells
            Smallest number of cells by which a confusion increased.
        """
        rise = self.confusions["after"] - self.confusions["before"]
        counts = (rise * self.confusions["n_cells"]).round()
        return self.confusions[(rise >= min_increase) & (counts >= min_cells)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and a data frame, to save."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """Restore the result of :meth:`to_dict`."""
        return cls(**saved)


_PARTS: dict[str, Callable[[Any], Any]] = {
    "calibration": Calibration.from_dict,
    "hierarchy": LabelHierarchy.from_dict,
    "profiles": Profiles.from_dict,
}


class Saved:
    """Descriptor of a part of a model's state in its plain form, under its name in files.

    Reading it returns plain values to save; assigning plain values restores the state.

    Parameters
    ----------
    get
        Function that reads the part of a model's state.
    put
        Function that replaces it.
    decode
        Function that builds the state from plain values.
    """

    def __init__(
        self,
        get: Callable[[Any], Any],
        put: Callable[[Any, Any], None],
        decode: Callable[[Any], Any],
    ):
        self._get, self._put, self._decode = get, put, decode

    def __get__(self, model: Any, owner: type | None = None) -> Any:
        if model is None:
            return self
        state = self._get(model)
        return None if state is None else state.to_dict()

    def __set__(self, model: Any, saved: Any) -> None:
        self._put(model, None if saved is None else self._decode(saved))


def saved_annotation(part: str) -> Saved:
    """Build the descriptor of a part of the annotation state.

    Parameters
    ----------
    part
        ``"calibration"``, ``"hierarchy"`` or ``"profiles"``.
    """
    decode = _PARTS[part]

    def put(model: Any, value: Any) -> None:
        model.annotation = replace(model.annotation, **{part: value})

    return Saved(lambda model: getattr(model.annotation, part), put, decode)


def saved_record(
    name: str, kind: type[TrainingRecord | QueryRecord | ReferenceStatistics | PanelRecord]
) -> Saved:
    """Build the descriptor of a record that is an attribute of the model.

    Parameters
    ----------
    name
        Name of the attribute.
    kind
        Class of the record.
    """
    return Saved(
        lambda model: getattr(model, name),
        lambda model, value: setattr(model, name, value),
        kind.from_dict,
    )
