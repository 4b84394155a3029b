"""Match the labels of a data set to terms of the Cell Ontology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from scvi_sctab.ontology._cell_ontology import N_NEAR, CellOntology


class _Match(NamedTuple):
    term_id: str = ""
    matched_by: str = ""
    near_misses: str = ""


def match_labels(
    labels: Sequence[str],
    ontology: CellOntology | None = None,
    table: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Find the Cell Ontology term of each label, without ever guessing.

    A label matches a term by the table, by id (``CL:0000084``, ``CL_0000084``), by name, or by an
    exact synonym that only one term has; upper and lower case and extra spaces do not matter. What
    does not match is listed with near misses, to be put into a table by who knows the data.

    Parameters
    ----------
    labels
        Labels, such as a column of ``obs``; they may repeat, missing ones are left out.
    ontology
        The bundled one if not given.
    table
        CL id or name by label, for what does not match by itself or matches wrongly. Labels are
        compared letter by letter; those that do not occur are ignored.

    Returns
    -------
    A row per distinct label, in order of appearance: ``term_id``, ``term`` (its name),
    ``matched_by`` (``"table"``, ``"id"``, ``"name"``, ``"synonym"``), all empty where nothing
    matched; and for those ``near_misses``, up to three terms as ``name (id)``.

    Raises
    ------
    ValueError
        If the table has a target that is no live term.

    Examples
    --------
    >>> match_labels(["T cell", "NK", "B cells"], table={"NK": "CL:0000623"})[
    ...     ["term", "matched_by"]
    ... ]
                          term matched_by
    label
    T cell              T cell       name
    NK     natural killer cell      table
    B cells
    """
    ontology = CellOntology.load() if ontology is None else ontology
    chosen = {
        str(label): _Match(_target(str(label), target, ontology), "table")
        for label, target in dict({} if table is None else table).items()
    }
    distinct = pd.Series(labels, dtype=object).dropna().astype(str).unique()
    matches = [chosen.get(label) or _match(label, ontology) for label in distinct]
    frame = pd.DataFrame(matches, columns=_Match._fields, index=pd.Index(distinct, name="label"))
    names = [ontology.name(term_id) if term_id else "" for term_id in frame["term_id"]]
    frame.insert(1, "term", names)
    return frame


def _match(text: str, ontology: CellOntology) -> _Match:
    term_id = ontology.with_id(text)
    if term_id is not None:
        return _Match(term_id, "id")
    for matched_by, ids in (
        ("name", ontology.with_name(text)),
        ("synonym", ontology.with_synonym(text)),
    ):
        if len(ids) == 1:
            return _Match(ids[0], matched_by)
        if ids:
            return _Match(near_misses="; ".join(map(ontology.describe, ids[:N_NEAR])))
    near = "; ".join(ontology.near_misses(text))
    if ontology.with_obsolete(text) is not None:
        near = f"obsolete, replaced by {near}" if near else "obsolete, replaced by nothing"
    return _Match(near_misses=near)


def _target(label: str, target: str, ontology: CellOntology) -> str:
    match = _match(str(target), ontology)
    if not match.term_id:
        raise ValueError(
            f"The table takes {label!r} to {target!r}, which is not the id or name of one live "
            f"term of {ontology!r}. Near misses: {match.near_misses or 'none'}."
        )
    return match.term_id
