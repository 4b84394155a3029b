"""Plain values of a training report: what the page shows and the JSON file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from scvi_sctab.report._report import Confusion, Provenance, ReliabilityBin


@dataclass(frozen=True)
class TrainingVerdict:
    """Sentences about a trained model, and the counts that they rest on.

    Attributes
    ----------
    sentences
        Three sentences: held-out cells, labels that are hard to learn, and the reference itself.
    n_labels, n_trained, n_held_out
        Numbers of labels that can be predicted, and of cells.
    accuracy, f1_macro
        Of held-out cells; ``None`` without any.
    n_issues
        Labels that contradict predictions; ``None`` if they were not audited.
    """

    sentences: tuple[str, ...]
    n_labels: int
    n_trained: int
    n_held_out: int
    accuracy: float | None = None
    f1_macro: float | None = None
    n_issues: int | None = None


@dataclass(frozen=True)
class EpochRow:
    """Scores of a network after an epoch; ``None`` where they were not computed."""

    network: int
    epoch: int
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    validation_f1_macro: float | None


@dataclass(frozen=True)
class LabelScore:
    """Scores of a label; ``None`` without held-out cells."""

    label: str
    color: str
    n_trained: int
    n_held_out: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class ConfusionTable:
    """Held-out cells by true and predicted label.

    Attributes
    ----------
    labels
        True labels of the rows; with many labels those with the most errors, and one row for the
        rest.
    columns
        Predicted labels, in the same order.
    n_cells
        Cells of each row.
    counts
        Cells of each row and column.
    rest
        Name of the row and column of the other labels, if there are any. Where these meet, cells
        may be right, or have another one of these labels.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    n_cells: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]
    rest: str | None = None


@dataclass(frozen=True)
class HeldOut:
    """Reliability of the probabilities of held-out cells."""

    n_held_out: int
    accuracy: float
    calibration_error: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class ConfusedPair:
    """Two labels that cannot be learnt apart, by held-out cells.

    Attributes
    ----------
    labels
        The two labels.
    n_confused, share_confused
        Cells of one that got the other, and their share of the cells of both.
    n_both, share_both
        Cells with both labels in their prediction set, and their share of those with either;
        ``None`` if the model is not calibrated.
    """

    labels: tuple[str, str]
    n_confused: int
    share_confused: float
    n_both: int | None = None
    share_both: float | None = None


@dataclass(frozen=True)
class GroupError:
    """A donor or a batch beside the cells of the same labels in the others."""

    group: str
    n_cells: int
    n_issues: int | None
    error: float
    expected: float
    stands_out: bool


@dataclass(frozen=True)
class GroupErrors:
    """Groups of a column of ``obs``: those with the largest errors, of ``n_groups``."""

    column: str
    n_groups: int
    n_outstanding: int
    groups: tuple[GroupError, ...]


@dataclass(frozen=True)
class AuditLabel:
    """A label with the issues of its cells; ``None`` if it cannot be audited."""

    label: str
    n_cells: int
    n_issues: int
    share: float | None
    recall: float | None


@dataclass(frozen=True)
class AuditPair:
    """Cells of a label that look like another one, with genes that tell them from their label."""

    label: str
    suggested_label: str
    n_cells: int
    share: float
    genes: tuple[str, ...]


@dataclass(frozen=True)
class AuditCell:
    """A cell whose label contradicts the predictions."""

    cell: str
    label: str
    suggested_label: str
    probability: float
    score: float


@dataclass(frozen=True)
class AuditSummary:
    """Audit of labels: all numbers of the page, the first rows of its tables.

    ``n_cells`` are audited; ``n_not_audited`` have a label that only one fold has.
    """

    n_cells: int
    n_not_audited: int
    n_folds: int
    n_issues: int
    share: float
    accuracy: float
    labels: tuple[AuditLabel, ...]
    n_pairs: int
    pairs: tuple[AuditPair, ...]
    cells: tuple[AuditCell, ...]


@dataclass(frozen=True)
class TrainingReport:
    """Report on the training of a model.

    Attributes
    ----------
    title
        Title of the page.
    verdict, epochs, scores, confusion, confusions, held_out, pairs, provenance
        Sections of the page; ``None`` or empty without held-out cells.
    groups
        Donors and batches: of all audited cells, or of the held-out ones.
    audit
        Audit of the labels, if there was one.
    is_calibrated
        Whether probabilities are calibrated, and there are prediction sets.
    can_audit
        Whether the labels of the model can be audited.
    settings
        How the model was trained, as text.
    """

    template: ClassVar[str] = "training.html"

    title: str
    verdict: TrainingVerdict
    epochs: tuple[EpochRow, ...]
    scores: tuple[LabelScore, ...]
    confusion: ConfusionTable | None
    confusions: tuple[Confusion, ...]
    held_out: HeldOut | None
    pairs: tuple[ConfusedPair, ...]
    groups: tuple[GroupErrors, ...]
    audit: AuditSummary | None
    provenance: Provenance
    is_calibrated: bool = False
    can_audit: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values, as the JSON file holds them."""
        return asdict(self)
