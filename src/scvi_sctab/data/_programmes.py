"""Gene programmes from files, mappings or ``varm``, matched to the genes of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scvi_sctab._constants import MIN_PROGRAMME_GENES, MIN_PROGRAMMES
from scvi_sctab._logging import logger
from scvi_sctab._messages import list_names
from scvi_sctab.data._genes import GeneMismatchError
from scvi_sctab.data._spelling import strip_versions

if TYPE_CHECKING:
    from anndata import AnnData


class GeneProgrammes(NamedTuple):
    """Programmes with enough genes in the data.

    Attributes
    ----------
    names
        Names of the programmes, ``(n_programmes,)``.
    members
        Whether each gene is in each programme, ``(n_programmes, n_genes)``.
    matched
        A row per given programme: ``n_genes``, ``n_matched``, ``share``, ``kept``.
    """

    names: pd.Index
    members: NDArray[np.bool_]
    matched: pd.DataFrame


def read_gmt(path: str | Path) -> dict[str, list[str]]:
    """Read gene sets from a GMT file, the format of MSigDB and Reactome.

    Parameters
    ----------
    path
        Text file with a gene set per line, separated by tabs: name, description, genes.

    Returns
    -------
    Genes by name of set; genes that are duplicated in a set are listed once.

    Raises
    ------
    ValueError
        If it is not a GMT file, has no sets, or a name is duplicated.

    Examples
    --------
    >>> read_gmt("c8.all.v2023.1.Hs.symbols.gmt")  # doctest: +SKIP
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is no text. If it is compressed, unpack it.") from error
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *others = (field.strip() for field in line.split("\t"))
        genes = list(dict.fromkeys(gene for gene in others[1:] if gene))
        if not name or not genes:
            raise ValueError(
                f"Line {number} of {str(path)!r} is not of a GMT file, where a name, a "
                f"description and genes are separated by tabs: {line[:60]!r}."
            )
        if name in sets:
            raise ValueError(
                f"{name!r} is duplicated in {str(path)!r}, on line {number}. Rename one or "
                "join their genes."
            )
        sets[name] = genes
    if not sets:
        raise ValueError(f"{str(path)!r} is empty; a GMT file has a gene set on each line.")
    return sets


def gene_programmes(
    programmes: str | Path | Mapping[str, Sequence[str]],
    adata: AnnData,
    min_genes: int = MIN_PROGRAMME_GENES,
) -> GeneProgrammes:
    """Match the genes of programmes to those of the data.

    Genes are matched by name, Ensembl versions ignored: to ``adata.var_names`` or to the column
    of ``adata.var`` that has more of them, so that symbols match data named by Ensembl ids.

    Parameters
    ----------
    programmes
        Path of a GMT file; mapping from names of programmes to genes; or key of an ``adata.varm``
        of zeros and ones, ``(n_genes, n_programmes)``. The columns of a data frame are the names.
    adata
        Data with the model's genes, ``(n_cells, n_genes)``.
    min_genes
        Programmes with fewer genes in the data are left out.

    Returns
    -------
    Names, members and numbers of matched genes.

    Raises
    ------
    ValueError
        If the programmes have none of these forms.
    GeneMismatchError
        If fewer than two programmes are left.

    Examples
    --------
    >>> found = gene_programmes("c8.all.v2023.1.Hs.symbols.gmt", adata)  # doctest: +SKIP
    >>> mask = nn.ProgrammeMask(torch.from_numpy(found.members))  # doctest: +SKIP
    """
    if isinstance(programmes, str) and programmes in adata.varm:
        given = _from_varm(adata.varm[programmes], programmes)
    else:
        given = _match(_named_sets(programmes, adata), adata.var)
    kept = given.n_matched >= max(min_genes, 1)
    share = given.n_matched / np.maximum(given.n_genes, 1)
    matched = pd.DataFrame(
        {"n_genes": given.n_genes, "n_matched": given.n_matched, "share": share, "kept": kept},
        index=given.names.rename("name"),
    )
    if kept.sum() < MIN_PROGRAMMES:
        raise _too_few(matched, min_genes, given)
    covered = given.members[kept].any(axis=0).sum()
    logger.info(
        f"{kept.sum():,} of {len(kept):,} gene programmes have at least {min_genes} genes in "
        f"{given.where}; together {covered:,} of {adata.n_vars:,}."
    )
    return GeneProgrammes(given.names[kept], given.members[kept], matched)


def regulators(names: Sequence[str], gene_names: Sequence[str]) -> NDArray[np.int64]:
    """Find the genes that programmes are named after, such as transcription factors.

    Parameters
    ----------
    names
        Names of programmes: a gene (``"GATA1"``), or a gene and an underscore as prefix
        (``"GATA1_TARGET_GENES"``); of several such genes, the longest name is used.
    gene_names
        Names of the model's genes, of the same kind as in the programmes.

    Returns
    -------
    Position of the gene of each programme, ``(n_programmes,)``, -1 where there is none.

    Examples
    --------
    >>> regulators(["GATA1", "SPI1_TARGET_GENES", "T_CELL"], ["SPI1", "CD3D", "GATA1"])
    array([ 2,  0, -1])
    """
    genes = strip_versions(gene_names)
    # Reversed, so that of duplicated genes the first is found.
    place = {gene: i for i, gene in reversed([*enumerate(genes)])}
    parts = [str(name).split("_") for name in names]
    starts = [["_".join(p[:n]) for n in range(len(p), 0, -1)] for p in parts]
    found = [next((place[s] for s in strip_versions(s_) if s in place), -1) for s_ in starts]
    return np.array(found, dtype=np.int64)


class _Given(NamedTuple):
    """All programmes, with their genes among those of the data."""

    names: pd.Index
    members: NDArray[np.bool_]
    n_genes: NDArray[np.int64]
    n_matched: NDArray[np.int64]
    where: str
    unmatched: pd.Index


def _from_varm(entry: Any, key: str) -> _Given:
    """Read programmes from the columns of an entry of ``varm``."""
    if isinstance(entry, pd.DataFrame):
        names, values = entry.columns.astype(str), entry.to_numpy()
    else:
        values = entry.toarray() if sparse.issparse(entry) else np.asarray(entry)
        names = pd.RangeIndex(values.shape[1]).astype(str)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"`adata.varm[{key!r}]` has values other than 0 and 1, so it tells weights, not "
            f"members. Choose a threshold, e.g. `adata.varm[{key!r}] = adata.varm[{key!r}] > 0`."
        )
    if names.has_duplicates:
        twice = list_names(names[names.duplicated()].unique())
        raise ValueError(f"Columns of `adata.varm[{key!r}]` are duplicated: {twice}. Rename them.")
    members = values.astype(bool).T
    n_genes = members.sum(axis=1)
    where = f"`varm[{key!r}]`"
    return _Given(names.astype(object), members, n_genes, n_genes, where, pd.Index([]))


def _match(sets: Mapping[str, Sequence[str]], var: pd.DataFrame) -> _Given:
    """Match programmes by the names of their genes."""
    row, genes = _pairs(sets)
    names, where = _best_names(genes, var)
    # Two genes of the data may have the same symbol: both are members, but count once.
    distinct = names.unique()
    code = distinct.get_indexer(genes)
    found = np.zeros((len(sets), len(distinct)), dtype=bool)
    found[row[code >= 0], code[code >= 0]] = True
    return _Given(
        names=pd.Index(list(sets), dtype=object),
        members=found[:, distinct.get_indexer(names)],
        n_genes=np.bincount(row, minlength=len(sets)),
        n_matched=found.sum(axis=1),
        where=where,
        unmatched=genes[code < 0].unique(),
    )


def _named_sets(
    programmes: str | Path | Mapping[str, Sequence[str]], adata: AnnData
) -> Mapping[str, Sequence[str]]:
    """Return the genes by name of programme."""
    if isinstance(programmes, Mapping):
        if not programmes:
            raise ValueError("There are no programmes in the mapping. Give at least two.")
        texts = [name for name, genes in programmes.items() if isinstance(genes, str)]
        if texts:
            raise ValueError(
                f"The genes of {list_names(texts)} are one text. Give a list of names."
            )
        return programmes
    if Path(programmes).is_file():
        return read_gmt(programmes)
    keys = list(adata.varm)
    near = get_close_matches(str(programmes), keys, n=1)
    raise ValueError(
        f"programmes={str(programmes)!r} is neither a file nor a key of `adata.varm`"
        + (f"; did you mean {near[0]!r}?" if near else f", which has {keys}.")
    )


def _pairs(sets: Mapping[str, Sequence[str]]) -> tuple[NDArray[np.int64], pd.Index]:
    """List distinct pairs of programme and gene, without versions of Ensembl ids."""
    rows, genes = [], []
    for row, members in enumerate(sets.values()):
        # A table with empty cells gives empty names, which are not genes.
        distinct = strip_versions(members).unique().difference([""], sort=False)
        rows.append(np.full(len(distinct), row))
        genes.extend(distinct)
    return np.concatenate(rows), pd.Index(genes, dtype=object)


def _best_names(genes: pd.Index, var: pd.DataFrame) -> tuple[pd.Index, str]:
    """Find the names of the data's genes that match these genes best, and their place."""
    candidates = {"`var_names`": strip_versions(var.index)}
    for column in var.columns:
        if not pd.api.types.is_numeric_dtype(var[column]):
            names = strip_versions(var[column].astype(object).fillna(""))
            candidates[f"`var[{column!r}]`"] = names
    wanted = genes.unique()
    where = max(candidates, key=lambda place: wanted.isin(candidates[place]).sum())
    return candidates[where], where


def _too_few(matched: pd.DataFrame, min_genes: int, given: _Given) -> GeneMismatchError:
    unmatched = list_names(given.unmatched)
    return GeneMismatchError(
        f"{matched['kept'].sum()} of {len(matched)} programmes have at least {min_genes} genes in "
        f"{given.where}; at least {MIN_PROGRAMMES} are needed. "
        + (f"Genes that were not found: {unmatched}. " if unmatched else "")
        + "Name genes alike on both sides, give more programmes, or lower `min_genes`."
    )
