"""Preparation of a corpus from many files, in bounded memory and resumable."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm.auto import tqdm

from scvi_sctab._constants import UNLABELED_CATEGORY
from scvi_sctab._logging import logger, shows_progress
from scvi_sctab.data._counts import empty_cells
from scvi_sctab.data._keywords import as_keys
from scvi_sctab.data.stores._annbatch import import_annbatch
from scvi_sctab.data.stores._corpus import Corpus
from scvi_sctab.data.stores._donors import check_shares
from scvi_sctab.data.stores._filter import CorpusFilter
from scvi_sctab.data.stores._manifest import (
    CELLS_FOLDER,
    MANIFEST_FILE,
    Manifest,
    hash_path,
    partial_of,
)
from scvi_sctab.data.stores._plan import SPLIT, Columns, Plan, make_plan
from scvi_sctab.data.stores._sources import OpenFiles, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.data.stores._filter import TermLookup

_CHUNK_CELLS = 64
_COLLECTION = {"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"}
_EMPTY = "no counts of the genes"


def prepare_corpus(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    labels_key: str,
    unlabeled_category: str = UNLABELED_CATEGORY,
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
        .h5ad files or .zarr stores of raw counts, dense or CSR.
    out
        Folder of the corpus: its manifest, and a zarr store of its cells that
        :class:`annbatch.DatasetCollection` reads, too.
    labels_key
        Column of ``obs`` with cell types. Cells without one are kept as unlabelled.
    unlabeled_category
        Name of the label of unlabelled cells, which files may use as well.
    donor_key
        Column of donors. Several columns are joined: ``("dataset_id", "donor_id")`` gives a column
        ``dataset_id_donor_id``.
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
        Whether an existing corpus is replaced, or one that was stopped is started again.

    Returns
    -------
    The corpus.

    Raises
    ------
    ImportError
        If the extra ``atlas`` is not installed; it needs Python 3.12.
    FileNotFoundError, KeyError, ValueError
        If a file, a column or a layer does not exist, a file is damaged or does not hold raw
        counts, genes are duplicated, too few or in common to none, donors or batches are missing,
        labels cannot be learnt, no cell is left, ``out`` exists, or another call writes to it.
    OSError
        If the disk is full; the next call continues.

    Warns
    -----
    UserWarning
        If a file has few of the genes.

    Examples
    --------
    >>> from scvi_sctab.data.stores import prepare_corpus
    >>> corpus = prepare_corpus(
    ...     ["a.h5ad", "b.h5ad"], "atlas", labels_key="cell_type", donor_key="donor_id"
    ... )  # doctest: +SKIP
    """
    import_annbatch("prepare_corpus()")
    if not paths or isinstance(paths, str | os.PathLike):
        raise ValueError("paths= is to be a list of one or more files.")
    if shares is not None:
        check_shares(shares)
    if dataset_cells is not None and dataset_cells < 1:
        raise ValueError(f"{dataset_cells=}: give at least one cell.")
    # Cells are written to the disk of the folder, to which a link may lead.
    target = Path(os.path.realpath(out))
    columns = Columns(
        labels_key, tuple(as_keys(donor_key, "donor_key") or ()), batch_key, tuple(obs_columns)
    )
    with OpenFiles() as files, _locked(target):
        _recover(target)
        sources = [Source(Path(path), layer, files) for path in paths]
        _check_target(target, sources, overwrite)
        plan = make_plan(
            sources,
            columns,
            filters or CorpusFilter(),
            ontology,
            terms,
            genes,
            shares,
            unlabeled_category=unlabeled_category,
            groupby_label=groupby_label,
            dataset_cells=dataset_cells,
            seed=seed,
        )
        partial = partial_of(target)
        _write_datasets(partial, plan, _resume(partial, plan.manifest, overwrite))
        _move(partial, target, overwrite)
    return Corpus.open(target)


def _check_target(target: Path, sources: list[Source], overwrite: bool) -> None:
    """Refuse a folder that is not to be replaced."""
    if target.exists() and not overwrite:
        raise ValueError(
            f"{target} already exists and was left as it is. Choose another folder, or pass "
            "overwrite=True."
        )
    if target.exists() and not (target / MANIFEST_FILE).is_file():
        raise ValueError(f"{target} is no corpus, and is not overwritten: choose another folder.")
    for source in sources:
        parents = source.path.resolve().parents
        if target in parents or partial_of(target) in parents:
            raise ValueError(
                f"{source.path} lies in the folder of the corpus: choose another one."
            )


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keep other calls from the same folder; the lock of a killed process is released."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"Another call prepares {target}: wait for it, or choose another folder."
            ) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _move(partial: Path, target: Path, overwrite: bool) -> None:
    """Put the corpus at its place, and remove the one that was there."""
    if not target.exists():
        partial.replace(target)
        return
    _check_target(target, [], overwrite)  # it may have come into being since
    old = _replaced_of(target)
    target.replace(old)
    partial.replace(target)
    shutil.rmtree(old)


def _replaced_of(target: Path) -> Path:
    """Return the folder of a corpus while another one takes its place; no user has one of this name."""
    return target.with_name(f".{target.name}.replaced")


def _recover(target: Path) -> None:
    """Put back, or remove, the corpus that a killed call was replacing."""
    old = _replaced_of(target)
    if old.exists() and not target.exists():
        old.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def _resume(partial: Path, wanted: Manifest, overwrite: bool) -> Manifest:
    """Read what an earlier call has written, or start."""
    if partial.exists():
        if not (partial / MANIFEST_FILE).is_file():
            if any(partial.iterdir()):
                raise ValueError(f"{partial} is in the way, and is no corpus: move it.")
        elif _is_kept(found := Manifest.read(partial), wanted, overwrite):
            if not _is_same(found, wanted):
                pairs = found.settings.items()
                others = [key for key, value in pairs if value != wanted.settings.get(key)]
                raise ValueError(
                    f"{partial} was left by a call with other arguments or files "
                    f"({', '.join(others) or 'files'}). Repeat that call to finish it, or pass "
                    "overwrite=True to start again."
                )
            logger.info(
                f"Continuing with {partial}: {found.finished} of {len(found.datasets)} datasets "
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


def _is_kept(found: Manifest, wanted: Manifest, overwrite: bool) -> bool:
    """Return whether what an earlier call has written is to be kept."""
    return _is_same(found, wanted) or not (overwrite or found.finished == 0)


def _is_same(found: Manifest, wanted: Manifest) -> bool:
    """Return whether two plans have the same cells of the same files at the same places."""
    files = [(source.path, source.size, source.modified) for source in found.sources]
    return (found.plan, found.settings, files) == (
        wanted.plan,
        wanted.settings,
        [(source.path, source.size, source.modified) for source in wanted.sources],
    )


def _write_datasets(partial: Path, plan: Plan, manifest: Manifest) -> None:
    """Write the datasets that are missing, and note each when it is whole."""
    import zarr
    from annbatch import write_sharded

    folder = partial / CELLS_FOLDER
    root = zarr.open_group(folder, mode="a", zarr_format=3, use_consolidated=False)
    root.update_attributes(_COLLECTION)
    with tqdm(
        total=manifest.n_cells,
        initial=sum(manifest.datasets[: manifest.finished]),
        desc="Writing cells",
        unit=" cells",
        disable=not shows_progress(),
    ) as progress:
        for number in range(manifest.finished, len(plan.datasets)):
            counts, rows, n_empty = _read_rows(plan, plan.datasets[number])
            key = f"dataset_{number}"
            shutil.rmtree(folder / key, ignore_errors=True)  # of a killed process
            adata = ad.AnnData(
                counts, obs=plan.cells.iloc[rows], var=pd.DataFrame(index=plan.genes.astype(str))
            )
            with ad.settings.override(remove_unused_categories=False), warnings.catch_warnings():
                # Only zarr reads these stores.
                warnings.filterwarnings("ignore", "Consolidated metadata")
                write_sharded(root, adata, n_obs_per_chunk=_CHUNK_CELLS, key=key)
            manifest = _note(manifest, plan, number, rows, n_empty)
            manifest.write(partial)
            progress.update(len(plan.datasets[number]))
    if manifest.removed.get(_EMPTY):
        logger.info(f"{manifest.removed[_EMPTY]:,} cells without counts were left out.")


def _note(
    manifest: Manifest, plan: Plan, number: int, rows: NDArray[np.intp], n_empty: int
) -> Manifest:
    """Note a dataset that is written, and cells without counts that are not."""
    manifest = replace(manifest, finished=number + 1)
    if not n_empty:
        return manifest
    datasets = [*manifest.datasets]
    datasets[number] = len(rows)
    removed = {**manifest.removed, _EMPTY: manifest.removed.get(_EMPTY, 0) + n_empty}
    parts = dict(manifest.parts)
    left_out = plan.cells.iloc[np.setdiff1d(plan.datasets[number], rows)]
    for part in left_out[SPLIT] if SPLIT in left_out else ():
        parts[part] -= 1
    sources = [*manifest.sources]
    for i in plan.source[np.setdiff1d(plan.datasets[number], rows)]:
        sources[i] = replace(sources[i], n_kept=sources[i].n_kept - 1)
    return replace(manifest, datasets=datasets, removed=removed, parts=parts, sources=sources)


def _read_rows(
    plan: Plan, rows: NDArray[np.intp]
) -> tuple[sparse.csr_matrix, NDArray[np.intp], int]:
    """Read counts of cells of several files, in their order; leave out cells without counts."""
    in_files = np.lexsort((plan.position[rows], plan.source[rows]))
    sorted_rows = rows[in_files]
    source_of = plan.source[sorted_rows]
    blocks = [
        plan.sources[number].read(
            plan.position[sorted_rows[source_of == number]], plan.alignments[number]
        )
        for number in np.unique(source_of)
    ]
    joined = sparse.vstack(blocks, format="csr")
    del blocks
    back = np.empty(len(rows), dtype=np.intp)
    back[in_files] = np.arange(len(rows))
    empty = np.isin(back, empty_cells(joined))
    if empty.all():
        raise ValueError(
            "All cells of a dataset are without counts of the genes: are the genes those of the "
            "files?"
        )
    return joined[back[~empty]], rows[~empty], int(empty.sum())
