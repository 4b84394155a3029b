"""Usual names of cell types that the Cell Ontology does not know."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NamedTuple

from scvi_sctab.ontology._spelling import Spelling, spelling_of

_FILE = "aliases.tsv"


class Alias(NamedTuple):
    """A usual name of a cell type.

    Attributes
    ----------
    name
        The name, as people write it.
    term_ids
        Id of its term; several ids if the name is ambiguous.
    terms
        Names of these terms.
    comment
        Where the name is used, or why it stands for this term.
    """

    name: str
    term_ids: tuple[str, ...]
    terms: tuple[str, ...]
    comment: str


@cache
def read_aliases() -> tuple[Alias, ...]:
    """Read the table that comes with the package."""
    text = (files("scvi_sctab.ontology") / _FILE).read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return tuple(
        Alias(name, tuple(ids.split()), tuple(terms.split("; ")), comment)
        for name, ids, terms, comment in rows[1:]
    )


def find_alias(found: Spelling) -> Alias | None:
    """Alias with the words of a label; one that says *cell* twice names two types and has none."""
    return _by_words().get(found.words) if found.n_cell <= 1 else None


@cache
def _by_words() -> dict[tuple[str, ...], Alias]:
    return {spelling_of(alias.name).words: alias for alias in read_aliases()}
