"""Spellings of gene names: versions, R's names, upper and lower case, prefixes of genomes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvi_sctab._constants import N_NAMES_SHOWN
from scvi_sctab.data._species import is_title, origin_of, well_known_first

_VERSIONED_ENSEMBL = re.compile(r"^(ENS[A-Z]*\d{6,})\.\d+$")

# Separator: no name contains it, since HDF5 strings cannot. Joined names are changed at once.
_END = "\0"
# Hyphens, non-breaking space and byte order mark, inserted by word processors and spreadsheets.
_ODD = "\u00a0\u2010\u2011\u2012\u2013\u2212\ufeff"
_ASCII = map(chr, range(1, 128))
_TO_HYPHENS = str.maketrans(dict.fromkeys([c for c in _ASCII if not c.isalnum()] + [*_ODD], "-"))

# Prefixes of genomes by Cell Ranger, after all punctuation is replaced by hyphens.
_GENOMES = {
    "human": ("grch38-", "grch37-", "hg38-", "hg19-"),
    "mouse": ("grcm39-", "grcm38-", "mm39-", "mm10-", "mm9-"),
}
# R prepends an X to a name that starts with a digit.
_R_PREFIXES = tuple(f"x{digit}" for digit in range(10))
_ID = r"(ens[a-z]*g\d{11})(?:-\d+)?"
_ID_FIRST, _ID_LAST = re.compile(rf"{_ID}(?:-+(.+))?"), re.compile(rf"(.+?)-+{_ID}")
_ID_SIGN = "g00000"
# `var_names_make_unique` of anndata, and `make.unique` of R with its dot.
_DUPLICATE = "-1"
# Symbols have no such characters; if half of the names do, they are joined with something else.
_JOINTS = re.compile(r"[_|]+")
_MOST = 0.5
# Zebrafish symbols are in lower case, as human symbols are only by mistake.
_ZEBRAFISH = ("si-dkey", "zgc-")


def strip_versions(names: Sequence[str]) -> pd.Index:
    """Remove the version of Ensembl ids (``ENSG00000187608.10``); other names are not changed.

    Parameters
    ----------
    names
        Gene names.

    Examples
    --------
    >>> list(strip_versions(["ENSG00000187608.10", "HLA-A", "RP11-34P13.7"]))
    ['ENSG00000187608', 'HLA-A', 'RP11-34P13.7']
    """
    stripped = [
        _VERSIONED_ENSEMBL.sub(r"\1", name) if "." in name and name.startswith("ENS") else name
        for name in map(str, names)
    ]
    return pd.Index(stripped, dtype=object)


def respell_genes(names: Sequence[str], model_genes: Sequence[str]) -> pd.Index:
    """Rename the genes of a query to the model's spelling, where the match is unambiguous.

    A name changes only if it is none of the model's genes, and exactly one gene that the query
    lacks differs from it only in punctuation (``HLA.DRA``), case (``hla-dra``), surrounding
    spaces, the genome (``GRCh38_HLA-DRA``), an Ensembl id beside the symbol
    (``ENSG00000204287_HLA-DRA``), R's ``X`` before a digit (``X7SK``) or the ``-1`` of
    ``var_names_make_unique``. A mouse gene (``Cd3d``) is never renamed to a human one.

    Parameters
    ----------
    names
        ``query.var_names``.
    model_genes
        ``model.gene_names``.

    Returns
    -------
    Names in the same order. Different names remain different.

    Examples
    --------
    >>> list(respell_genes(["HLA.DRA", "GRCh38_LYZ", "MYGENE"], ["CD3D", "HLA-DRA", "LYZ"]))
    ['HLA-DRA', 'LYZ', 'MYGENE']
    """
    genes, stripped = strip_versions(model_genes).unique(), strip_versions(names)
    respelt = np.array(pd.Index(names), dtype=object)
    for column, gene in find_spellings(genes, stripped, genes.get_indexer(stripped)).items():
        respelt[column] = genes[gene]
    return pd.Index(respelt, dtype=object, name=getattr(names, "name", None))


def find_spellings(genes: pd.Index, names: pd.Index, target: NDArray[np.int64]) -> dict[int, int]:
    """Match columns of a query with genes of a model that have another spelling.

    Parameters
    ----------
    genes
        The model's genes, without duplicates.
    names
        The query's names without versions.
    target
        Position of each name among ``genes``, or -1.

    Returns
    -------
    Position of the gene by position of the column, one to one. The query lacks each of these
    genes, and each column is none of the model's genes.
    """
    absent = np.ones(len(genes), dtype=bool)
    absent[target[target >= 0]] = False
    missing, spare = np.flatnonzero(absent), np.flatnonzero(target < 0)
    if not len(missing) or not len(spare):
        return {}
    wanted, offered = _read(genes[missing]), _read(names[spare])
    found = _pair(wanted, offered, genes, _are_joined(offered.names, len(names)))
    return {int(spare[column]): int(missing[gene]) for column, gene in found.items()}


def describe_spellings(genes: pd.Index, names: pd.Index, found: Mapping[int, int]) -> str:
    """Show some of the pairs that :func:`find_spellings` found, and the line to type."""
    columns = {str(genes[gene]): str(names[column]) for column, gene in found.items()}
    shown = well_known_first(columns)[:N_NAMES_SHOWN]
    pairs = ", ".join(f"{gene!r} as {columns[gene]!r}" for gene in shown)
    more = f" and {len(columns) - len(shown):,} more" if len(columns) > len(shown) else ""
    return (
        f" {len(columns):,} of the model's genes are in the query with another spelling and "
        f"would count as 0: {pairs}{more}. Rename them: `from scvi_sctab.data import "
        "respell_genes; query.var_names = respell_genes(query.var_names, model.gene_names)`."
    )


@dataclass(frozen=True)
class _Names:
    """Names, their keys (lower case, hyphens for all punctuation), and the keys as one text."""

    names: list[str]
    keys: list[str]
    text: str


def _read(names: pd.Index) -> _Names:
    # Changing one joined text is ten times faster than changing its names.
    listed = names.tolist()
    text = _simplify(_END.join(listed))
    keys = text.split(_END)
    if (
        len(keys) != len(listed)
        or "-" in (text[:1], text[-1:])
        or f"-{_END}" in text
        or f"{_END}-" in text
    ):
        keys = [_key(name) for name in listed]
        text = _END.join(keys)
    return _Names(listed, keys, f"{_END}{text}")


def _simplify(text: str) -> str:
    return text.lower().translate(_TO_HYPHENS)


def _key(name: str) -> str:
    return _simplify(name).strip("-")


def _pair(wanted: _Names, offered: _Names, genes: pd.Index, is_joined: bool) -> dict[int, int]:
    """Match columns with genes: by keys, then without prefixes and ids, then without ``-1``."""
    prefixes, foreign = _prefixes(wanted.text + offered.text, genes)
    genes_of = _group(enumerate(wanted.keys))
    genes_of_form = _group([*enumerate(wanted.keys), *_forms(wanted, prefixes)])
    sought = genes_of_form.keys() | {form + _DUPLICATE for form in genes_of_form}
    columns = [(column, key) for column, key in enumerate(offered.keys) if key in sought]
    forms = columns + _forms(offered, prefixes) + (_parts(offered.names) if is_joined else [])
    originals = [(column, form[:-2]) for column, form in forms if form.endswith(_DUPLICATE)]
    by_case = not any(_END + sign in wanted.text + offered.text for sign in _ZEBRAFISH)
    found: dict[int, int] = {}
    seen_genes, seen_columns = set[int](), set[int]()
    rules = (genes_of, columns), (genes_of_form, forms), (genes_of_form, originals)
    for genes_by_form, columns_by_form in rules:
        pairs = {
            (gene, column)
            for column, form in columns_by_form
            for gene in genes_by_form.get(form, ())
            if not (gene in seen_genes or column in seen_columns)
            and not offered.keys[column].startswith(foreign)
            and _may_be(form, wanted.names[gene], offered.names[column], by_case)
        }
        n_columns = Counter(gene for gene, _ in pairs)
        n_genes = Counter(column for _, column in pairs)
        found |= {
            column: gene for gene, column in pairs if n_columns[gene] == n_genes[column] == 1
        }
        # Ambiguous ones are excluded from the next rules, which distinguish even less.
        seen_genes.update(n_columns)
        seen_columns.update(n_genes)
    return found


def _group(names: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    groups = defaultdict(list)
    for position, form in names:
        if form:
            groups[form].append(position)
    return groups


def _prefixes(text: str, genes: pd.Index) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the prefixes of genomes in names: of the model's species, and of others."""
    present = [
        (species, prefix)
        for species, prefixes in _GENOMES.items()
        for prefix in prefixes
        if _END + prefix in text
    ]
    origin = origin_of(genes) if present else None
    own = tuple(p for species, p in present if origin is None or species in origin.possible)
    return own, tuple(prefix for _, prefix in present if prefix not in own)


def _forms(names: _Names, prefixes: tuple[str, ...]) -> list[tuple[int, str]]:
    """List keys without genomes, Ensembl ids and R's X, with the position of their name."""
    marked = []
    has_x = f"{_END}x" in names.text and any(_END + x in names.text for x in _R_PREFIXES)
    if starts := prefixes + (_R_PREFIXES if has_x else ()):
        marked += [(i, key) for i, key in enumerate(names.keys) if key.startswith(starts)]
    if _ID_SIGN in names.text and "-" in names.text:
        marked += [(i, key) for i, key in enumerate(names.keys) if _ID_SIGN in key and "-" in key]
    return [(i, form) for i, key in marked for form in _undecorated(key, prefixes)]


def _undecorated(key: str, prefixes: tuple[str, ...]) -> Iterable[str]:
    for prefix in prefixes:
        key = key.removeprefix(prefix).lstrip("-")
    key = key[1:] if key.startswith(_R_PREFIXES) else key
    match = _ID_FIRST.fullmatch(key) or _ID_LAST.fullmatch(key)
    return {key, *filter(None, match.groups())} if match else {key}


def _are_joined(names: Sequence[str], n_names: int) -> bool:
    """Return whether half of all names are joined from parts; a few may be proteins."""
    text, enough = "".join(names), _MOST * n_names
    # Counted in the whole text first, which is ten times faster.
    if text.count("_") + text.count("|") < enough:
        return False
    return sum("_" in name or "|" in name for name in names) >= enough


def _parts(names: Sequence[str]) -> list[tuple[int, str]]:
    """List keys of the parts before and after a joint, with the position of their name."""
    found = set()
    for i, name in enumerate(names):
        joints = [match.span() for match in _JOINTS.finditer(name)]
        found |= {(i, _key(name[:start])) for start, _ in joints}
        found |= {(i, _key(name[stop:])) for _, stop in joints}
    return list(found)


def _may_be(form: str, gene: str, column: str, by_case: bool) -> bool:
    """Return whether two names differ in case by spelling, not by species."""
    if gene in column:
        return True
    a, b = (name[_simplify(name).find(form) :][: len(form)] for name in (gene, column))
    if a.translate(_TO_HYPHENS) == b.translate(_TO_HYPHENS):
        return True
    return by_case and (is_title(a) == is_title(b) or a.islower() or b.islower())
