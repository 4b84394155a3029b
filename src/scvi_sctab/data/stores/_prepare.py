"""Preparation of a corpus from many files, in bounded memory and resumable."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm.auto import tqdm

from scvi_sctab._constants import UNLABELED_CATEGORY
from scvi_sctab._logging import logger, shows_progress
from scvi_sctab._messages import list_names
from scvi_sctab.data._keywords import as_keys
from scvi_sctab.data.stores._annbatch import import_annbatch
from scvi_sctab.data.stores._corpus import Corpus
from scvi_sctab.data.stores._donors import PARTS, split_donors
from scvi_sctab.data.stores._filter import CorpusFilter
from scvi_sctab.data.stores._manifest import (
    CELLS_FOLDER,
    Manifest,
    SourceRecord,
    hash_path,
    partial_of,
    stat_path,
)
from scvi_sctab.data.stores._sources import Source, align, as_categorical, choose_genes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.data._genes import GeneAlignment
    from scvi_sctab.data.stores._filter import TermLookup

# Bytes of a dataset in memory, of which there are up to three copies at a time.
_DATASET_BYTES = 128 * 2**20
# Largest number of consecutive cells of a file that go to the same dataset, and smallest number of
# such runs in a dataset.
_RUN_CELLS = 512
_MIN_RUNS = 16
_CHUNK_CELLS = 64
_BYTES_PER_VALUE = 8
_COLLECTION = {"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"}
_JOINT = "_"


def prepare_corpus(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    labels_key: str,
    donor_key: str | Sequence[str] | None = None,
    batch_key: str | None = None,
    obs_columns: Sequence[str] = (),
    layer: str | None = None,
    genes: str | Sequence[str] = "intersection",
    filters: CorpusFilter | None = None,
    ontology: TermLookup | None = None,
    terms: Mapping[str, str] | None = None,
    shares: Sequence[float] | None = (0.7, 0.15, 0.15),
    groupby_label: bool = False,
    dataset_cells: int | None = None,
    seed: int = 1,
    overwrite: bool = False,
) -> Corpus:
    """Join files into a shuffled store that is trained from without loading it into memory.

    Memory does not grow with the number of cells, except for the columns of ``obs``. A killed
    preparation goes on where it was, when it is called again with the same arguments.

    Parameters
    ----------
    paths
        .h5ad files or .zarr stores of raw counts, dense, CSR or CSC; CSC is read as a whole.
    out
        Folder of the corpus: its manifest, and a zarr store of its cells that
        :class:`annbatch.DatasetCollection` reads, too.
    labels_key
        Column of ``obs`` with cell types. Cells without one are kept as unlabelled.
    donor_key
        Column of donors; several columns are joined, as in ``("dataset_id", "donor_id")``. The
        column of the corpus is the last of them.
    batch_key
        Column of batches.
    obs_columns
        Further columns to keep. ``source``, the name of the file, is always kept.
    layer
        Layer with raw counts; ``None`` is ``X``.
    genes
        ``"intersection"`` or ``"union"`` of the genes of all files, or names. Genes are matched by
        name, Ensembl versions ignored; those that a file lacks count as 0.
    filters
        Conditions that cells fulfil, such as ``CorpusFilter.paper()``; none if not given.
    ontology, terms
        For conditions on ancestors, see :meth:`CorpusFilter.apply`.
    shares
        Shares of donors for training, validation and test, written to the column ``split``;
        ``None`` writes none. Without ``donor_key`` cells are split.
    groupby_label
        Whether cells are sorted by label within each dataset, rather than shuffled.
    dataset_cells
        Cells of a dataset, which are in memory together; those of 128 MB if not given.
    seed
        Seed of split and order.
    overwrite
        Whether an existing corpus is replaced.

    Returns
    -------
    The corpus.

    Raises
    ------
    ImportError
        If the extra ``atlas`` is not installed; it needs Python 3.12.
    FileNotFoundError, KeyError, ValueError
        If a file, a column or a layer does not exist, a file is damaged or does not hold raw
        counts, genes are duplicated or in common to none, no cell is left, or ``out`` exists.
    OSError
        If the disk is full; what is written can be gone on from.

    Examples
    --------
    >>> from scvi_sctab.data.stores import prepare_corpus
    >>> corpus = prepare_corpus(
    ...     ["a.h5ad", "b.h5ad"], "atlas", labels_key="cell_type", donor_key="donor_id"
    ... )  # doctest: +SKIP
    """
    import_annbatch("prepare_corpus()")
    target = Path(out)
    if not paths or isinstance(paths, str | os.PathLike):
        raise ValueError("paths= is to be a list of one or more files.")
    if target.exists() and not overwrite:
        raise ValueError(
            f"{target} already exists and was left as it is. Choose another folder, or pass "
            "overwrite=True."
        )
    donor_keys = as_keys(donor_key, "donor_key") or []
    columns = _Columns(labels_key, tuple(donor_keys), batch_key, tuple(obs_columns))
    plan = _plan(
        [Source(Path(path), layer) for path in paths],
        columns,
        filters or CorpusFilter(),
        ontology,
        terms,
        genes,
        shares,
        groupby_label=groupby_label,
        dataset_cells=dataset_cells,
        seed=seed,
    )
    partial = partial_of(target)
    manifest = _resume(partial, plan.manifest)
    _write_datasets(partial, plan, manifest)
    if target.exists():
        shutil.rmtree(target)
    partial.replace(target)
    return Corpus.open(target)


@dataclass(frozen=True)
class _Columns:
    """Columns of ``obs`` to read and to write."""

    label: str
    donors: tuple[str, ...]
    batch: str | None
    others: tuple[str, ...]

    @property
    def donor(self) -> str | None:
        return self.donors[-1] if self.donors else None

    @property
    def written(self) -> list[str]:
        """Columns of the corpus."""
        keys = (self.label, self.donor, self.batch, *self.others)
        return list(dict.fromkeys(key for key in keys if key is not None))

    @property
    def read(self) -> list[str]:
        return list(dict.fromkeys([*self.written, *self.donors]))


@dataclass(frozen=True)
class _Plan:
    """Cells of a corpus in their order, and where they are read.

    Attributes
    ----------
    cells
        Columns of the corpus for each cell that is kept, in the order of the files.
    source, position
        File, and position in it, of each of them.
    datasets
        Positions among them of the cells of each dataset.
    """

    sources: list[Source]
    alignments: list[GeneAlignment]
    genes: pd.Index
    cells: pd.DataFrame
    source: NDArray[np.int64]
    position: NDArray[np.int64]
    datasets: list[NDArray[np.intp]]
    manifest: Manifest


def _plan(
    sources: list[Source],
    columns: _Columns,
    filters: CorpusFilter,
    ontology: TermLookup | None,
    terms: Mapping[str, str] | None,
    genes: str | Sequence[str],
    shares: Sequence[float] | None,
    *,
    groupby_label: bool,
    dataset_cells: int | None,
    seed: int,
) -> _Plan:
    """Read tables and genes of all files, and decide on everything else."""
    tables, genes_of, n_values = [], [], []
    wanted = list(dict.fromkeys([*columns.read, *filters.columns]))
    for source in sources:
        with source.open() as group:
            genes_of.append(source.read_genes(group))
            tables.append(source.read_obs(group, wanted))
            n_values.append(_values_per_cell(source._matrix(group)))
    chosen = choose_genes(genes_of, genes, [source.path for source in sources])
    table = _join(tables, columns, filters)
    judged = table.rename(columns={columns.label: "label"})
    judged["donor"] = (
        table[columns.donor] if columns.donor else pd.Categorical([None] * len(table))
    )
    kept, removed = filters.apply(judged, ontology, terms)
    if not kept.any():
        raise ValueError(f"No cell is left. Removed by each condition: {removed}.")
    sizes = [len(t) for t in tables]
    source_of = np.repeat(np.arange(len(sources)), sizes)[kept]
    position = np.concatenate([np.arange(n) for n in sizes])[kept]
    cells = table.loc[kept, columns.written].copy()
    for key in cells:
        cells[key] = cells[key].cat.remove_unused_categories()
    cells[columns.label] = _unlabelled(cells[columns.label])
    cells["source"] = pd.Categorical.from_codes(source_of, _source_names(sources))
    if shares is not None:
        donors = cells[columns.donor] if columns.donor else pd.Series([None] * len(cells))
        cells["split"] = split_donors(donors, shares, seed)
    if dataset_cells is None:
        mean = float(np.average(n_values, weights=sizes))
        dataset_cells = max(int(_DATASET_BYTES / (_BYTES_PER_VALUE * max(mean, 1))), _RUN_CELLS)
    datasets = _shuffle(cells, columns.label, dataset_cells, seed, groupby_label=groupby_label)
    alignments = [align(chosen, names) for names in genes_of]
    n_kept = np.bincount(source_of, minlength=len(sources))
    manifest = Manifest(
        settings={
            "labels_key": columns.label,
            "donor_key": list(columns.donors),
            "batch_key": columns.batch,
            "layer": sources[0].layer,
            "genes": genes if isinstance(genes, str) else sorted(genes),
            "filters": _plain(asdict(filters)),
            "shares": None if shares is None else [float(share) for share in shares],
            "groupby_label": groupby_label,
            "dataset_cells": int(dataset_cells),
            "seed": int(seed),
        },
        sources=[
            SourceRecord(
                str(source.path), *stat_path(source.path), "", n, int(m), len(names),
                int((alignment.target >= 0).sum()),
            )
            for source, n, m, names, alignment in zip(
                sources, sizes, n_kept, genes_of, alignments, strict=True
            )
        ],
        removed=removed,
        columns=list(cells),
        n_genes=len(chosen),
        parts={}
        if shares is None
        else {part: int((cells["split"] == part).sum()) for part in PARTS},
        datasets=[len(rows) for rows in datasets],
    )  # fmt: skip
    return _Plan(sources, alignments, chosen, cells, source_of, position, datasets, manifest)


def _join(tables: list[pd.DataFrame], columns: _Columns, filters: CorpusFilter) -> pd.DataFrame:
    """Join the tables of all files, with categories in common and names that are unique."""
    parts = []
    for table in tables:
        named = {key: pd.Series(as_categorical(table[key])) for key in columns.read}
        if columns.donor is not None and len(columns.donors) > 1:
            joint = [named[key].astype(object) for key in columns.donors]
            missing = np.any([key.isna() for key in joint], axis=0)
            text = joint[0].astype(str).str.cat([k.astype(str) for k in joint[1:]], sep=_JOINT)
            named[columns.donor] = text.where(~missing)
        part = pd.DataFrame({key: named[key] for key in columns.written})
        part = part.assign(**{key: table[key].to_numpy() for key in filters.columns})
        parts.append(part.set_index(table.index.astype(str)))
    joined = pd.concat(parts)
    for key in columns.written:
        joined[key] = pd.Categorical(joined[key].astype(object))
    if joined.index.has_duplicates:
        number = np.repeat(np.arange(len(tables)), [len(table) for table in tables]).astype(str)
        joined.index = joined.index + "-" + pd.Index(number)
        if joined.index.has_duplicates:
            twice = joined.index[joined.index.duplicated()]
            raise ValueError(f"Names of cells are duplicated within a file: {list_names(twice)}.")
        logger.info("Files share names of cells: the number of the file was added to each name.")
    return joined


def _unlabelled(labels: pd.Series) -> pd.Series:
    """Give missing labels a name."""
    if not labels.isna().any():
        return labels
    if UNLABELED_CATEGORY not in labels.cat.categories:
        labels = labels.cat.add_categories([UNLABELED_CATEGORY])
    return labels.fillna(UNLABELED_CATEGORY)


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
    part = cells["split"].cat.codes.to_numpy() if "split" in cells else np.zeros(len(cells))
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


def _resume(partial: Path, wanted: Manifest) -> Manifest:
    """Find out what an earlier call has written; begin anew if it had other files or arguments."""
    if partial.exists():
        try:
            found = Manifest.read(partial)
        except (FileNotFoundError, ValueError):
            found = None
        if found is not None:
            hashes = [source.sha256 for source in found.sources]
            sources = [
                replace(source, sha256=known)
                for source, known in zip(wanted.sources, hashes, strict=False)
            ]
            if replace(found, finished=0) == replace(wanted, sources=sources):
                logger.info(
                    f"Going on with {partial}: {found.finished} of {len(found.datasets)} datasets "
                    "are written."
                )
                return found
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    hashed = [
        replace(source, sha256=hash_path(Path(source.path)))
        for source in tqdm(wanted.sources, desc="Hashing files", disable=not shows_progress())
    ]
    manifest = replace(wanted, sources=hashed)
    manifest.write(partial)
    return manifest


def _write_datasets(partial: Path, plan: _Plan, manifest: Manifest) -> None:
    """Write the datasets that are missing, and note each when it is whole."""
    import zarr
    from annbatch import write_sharded

    folder = partial / CELLS_FOLDER
    root = zarr.open_group(folder, mode="a", zarr_format=3, use_consolidated=False)
    root.update_attributes(_COLLECTION)
    numbers = range(manifest.finished, len(plan.datasets))
    with tqdm(
        total=manifest.n_cells,
        initial=sum(manifest.datasets[: manifest.finished]),
        desc="Writing cells",
        unit=" cells",
        disable=not shows_progress(),
    ) as progress:
        for number in numbers:
            rows = plan.datasets[number]
            key = f"dataset_{number}"
            shutil.rmtree(folder / key, ignore_errors=True)  # of a killed process
            adata = ad.AnnData(
                _read_rows(plan, rows),
                obs=plan.cells.iloc[rows],
                var=pd.DataFrame(index=plan.genes.astype(str)),
            )
            with ad.settings.override(remove_unused_categories=False), warnings.catch_warnings():
                # Only zarr reads these stores.
                warnings.filterwarnings("ignore", "Consolidated metadata")
                write_sharded(root, adata, n_obs_per_chunk=_CHUNK_CELLS, key=key)
            manifest = replace(manifest, finished=number + 1)
            manifest.write(partial)
            progress.update(len(rows))


def _read_rows(plan: _Plan, rows: NDArray[np.intp]) -> sparse.csr_matrix:
    """Read counts of cells of several files, in their order."""
    in_files = np.lexsort((plan.position[rows], plan.source[rows]))
    sorted_rows = rows[in_files]
    source_of = plan.source[sorted_rows]
    blocks = []
    for number in np.unique(source_of):
        source = plan.sources[number]
        cells = plan.position[sorted_rows[source_of == number]]
        with source.open() as group:
            blocks.append(source.read(group, cells, plan.alignments[number]))
    joined = sparse.vstack(blocks, format="csr")
    del blocks
    back = np.empty(len(rows), dtype=np.intp)
    back[in_files] = np.arange(len(rows))
    return joined[back]
