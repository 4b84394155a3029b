"""Usual names of cell types that are neither names nor synonyms in the Cell Ontology."""

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
        The name, as it is usually written.
    term_ids
        Id of its term; several ids if the name is ambiguous.
    terms
        Names of these terms.
    comment
        Where the name is used, or why it belongs to this term.
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
    """Find the alias with the words of a label; with *cell* twice it names two types: none."""
    return _by_words().get(found.words) if found.n_cell <= 1 else None


@cache
def _by_words() -> dict[tuple[str, ...], Alias]:
    return {spelling_of(alias.name).words: alias for alias in read_aliases()}
