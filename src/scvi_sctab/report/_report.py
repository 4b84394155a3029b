"""Plain values of a report: what the page shows and the JSON file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Verdict:
    """Counts of cells by status, and sentences about them.

    Attributes
    ----------
    sentences
        Three sentences: labels, novelty, and the ground of both.
    n_cells, n_types
        Numbers of cells, and of types with cells.
    n_confident, n_ambiguous, n_novel, n_low_quality
        Cells by status; ``None`` if the model is not calibrated.
    n_novel_expected
        Cells that would be called novel if all were of known types.
    shifted
        Whether the cells differ from the held-out ones; ``None`` if it was not tested.
    n_trained
        Number of the cells that the model was trained on.
    """

    sentences: tuple[str, ...]
    n_cells: int
    n_types: int
    n_confident: int | None = None
    n_ambiguous: int | None = None
    n_novel: int | None = None
    n_low_quality: int | None = None
    n_novel_expected: int | None = None
    shifted: bool | None = None
    n_trained: int = 0


@dataclass(frozen=True)
class TypeRow:
    """Cells of a predicted type; counts by status are ``None`` if the model is not calibrated."""

    label: str
    color: str
    term_id: str
    term: str
    n_cells: int
    share: float
    mean_probability: float
    n_confident: int | None
    n_ambiguous: int | None
    n_novel: int | None
    n_low_quality: int | None
    genes: tuple[str, ...]


@dataclass(frozen=True)
class CellMap:
    """Scatter of cells; the points themselves are in the page only.

    Attributes
    ----------
    basis
        Name of the two dimensions.
    n_shown, n_cells
        Numbers of cells that are shown, evenly spread, and of all.
    n_unplaced
        Cells that are left out, since a coordinate is missing or infinite.
    """

    basis: str
    n_shown: int
    n_cells: int
    n_unplaced: int = 0


@dataclass(frozen=True)
class LabelPair:
    """Two labels that share prediction sets.

    Attributes
    ----------
    labels
        The two labels.
    n_cells
        Cells with both in their set.
    share
        Share of these among cells with at least one of the two in their set.
    """

    labels: tuple[str, str]
    n_cells: int
    share: float


@dataclass(frozen=True)
class NovelGroup:
    """Novel cells near one label, with the genes that tell them from other cells."""

    label: str
    n_cells: int
    share_of_label: float
    genes: tuple[str, ...]


@dataclass(frozen=True)
class Population:
    """A population of cells, such as a cluster, tested against the labels of the model.

    Attributes
    ----------
    population, nearest_label, n_cells
        Its name, the label that it is nearest to, and its number of cells.
    p_value, q_value
        Of the test; ``None`` where they are not known.
    genes
        Genes above the nearest label.
    novel
        Whether it stands out from every label; ``None`` if that is not known.
    score
        How far it stands out; ``None`` if that is not known.
    possible_cause
        Doublets or low quality, if these may explain it; else empty.
    """

    population: str
    nearest_label: str
    n_cells: int
    p_value: float | None
    q_value: float | None
    genes: tuple[str, ...]
    novel: bool | None = None
    score: float | None = None
    possible_cause: str = ""


@dataclass(frozen=True)
class MissingMarkers:
    """Genes with the largest weights for a label that the query lacks."""

    label: str
    n_missing: int
    n_markers: int
    share: float
    genes: tuple[str, ...]


@dataclass(frozen=True)
class GeneCover:
    """Genes of the model that the query has."""

    n_found: int
    n_genes: int
    share: float
    is_weighted: bool
    missing: tuple[MissingMarkers, ...]


@dataclass(frozen=True)
class ShiftRow:
    """Distance of cells and held-out cells by one statistic."""

    statistic: str
    distance: float
    limit: float
    shifted: bool


@dataclass(frozen=True)
class ReliabilityBin:
    """Held-out cells with a stated probability, and the share that was right."""

    probability: float
    accuracy: float
    n_cells: int
    low: float
    high: float


@dataclass(frozen=True)
class Confusion:
    """Share of the held-out cells of a type that got another label."""

    truth: str
    predicted: str
    n_cells: int
    share: float


@dataclass(frozen=True)
class Ground:
    """What the statements rest on: rates, held-out cells and the test of shift."""

    error_rate: float
    false_alarm_rate: float
    term_level: float
    n_held_out: int | None = None
    accuracy: float | None = None
    calibration_error: float | None = None
    bins: tuple[ReliabilityBin, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    shift: tuple[ShiftRow, ...] = ()
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupRow:
    """A cluster, or a label of another annotator, beside the labels of the model."""

    group: str
    n_cells: int
    label: str
    n_shared: int
    share: float
    jaccard: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """Contingency of a column of ``obs`` with the labels.

    Attributes
    ----------
    column
        Name of the column.
    n_cells, n_groups
        Cells with a value, and number of values.
    rand_index
        Adjusted Rand index: 1 for the same groups, 0 for chance.
    share_same_name
        Share of cells whose value is the name of their label; ``None`` if fewer than 90 % of cells
        have a label of the model as value.
    columns
        Labels of ``GroupRow.counts``; the last one may stand for the rest.
    groups
        Rows, the largest group first.
    """

    column: str
    n_cells: int
    n_groups: int
    rand_index: float
    share_same_name: float | None
    columns: tuple[str, ...]
    groups: tuple[GroupRow, ...]


@dataclass(frozen=True)
class TermNode:
    """A term of the Cell Ontology, with the cells of its labels and the cells stated to be it."""

    term_id: str
    term: str
    n_cells: int
    n_stated: int
    children: tuple[TermNode, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """How to reproduce the annotation."""

    query: str
    model: str
    digest: str
    call: str
    date: str
    n_labels: int
    versions: Mapping[str, str] = field(default_factory=dict)
    training_data: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()
    not_for: str = ""


@dataclass(frozen=True)
class Report:
    """Report on the annotation of a query.

    Attributes
    ----------
    title
        Title of the page.
    verdict, types, map, pairs, genes, ground, comparisons, provenance
        Sections of the page.
    novel, populations
        Novel cells by nearest label, and populations of all cells, the highest score first, if they
        were looked for or given.
    absent
        Labels of the model that no cell has.
    tree
        Terms with cells, nested; ``None`` if labels have no terms.
    """

    template: ClassVar[str] = "page.html"

    title: str
    verdict: Verdict
    types: tuple[TypeRow, ...]
    absent: tuple[str, ...]
    map: CellMap | None
    pairs: tuple[LabelPair, ...]
    novel: tuple[NovelGroup, ...]
    populations: tuple[Population, ...]
    genes: GeneCover
    ground: Ground
    comparisons: tuple[Comparison, ...]
    tree: TermNode | None
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values, as the JSON file holds them."""
        return asdict(self)
