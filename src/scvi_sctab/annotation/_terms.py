"""Terms of the Cell Ontology for labels and for cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvi_sctab._logging import logger
from scvi_sctab._messages import list_names, warn
from scvi_sctab.annotation._coarse import check_label
from scvi_sctab.ontology import CellOntology, LabelHierarchy, match_labels, wrong_targets

if TYPE_CHECKING:
    from scvi_sctab.annotation._state import AnnotationState

_UNPLACED = "not in the Cell Ontology: "
_N_NAMED = 10


def place_labels(
    state: AnnotationState,
    terms: Mapping[str, str],
    ontology: CellOntology,
    coarse_labels: Sequence[str] = (),
) -> tuple[AnnotationState, pd.DataFrame]:
    """Match the labels of a model with terms of the Cell Ontology.

    Parameters
    ----------
    state
        State of the model.
    terms
        CL id or name of the term of a label; other labels are matched by name.
    ontology
        The ontology.
    coarse_labels
        Coarse labels, which stand for the labels whose terms are kinds of theirs.

    Returns
    -------
    The new state, and a row per label as :func:`~scvi_sctab.ontology.match_labels` returns it.

    Raises
    ------
    ValueError
        If no label matched, labels or terms do not exist, or a coarse label has no finer one.

    Warns
    -----
    UserWarning
        If labels could not be matched.
    """
    check_entries(state.labels, terms, coarse_labels, ontology)
    matches = match_labels(state.labels, ontology, terms)
    if not (matches["term_id"] != "").any():
        raise ValueError(
            f"None of the labels is a term of the Cell Ontology: {list_names(state.labels)}. "
            "Say which they are: `model.set_ontology({label: CL id})`."
        )
    _report(matches)
    hierarchy = LabelHierarchy.build(state.labels, matches["term_id"].to_dict(), ontology)
    coarse = {**state.coarse_labels, **_finer(hierarchy, coarse_labels)}
    return replace(state, hierarchy=hierarchy, coarse_labels=coarse), matches


def add_terms(
    columns: dict[str, NDArray[Any]],
    hierarchy: LabelHierarchy,
    probabilities: NDArray[np.float32],
    sets: NDArray[np.bool_] | None,
    level: float,
) -> None:
    """Add the rows of terms in the hierarchy to the columns of a minibatch of cells.

    Parameters
    ----------
    columns
        Columns to add to.
    hierarchy
        Labels in the ontology.
    probabilities
        ``(n_cells, n_labels)``.
    sets
        Prediction sets, ``(n_cells, n_labels)``, if there are any.
    level
        Smallest probability of a term.
    """
    rows = hierarchy.deepest(probabilities, level)
    columns["term"] = rows
    # Sum over the labels of one term per cell.
    share = np.sum(probabilities, axis=1, where=hierarchy.members[rows], dtype=np.float64)
    columns["term_probability"] = np.minimum(share, 1)
    if sets is not None:
        columns["set_term"] = hierarchy.lowest_common_ancestor(sets)


def name_terms(columns: dict[str, Any], hierarchy: LabelHierarchy) -> None:
    """Convert rows of the hierarchy to names and ids of terms.

    Parameters
    ----------
    columns
        Columns of all cells, with codes of labels.
    hierarchy
        Labels in the ontology.
    """
    rows = columns.pop("term")
    terms = hierarchy.names[rows].astype(object)
    # Labels without a term would only get the root, "cell"; their name says more.
    unplaced = (rows == 0) & (hierarchy.own[columns["label"]] < 0)
    terms[unplaced] = _UNPLACED + hierarchy.labels[columns["label"][unplaced]].astype(object)
    columns["term"] = pd.Categorical(terms)
    columns["term_id"] = pd.Categorical.from_codes(rows, hierarchy.terms)
    columns["term_probability"] = columns.pop("term_probability")
    if "set_term" in columns:
        names = np.array([*hierarchy.names.tolist(), None], dtype=object)  # row -1: an empty set
        set_terms = names[columns["set_term"]]
        sets = np.asarray(columns["prediction_set"], dtype=object)
        alone = pd.Series(sets).isin(hierarchy.labels[hierarchy.own < 0]).to_numpy()
        set_terms[alone] = _UNPLACED + sets[alone]
        columns["set_term"] = pd.Categorical(set_terms)


def check_entries(
    labels: NDArray[np.str_],
    terms: Mapping[str, str],
    coarse_labels: Sequence[str],
    ontology: CellOntology,
) -> None:
    """Refuse labels that the model does not have, and targets that are no terms, all at once.

    Parameters
    ----------
    labels
        Labels of the model, ``(n_labels,)``.
    terms, coarse_labels, ontology
        As of :func:`place_labels`.

    Raises
    ------
    ValueError
        If there is one.
    """
    found = []
    for label in dict.fromkeys((*terms, *coarse_labels)):
        try:
            check_label(label, labels)
        except ValueError as error:
            found.append(str(error))
    found += wrong_targets(terms, ontology)
    if found:
        raise ValueError("\n".join(found))


def _report(matches: pd.DataFrame) -> None:
    """Warn about labels without a term, and log labels that were matched by a usual name."""
    usual = matches[matches["matched_by"].isin(["alias", "normalised name", "normalised synonym"])]
    if len(usual):
        pairs = [f"{label!r} is {row['term']}" for label, row in usual.iterrows()]
        logger.info("Placed by usual names and spellings: " + "; ".join(pairs) + ".")
    lost = matches[matches["term_id"] == ""]
    if len(lost):
        first = [
            f"{label!r} (near misses: {near or 'none'})"
            for label, near in lost["near_misses"].iloc[:_N_NAMED].items()
        ]
        more = f", and {len(lost) - _N_NAMED} more" if len(lost) > _N_NAMED else ""
        warn(
            f"{len(lost)} of {len(matches)} labels were not found in the Cell Ontology: "
            f"{', '.join(first)}{more}. Say which terms they are: "
            f"`model.set_ontology({{{str(lost.index[0])!r}: 'CL:...'}})`; until then their cells "
            f"have the term {_UNPLACED + str(lost.index[0])!r}."
        )


def _finer(hierarchy: LabelHierarchy, coarse_labels: Sequence[str]) -> dict[str, list[str]]:
    """Find the labels that are a kind of each coarse label."""
    finer = hierarchy.finer()
    found = {}
    for label in coarse_labels:
        row = finer[list(hierarchy.labels).index(label)]
        if not row.any():
            raise ValueError(f"No label is a kind of {label!r}, so that it stands for none.")
        found[label] = [str(name) for name in hierarchy.labels[row]]
    return found
