"""Matching of labels to terms of the Cell Ontology."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from scvi_sctab.ontology._cell_ontology import N_NEAR, CellOntology
from scvi_sctab.ontology._spelling import spelling_of

if TYPE_CHECKING:
    from scvi_sctab._types import Names


class _Match(NamedTuple):
    term_id: str = ""
    matched_by: str = ""
    near_misses: str = ""


def match_labels(
    labels: Names,
    ontology: CellOntology | None = None,
    table: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Find the Cell Ontology term of each label; ambiguous labels are not matched.

    A label matches a term, in this order, by the table, by id (``CL:0000084``, ``CL_0000084``), by
    name, by an exact synonym that only one term has, by a usual name of the table of aliases that
    comes with the package (``"CD14 Mono"``, ``"Treg"``), or by a name or synonym of the same words
    (``"B-cells, naïve"``). Case and extra spaces are ignored; for the last two also plurals,
    hyphens, signs as in ``CD4+``, Greek letters, accents, and *cell* if other words remain. A
    label that names two types (``"T/NK"``) or is ambiguous does not match: it is listed with near
    misses, from which you can choose a term for the table.

    Parameters
    ----------
    labels
        Labels, such as a column of ``obs``; they may repeat, missing ones are left out.
    ontology
        The ontology; the bundled one if not given.
    table
        CL id or name by label, for labels that do not match or match wrongly without it. Labels
        are compared letter by letter; entries of labels that do not occur are ignored.

    Returns
    -------
    A row per distinct label, in order of appearance: ``term_id``, ``term`` (its name),
    ``matched_by`` (``"table"``, ``"id"``, ``"name"``, ``"synonym"``, ``"alias"``,
    ``"normalised name"``, ``"normalised synonym"``), all empty where nothing matched; and for
    those ``near_misses``, up to three terms as ``name (id)``.

    Raises
    ------
    ValueError
        If the table has targets that are no live term; all of them are named.

    Examples
    --------
    >>> match_labels(["T cell", "NK cells", "MAIT", "T/NK", "mine"], table={"mine": "Treg"})[
    ...     ["term_id", "matched_by"]
    ... ]
                 term_id       matched_by
    label
    T cell    CL:0000084             name
    NK cells  CL:0000623  normalised name
    MAIT      CL:0000940            alias
    T/NK
    mine      CL:0000815            table
    """
    ontology = CellOntology.load() if ontology is None else ontology
    table = {} if table is None else {str(k): str(v) for k, v in dict(table).items()}
    if wrong := wrong_targets(table, ontology):
        raise ValueError("\n".join(wrong))
    distinct = pd.Series(labels, dtype=object).dropna().astype(str).unique()
    matches = [
        _match(table[label], ontology)._replace(matched_by="table")
        if label in table
        else _match(label, ontology)
        for label in distinct
    ]
    frame = pd.DataFrame(matches, columns=_Match._fields, index=pd.Index(distinct, name="label"))
    names = [ontology.name(term_id) if term_id else "" for term_id in frame["term_id"]]
    frame.insert(1, "term", names)
    return frame


def wrong_targets(table: Mapping[str, str], ontology: CellOntology) -> list[str]:
    """Describe the wrong targets of a table, a line for each.

    Parameters
    ----------
    table
        CL id or name by label.
    ontology
        Ontology of the terms.
    """
    found = {label: _match(str(target), ontology) for label, target in table.items()}
    return [
        f"The table takes {label!r} to {table[label]!r}, which is not the id or name of one live "
        f"term of {ontology!r}. Near misses: {match.near_misses or 'none'}."
        for label, match in found.items()
        if not match.term_id
    ]


def _match(text: str, ontology: CellOntology) -> _Match:
    term_id = ontology.with_id(text)
    if term_id is not None:
        return _Match(term_id, "id")
    for matched_by, ids in _ways(text, ontology):
        if len(ids) == 1:
            return _Match(ids[0], matched_by)
        if ids:
            return _Match(near_misses="; ".join(map(ontology.describe, ids[:N_NEAR])))
    near = "; ".join(ontology.near_misses(text))
    if ontology.with_obsolete(text) is not None:
        near = f"obsolete, replaced by {near}" if near else "obsolete, replaced by nothing"
    return _Match(near_misses=near)


def _names_several(text: str, ontology: CellOntology) -> bool:
    """Return whether each part of a list names a type, unlike ``"B cell, naive"``."""
    parts = re.split("[,;]", text)
    return len(parts) > 1 and all(_match(part, ontology).term_id for part in parts)


def _ways(text: str, ontology: CellOntology) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the ways to find terms, the strictest first, and the terms that each finds."""
    yield "name", ontology.with_name(text)
    usual, synonym = ontology.with_alias(text), ontology.with_synonym(text)
    if usual in ((), synonym):  # otherwise the synonym usually means another term
        yield "synonym", synonym
    if _names_several(text, ontology):
        return
    spelling = spelling_of(text)
    equivalents = spelling.equivalents()
    is_obsolete = ontology.with_obsolete(text) is not None
    if not is_obsolete:
        yield "normalised name", ontology.with_spelling(spelling)
    yield "alias", usual
    if is_obsolete:
        return
    for same in equivalents[1:]:
        yield "normalised name", ontology.with_spelling(same)
    for same in equivalents:
        yield "normalised synonym", ontology.with_spelling(same, synonyms=True)
