"""Consensus of several annotators in the Cell Ontology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from scvi_sctab.ontology._cell_ontology import CellOntology
from scvi_sctab.ontology._labels import match_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Verdict(NamedTuple):
    label: str | None = None
    term: str | None = None
    term_id: str | None = None
    agreement: float = np.nan
    n_matched: int = 0
    unmatched: str = ""


def consensus(
    labels: pd.DataFrame,
    ontology: CellOntology | None = None,
    table: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Find what several annotators of the same cells agree on.

    Parameters
    ----------
    labels
        Labels or CL ids, ``(n_cells, n_annotators)``, a column per annotator; missing values are
        cells that an annotator left out.
    ontology
        The ontology; the bundled one if not given.
    table
        CL id or name by label, for labels that :func:`match_labels` does not find.

    Returns
    -------
    A row per cell:

    - ``label``: the term that most annotators name; of several the one with most ``agreement``;
      of equals ``term``.
    - ``term``, ``term_id``: the lowest common ancestor of the terms of all annotators, such as
      *T cell* where one says CD4 and another CD8 T cell.
    - ``agreement``: share of the annotators with a term whose term is ``label`` or a kind of it.
    - ``n_matched``: number of annotators with a term.
    - ``unmatched``: labels without a term, as ``"annotator: label"``, joined by ``" | "``. They
      count for nothing else.

    Without any term, ``label``, ``term`` and ``term_id`` are missing, and ``agreement`` is NaN.

    Raises
    ------
    TypeError
        If ``labels`` is no data frame.
    ValueError
        If it has no column, names of columns are duplicated, or the table has targets that are no
        live term.

    Examples
    --------
    >>> votes = {"sctab": ["NK", "CD4 T cell"], "celltypist": ["NK cells", "CD8 T cell"]}
    >>> consensus(pd.DataFrame(votes))[["term", "agreement"]]
                         term  agreement
    0     natural killer cell        1.0
    1  mature alpha-beta T cell        1.0
    """
    if not isinstance(labels, pd.DataFrame):
        raise TypeError(
            f"`labels` is a {type(labels).__name__}; give a data frame with a column per annotator."
        )
    if not labels.shape[1] or labels.columns.has_duplicates:
        raise ValueError(
            f"Each annotator needs a column of its own; there are {list(labels.columns)}."
        )
    ontology = CellOntology.load() if ontology is None else ontology
    columns = [_coded(labels[name]) for name in labels]
    group, first = _distinct_rows([codes for codes, _ in columns])
    terms = _terms((name for _, names in columns for name in names), ontology, table)
    annotators = [str(name) for name in labels.columns]
    verdicts = [
        _judge(
            {
                annotator: names[codes[row]]
                for annotator, (codes, names) in zip(annotators, columns, strict=True)
                if codes[row] >= 0
            },
            terms,
            ontology,
        )
        for row in first
    ]
    frame = pd.DataFrame(verdicts, columns=_Verdict._fields).iloc[group]
    frame = frame.set_axis(labels.index, axis=0)
    named = ["label", "term", "term_id", "unmatched"]
    return frame.astype(dict.fromkeys(named, "category"))


def _coded(column: pd.Series) -> tuple[NDArray[np.intp], list[str]]:
    """Return the code of each cell, -1 if missing, and the label of each code."""
    codes, names = pd.factorize(column)
    return codes, [str(name) for name in names]


def _distinct_rows(
    columns: Sequence[NDArray[np.intp]],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the number of each distinct row, and the first row of each number."""
    group = np.zeros(len(columns[0]), dtype=np.intp)
    for codes in columns:  # renumbered at each step, so that no product overflows
        group = pd.factorize(group * (codes.max(initial=-1) + 2) + codes + 1)[0]
    return group, np.unique(group, return_index=True)[1]


def _terms(
    names: Iterable[str], ontology: CellOntology, table: Mapping[str, str] | None
) -> dict[str, str]:
    distinct = list(dict.fromkeys(names))
    found = match_labels(distinct, ontology, table)["term_id"]
    return {str(label): term_id for label, term_id in found.items() if term_id}


def _judge(votes: Mapping[str, Any], terms: Mapping[str, str], ontology: CellOntology) -> _Verdict:
    """Judge the labels of one distinct row."""
    unmatched = " | ".join(f"{who}: {label}" for who, label in votes.items() if label not in terms)
    named = Counter(terms[label] for label in votes.values() if label in terms)
    if not named:
        return _Verdict(unmatched=unmatched)
    n_matched = named.total()
    common = ontology.lowest_common_ancestor(named)
    support = {
        term: sum(
            n for kind, n in named.items() if term == kind or term in ontology.ancestors(kind)
        )
        for term in (*named, common)
    }
    label = max(sorted(named), key=lambda term: (named[term], support[term]))
    tied = [t for t in named if (named[t], support[t]) == (named[label], support[label])]
    if len(tied) > 1:
        label = common
    return _Verdict(
        ontology.name(label),
        ontology.name(common),
        common,
        support[label] / n_matched,
        n_matched,
        unmatched,
    )
