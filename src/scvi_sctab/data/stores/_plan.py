"""Plan of a corpus: its cells and genes, their order, and where they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab._logging import logger
from scvi_sctab._messages import list_names
from scvi_sctab.data._genes import GeneAlignment
from scvi_sctab.data._names import name_values
from scvi_sctab.data._obs import check_labels
from scvi_sctab.data.stores._donors import PARTS, split_donors
from scvi_sctab.data.stores._manifest import Manifest, SourceRecord, stat_path
from scvi_sctab.data.stores._sources import Source, choose_genes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.data.stores._filter import CorpusFilter, TermLookup

# Bytes of a dataset in memory, of which there are up to three copies at a time.
_DATASET_BYTES = 128 * 2**20
# Largest number of consecutive cells of a file that go to the same dataset, and smallest number of
# such runs in a dataset.
_RUN_CELLS = 512
_MIN_RUNS = 16
_BYTES_PER_VALUE = 8
SOURCE, SPLIT = "source", "split"
_JOINT = "_"


@dataclass(frozen=True)
class Columns:
    """Columns of ``obs`` to read and to write.

    Attributes
    ----------
    label, batch
        Columns of cell types and of batches.
    donors
        Columns that together name a donor.
    others
        Further columns to keep.

    Raises
    ------
    ValueError
        If a name is that of a column that is written in any case, or a column has two meanings.
    """

    label: str
    donors: tuple[str, ...]
    batch: str | None
    others: tuple[str, ...]

    def __post_init__(self) -> None:
        reserved = {SOURCE, SPLIT} & {*self.arguments}
        if reserved:
            raise ValueError(
                f"The corpus has a column {list_names(reserved)} of its own: rename yours in the "
                "files."
            )
        if self.label in self.donors:
            raise ValueError(f"{self.label!r} is the column of labels, and cannot name donors.")
        if len(self.donors) > 1 and self.donor in self.written_as_they_are:
            raise ValueError(
                f"The joint donors are written as {self.donor!r}: rename this column."
            )

    @property
    def donor(self) -> str | None:
        """Column of donors in the corpus, whose name is joined if there are several."""
        return _JOINT.join(self.donors) if self.donors else None

    @property
    def written_as_they_are(self) -> list[str]:
        """Columns that are written with the names and values of the files."""
        single = self.donors if len(self.donors) == 1 else ()
        keys = (self.label, *single, self.batch, *self.others)
        return list(dict.fromkeys(key for key in keys if key is not None))

    @property
    def arguments(self) -> dict[str, str]:
        """Columns to read, with the argument that names each."""
        named = dict.fromkeys(self.others, "obs_columns")
        named |= {} if self.batch is None else {self.batch: "batch_key"}
        named |= dict.fromkeys(self.donors, "donor_key")
        return named | {self.label: "labels_key"}


@dataclass(frozen=True)
class Plan:
    """Cells of a corpus, and where they are read.

    Attributes
    ----------
    sources
        Files.
    alignments
        Alignment of the genes of each.
    genes
        Genes of the corpus.
    cells
        Columns of the corpus for each cell, in the order of the files.
    source, position
        File, and position in it, of each cell.
    datasets
        Positions among the cells of those of each dataset, in their order.
    manifest
        Description of the corpus.
    """

    sources: list[Source]
    alignments: list[GeneAlignment]
    genes: pd.Index
    cells: pd.DataFrame
    source: NDArray[np.int64]
    position: NDArray[np.int64]
    datasets: list[NDArray[np.intp]]
    manifest: Manifest


def make_plan(
    sources: list[Source],
    columns: Columns,
    filters: CorpusFilter,
    ontology: TermLookup | None,
    terms: Mapping[str, str] | None,
    genes: str | Sequence[str],
    shares: Sequence[float] | None,
    *,
    unlabeled_category: str,
    groupby_label: bool,
    dataset_cells: int | None,
    seed: int,
) -> Plan:
    """Read tables and genes of all files, and decide on everything but the counts.

    Parameters
    ----------
    sources
        Files.
    columns
        Columns to read and to write.
    filters, ontology, terms, genes, shares, unlabeled_category, groupby_label, dataset_cells, seed
        As in :func:`prepare_corpus`, which has the errors.
    """
    wanted = dict.fromkeys(filters.columns, "filters") | columns.arguments
    genes_of = [source.read_genes() for source in sources]
    chosen = choose_genes(genes_of, genes, [source.path for source in sources])
    tables = [source.read_obs(wanted) for source in sources]
    n_values = [_values_per_cell(source.matrix) for source in sources]
    sizes = [len(table) for table in tables]
    names = _source_names(sources)
    source_of = np.repeat(np.arange(len(sources)), sizes)
    position = np.concatenate([np.arange(size) for size in sizes])
    cells = _join(tables, columns)
    labels = cells[columns.label]
    if unlabeled_category in labels.cat.categories:
        labels = labels.cat.remove_categories([unlabeled_category])
    judged = pd.concat([table[list(filters.columns)] for table in tables]).set_index(cells.index)
    donors = None if columns.donor is None else cells[columns.donor]
    kept, removed = filters.apply(labels, donors, judged, ontology=ontology, terms=terms)
    if not kept.any():
        raise ValueError(f"No cell is left. Removed by each condition: {removed}.")
    labels = labels.cat.add_categories([unlabeled_category]).fillna(unlabeled_category)
    cells = cells.assign(**{columns.label: labels})[kept]
    source_of, position = source_of[kept], position[kept]
    for key in cells:
        cells[key] = cells[key].cat.remove_unused_categories()
    _check_cells(cells, columns, unlabeled_category, source_of, names)
    cells[SOURCE] = pd.Categorical.from_codes(source_of, names)
    if shares is not None:
        of_donor = pd.Series([None] * len(cells)) if donors is None else cells[columns.donor]
        cells[SPLIT] = split_donors(of_donor, shares, seed)
    if dataset_cells is None:
        mean = float(np.average(n_values, weights=sizes))
        dataset_cells = max(int(_DATASET_BYTES / (_BYTES_PER_VALUE * max(mean, 1))), _RUN_CELLS)
    datasets = _shuffle(cells, columns.label, dataset_cells, seed, groupby_label=groupby_label)
    alignments = [
        GeneAlignment(chosen.get_indexer(genes), chosen.difference(genes), len(chosen))
        for genes in genes_of
    ]
    n_kept = np.bincount(source_of, minlength=len(sources))
    records = [
        SourceRecord(
            str(source.path), *stat_path(source.path), "", sizes[i], int(n_kept[i]),
            len(genes_of[i]), int((alignments[i].target >= 0).sum()),
        )
        for i, source in enumerate(sources)
    ]  # fmt: skip
    settings = {
        "labels_key": columns.label,
        "unlabeled_category": unlabeled_category,
        "donor_key": columns.donor,
        "batch_key": columns.batch,
        "layer": sources[0].layer,
        "genes": genes if isinstance(genes, str) else "a list",
        "filters": _plain(asdict(filters)),
        "shares": None if shares is None else [float(share) for share in shares],
        "groupby_label": groupby_label,
        "dataset_cells": int(dataset_cells),
        "seed": int(seed),
    }
    manifest = Manifest(
        settings=settings,
        sources=records,
        removed=removed,
        columns=list(cells),
        n_genes=len(chosen),
        parts={} if shares is None else count_parts(cells),
        datasets=[len(rows) for rows in datasets],
        plan=_hash(chosen, cells, source_of, position, datasets),
    )
    return Plan(sources, alignments, chosen, cells, source_of, position, datasets, manifest)


def count_parts(cells: pd.DataFrame) -> dict[str, int]:
    """Count the cells of each part of the split.

    Parameters
    ----------
    cells
        Columns of the corpus.
    """
    return {part: int((cells[SPLIT] == part).sum()) for part in PARTS}


def _join(tables: list[pd.DataFrame], columns: Columns) -> pd.DataFrame:
    """Join the tables of all files, with categories in common and names that are unique."""
    parts, of_donors = [], []
    for table in tables:
        named = {key: pd.Series(name_values(table[key])) for key in columns.arguments}
        part = pd.DataFrame({key: named[key] for key in columns.written_as_they_are})
        if columns.donor is not None and len(columns.donors) > 1:
            joint = [named[key].astype(object) for key in columns.donors]
            missing = np.any([key.isna() for key in joint], axis=0)
            text = joint[0].astype(str).str.cat([k.astype(str) for k in joint[1:]], sep=_JOINT)
            part[columns.donor] = text.where(~missing)
            of_donors.append(pd.concat([text, *joint], axis=1)[~missing].drop_duplicates())
        parts.append(part.set_index(table.index.astype(str)))
    _check_joint_names(of_donors, columns.donors)
    joined = pd.concat(parts)
    for key in joined:
        joined[key] = pd.Categorical(joined[key].astype(object))
    if joined.index.has_duplicates:
        number = np.repeat(np.arange(len(tables)), [len(table) for table in tables]).astype(str)
        joined.index = joined.index + "-" + pd.Index(number)
        logger.info("Files share names of cells: the number of the file was added to each name.")
    return joined


def _check_joint_names(of_donors: list[pd.DataFrame], keys: tuple[str, ...]) -> None:
    """Refuse donors whose joint names are equal though they are not the same donor."""
    if not of_donors:
        return
    known = pd.concat(table.set_axis(range(1 + len(keys)), axis=1) for table in of_donors)
    known = known.drop_duplicates()
    shared = known[known[0].duplicated(keep=False)].sort_values([*known.columns])
    if len(shared):
        one, other = (tuple(map(str, row[1:])) for row in shared.head(2).itertuples(index=False))
        raise ValueError(
            f"Donors {one} and {other} of {list_names(keys)} would share the name "
            f"{shared.iloc[0, 0]!r}: rename one of them in the files."
        )


def _check_cells(
    cells: pd.DataFrame,
    columns: Columns,
    unlabeled_category: str,
    source_of: NDArray[np.int64],
    names: list[str],
) -> None:
    """Refuse what a model would refuse, before counts are read."""
    for key, argument in ((columns.donor, "donor_key"), (columns.batch, "batch_key")):
        if key is None or not cells[key].isna().any():
            continue
        counts = np.bincount(source_of[cells[key].isna().to_numpy()], minlength=len(names))
        of_files = {name: int(n) for name, n in zip(names, counts, strict=True) if n}
        raise ValueError(
            f"{argument}={key!r} is missing in cells of {of_files}: fill the column in the files, or "
            f"leave out `{argument}`."
        )
    try:
        check_labels(cells, columns.label, unlabeled_category, None)
    except ValueError as error:
        cure = " `filters=CorpusFilter(min_cells=...)` leaves out rare types."
        raise ValueError(f"{error}{cure}") from error


def _source_names(sources: list[Source]) -> list[str]:
    """Name each file, by its path where names are duplicated."""
    names = [source.path.name for source in sources]
    if len(set(names)) < len(names):
        names = [str(source.path) for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"A file is listed more than once: {list_names(names)}.")
    return names


def _values_per_cell(matrix: Any) -> float:
    n_cells = max(matrix.shape[0], 1)
    group = getattr(matrix, "group", None)
    return matrix.shape[1] if group is None else group["data"].shape[0] / n_cells


def _shuffle(
    cells: pd.DataFrame, label: str, dataset_cells: int, seed: int, *, groupby_label: bool
) -> list[NDArray[np.intp]]:
    """Assign runs of consecutive cells to datasets at random, and order cells within each.

    Parts of a split stay together, so that training reads no cells that are held out.
    """
    generator = np.random.default_rng(seed)
    n_datasets = max(round(len(cells) / dataset_cells), 1)
    length = min(_RUN_CELLS, max(len(cells) // n_datasets // _MIN_RUNS, 1))
    starts = np.arange(0, len(cells), length)
    runs = np.split(np.arange(len(cells)), starts[1:])
    order = generator.permutation(len(runs))
    datasets = []
    part = cells[SPLIT].cat.codes.to_numpy() if SPLIT in cells else np.zeros(len(cells))
    codes = cells[label].cat.codes.to_numpy()
    for chosen in np.array_split(order, n_datasets):
        if not len(chosen):
            continue
        rows = generator.permutation(np.concatenate([runs[i] for i in np.sort(chosen)]))
        keys = (codes[rows], part[rows]) if groupby_label else (part[rows],)
        datasets.append(rows[np.lexsort(keys)])
    return datasets


def _plain(value: Any) -> Any:
    """Return what JSON would read back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _hash(
    genes: pd.Index,
    cells: pd.DataFrame,
    source: NDArray[np.int64],
    position: NDArray[np.int64],
    datasets: list[NDArray[np.intp]],
) -> str:
    """Hash all that decides which cell is written where."""
    hashed = sha256("\0".join(map(str, genes)).encode())
    arrays = [source, position, np.concatenate(datasets), [len(rows) for rows in datasets]]
    hashed.update(pd.util.hash_array(cells.index.to_numpy(dtype=object)).tobytes())
    for key in cells:
        hashed.update("\0".join([key, *map(str, cells[key].cat.categories)]).encode())
        arrays.append(cells[key].cat.codes.to_numpy())
    for array in arrays:
        hashed.update(np.asarray(array, dtype=np.int64).tobytes())
    return hashed.hexdigest()
