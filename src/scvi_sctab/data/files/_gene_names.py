"""Names of genes in a file that are those of a model."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab._messages import list_names
from scvi_sctab.data._spelling import respell_genes, strip_versions
from scvi_sctab.data.files._refusal import RefusedInputError

if TYPE_CHECKING:
    from scvi_sctab._types import Names

VAR_NAMES = "var_names"
# Columns such as `highly_variable` and `feature_types` repeat a few values.
_MIN_DISTINCT = 0.5


@dataclass(frozen=True)
class GenesFound:
    """Names of genes that were taken, and how many are a model's.

    Attributes
    ----------
    names
        A name per column of the counts: the model's where it has the gene.
    source
        Where they were: ``"var_names"`` or a column of ``var``.
    n_found
        Number of the model's genes among them.
    n_genes
        Number of the model's genes.
    respelt
        Some of the names that the model spells differently, by the model's spelling.
    n_respelt
        Number of these.
    from_table
        Number of names that were found in a table of gene names.
    duplicated
        Genes of the model with several columns, of which the first is taken.
    """

    names: pd.Index
    source: str
    n_found: int
    n_genes: int
    respelt: Mapping[str, str]
    n_respelt: int
    from_table: int
    duplicated: tuple[str, ...]

    @property
    def overlap(self) -> float:
        """Share of the model's genes that were found."""
        return self.n_found / self.n_genes

    def describe(self) -> str:
        """Describe them in a sentence or more."""
        text = (
            f"{self.n_found:,} of the model's {self.n_genes:,} genes ({self.overlap:.0%}), named in "
            f"{self.source}"
        )
        if self.from_table:
            text += f"; {self.from_table:,} by the gene table"
        if self.n_respelt:
            pairs = ", ".join(f"{other!r} as {gene!r}" for gene, other in self.respelt.items())
            text += f"; {self.n_respelt:,} in another spelling, read {pairs}"
        if self.duplicated:
            text += (
                f"; {len(self.duplicated):,} are duplicated and the first of each is taken: "
                f"{list_names(self.duplicated)}"
            )
        return text + "."


def find_genes(
    var: pd.DataFrame,
    model_genes: Names,
    column: str | None = None,
    table: Sequence[Sequence[str]] = (),
    source: str = "",
) -> GenesFound:
    """Find the names of a model's genes in ``var_names`` or a column of ``var``.

    Ensembl versions are ignored, and names in another spelling are found as by
    :func:`~scvi_sctab.data.respell_genes`.

    Parameters
    ----------
    var
        Table of genes.
    model_genes
        The model's gene names.
    column
        Column to take, or ``"var_names"``; if not given, the one with most of the model's genes.
    table
        Names of genes, those of a gene together, of which the model has one.
    source
        The file, for messages.

    Raises
    ------
    RefusedInputError
        If there is no such column.

    Examples
    --------
    >>> var = pd.DataFrame({"symbol": ["CD3D", "HLA.DRA"]}, index=["ENSG1", "ENSG2"])
    >>> found = find_genes(var, ["CD3D", "HLA-DRA", "LYZ"])
    >>> found.source, list(found.names), found.n_found
    ("var['symbol']", ['CD3D', 'HLA-DRA'], 2)
    """
    genes = strip_versions(pd.Index(model_genes, dtype=object)).unique()
    candidates = _candidates(var, column, source)
    found = [_match(names, genes, table, name) for name, names in candidates.items()]
    return max(found, key=lambda candidate: candidate.n_found)  # the first of equal ones


def _candidates(var: pd.DataFrame, column: str | None, source: str) -> dict[str, pd.Index]:
    if column == VAR_NAMES:
        return {VAR_NAMES: var.index}
    if column is not None:
        if column not in var:
            raise RefusedInputError(
                f"{source}: `var` has no column {column!r}.",
                f"Name the one with names of genes, or {VAR_NAMES!r}: {list_names(var.columns)}.",
            )
        return {f"var[{column!r}]": pd.Index(var[column])}
    columns = {VAR_NAMES: var.index}
    for name in var.columns:
        values = var[name]
        is_text = isinstance(values.dtype, pd.CategoricalDtype) or values.dtype.kind == "O"
        if is_text and values.nunique() > _MIN_DISTINCT * len(values):
            columns[f"var[{name!r}]"] = pd.Index(values)
    return columns


def _match(
    listed: pd.Index, genes: pd.Index, table: Sequence[Sequence[str]], source: str
) -> GenesFound:
    names = strip_versions(listed)
    tabled = _translate(names, genes, table)
    from_table = int((tabled != names).sum())
    respelt = strip_versions(respell_genes(tabled, genes))
    changed = np.flatnonzero(np.asarray(respelt != tabled))
    pairs = {str(respelt[i]): str(listed[i]) for i in changed[:2]}
    known = respelt.isin(genes)
    again = known & respelt.duplicated()
    unique = respelt.to_numpy(dtype=object).copy()
    for position in np.flatnonzero(again):
        unique[position] = f"{unique[position]} (column {position})"
    return GenesFound(
        pd.Index(unique, dtype=object),
        source,
        int(respelt[known].nunique()),
        len(genes),
        pairs,
        len(changed),
        from_table,
        tuple(map(str, respelt[again].unique())),
    )


def _translate(names: pd.Index, genes: pd.Index, table: Sequence[Sequence[str]]) -> pd.Index:
    """Replace names that the model lacks by the one gene of it in their row of the table."""
    if not table:
        return names
    present, known = set(names), set(genes)
    meaning: dict[str, set[str]] = {}
    for row in table:
        row = list(strip_versions(row))
        wanted = {name for name in row if name in known and name not in present}
        for name in row:
            if name not in known:
                meaning.setdefault(name, set()).update(wanted)
    one = {name: next(iter(found)) for name, found in meaning.items() if len(found) == 1}
    return pd.Index([one.get(name, name) for name in names], dtype=object)


def read_gene_table(path: Path) -> list[list[str]]:
    """Read a table of gene names: a gene per line, its names separated by tabs.

    Parameters
    ----------
    path
        The table. A header line does no harm, nor do empty fields.

    Raises
    ------
    RefusedInputError
        If it cannot be read, or no line has two names.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [[name.strip() for name in row] for row in csv.reader(file, delimiter="\t")]
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedInputError(
            f"The gene table {path} cannot be read: {error}.", "Check its name; it is a text file."
        ) from error
    rows = [[name for name in row if name] for row in rows]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise RefusedInputError(
            f"The gene table {path} has no line with two names.",
            "Separate the names of a gene by tabs.",
        )
    return rows
