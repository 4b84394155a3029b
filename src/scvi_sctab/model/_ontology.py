"""A model's labels in the Cell Ontology."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvi_sctab.data import list_names
from scvi_sctab.metrics import classification_report, ontology_corrected
from scvi_sctab.model._coarse import check_label
from scvi_sctab.ontology import CellOntology, LabelHierarchy, match_labels, wrong_targets

logger = logging.getLogger("scvi.sctab")

_CORRECTED = ", ontology-corrected"
_UNPLACED = "not in the Cell Ontology: "
_N_NAMED = 10


class OntologyMixin:
    """Labels as terms, and what follows for training, annotation and scores."""

    hierarchy_: dict[str, Any] | None = None

    @property
    def hierarchy(self) -> LabelHierarchy | None:
        """Labels of the model in the Cell Ontology; ``None`` before :meth:`set_ontology`."""
        return None if self.hierarchy_ is None else LabelHierarchy.from_dict(self.hierarchy_)

    def set_ontology(
        self,
        terms: Mapping[str, str] | None = None,
        ontology: CellOntology | str | Path | None = None,
        coarse_labels: Sequence[str] = (),
    ) -> pd.DataFrame:
        """Place the labels in the Cell Ontology :cite:p:`Diehl16`.

        :meth:`annotate` then tells the most specific term that the evidence suffices for, and
        :meth:`evaluate` adds scores that count a finer label as right, as scTab does.

        Parameters
        ----------
        terms
            Label -> CL id or name. Labels that it lacks are matched by id, name, synonym or usual
            name (``"NK"``, ``"CD14+ Mono"``), see :func:`~scvi_sctab.ontology.match_labels`.
        ontology
            An ontology, or the path of an ``.obo`` or ``.owl`` file; the bundled one if not given.
        coarse_labels
            Before training: labels of cells that are known less precisely than the others, such as
            "T cell" beside "CD4 T" and "CD8 T". They are learnt from as one of the labels that are
            a kind of them, and not predicted themselves. A label with cells of its own is none,
            though others may be a kind of it: CD16 monocytes are CD14 monocytes to the ontology.

        Returns
        -------
        A row per label: ``term_id``, ``term``, ``matched_by`` and ``near_misses``. Nothing is
        guessed: what did not match has an empty ``term_id``, is a kind of *cell* and nothing else,
        and is called ``"not in the Cell Ontology: <label>"`` by :meth:`annotate`.

        Raises
        ------
        ValueError
            If no label matched, ``terms`` names labels or terms that there are not (all of them
            are listed), or a coarse label has no finer one, or the model is trained.
        FileNotFoundError
            If there is no such file.

        Warns
        -----
        UserWarning
            If labels could not be placed; they are listed with near misses.

        Examples
        --------
        >>> model.set_ontology({"CD14 Mono": "CL:0001054"})  # doctest: +SKIP
        """
        if not isinstance(ontology, CellOntology):
            ontology = CellOntology.load(ontology)
        if wrong := self._wrong_entries(terms or {}, coarse_labels, ontology):
            raise ValueError("\n".join(wrong))
        if coarse_labels and self.is_trained:
            raise ValueError("coarse_labels change what is learnt: name them before training.")
        matches = match_labels(self.labels, ontology, terms)
        found = matches["term_id"] != ""
        if not found.any():
            raise ValueError(
                f"None of the labels is a term of the Cell Ontology: {list_names(self.labels)}. "
                "Say which they are: `model.set_ontology({label: CL id})`."
            )
        _report(matches)
        hierarchy = LabelHierarchy.build(self.labels, matches["term_id"].to_dict(), ontology)
        self.hierarchy_ = hierarchy.to_dict()
        if coarse_labels:
            self._set_coarse_labels(self.coarse_labels | _finer(hierarchy, coarse_labels))
        return matches

    def _wrong_entries(
        self, terms: Mapping[str, str], coarse_labels: Sequence[str], ontology: CellOntology
    ) -> list[str]:
        """Say which labels the model does not have, and which targets are no terms."""
        found = []
        for label in dict.fromkeys((*terms, *coarse_labels)):
            try:
                check_label(label, self.labels)
            except ValueError as error:
                found.append(str(error))
        return found + wrong_targets(terms, ontology)

    def _adopt_ontology(self, reference: Any) -> None:
        """Take over the ontology of a reference; labels that it lacks are cells, no more."""
        known = reference.hierarchy
        if known is None:
            return
        n_new = len(self.labels) - len(known.labels)
        of_root = np.zeros((len(known.terms), n_new), dtype=bool)
        of_root[0] = True
        self.hierarchy_ = known.to_dict() | {
            "labels": [str(label) for label in self.labels],
            "members": np.concatenate([known.members, of_root], axis=1),
            "own": np.append(known.own, np.full(n_new, -1)),
        }

    def _add_terms(
        self,
        columns: dict[str, NDArray[Any]],
        probabilities: NDArray[np.float32],
        sets: NDArray[np.bool_] | None,
        level: float,
    ) -> None:
        """Add rows of the hierarchy to the columns of :meth:`annotate`."""
        hierarchy = self.hierarchy
        if hierarchy is None:
            return
        rows = hierarchy.deepest(probabilities, level)
        columns["term"] = rows
        # Of one term per cell; all of them were rolled up to find it.
        share = np.sum(probabilities, axis=1, where=hierarchy.members[rows], dtype=np.float64)
        columns["term_probability"] = np.minimum(share, 1)
        if sets is not None:
            columns["set_term"] = hierarchy.lowest_common_ancestor(sets)

    def _name_terms(self, columns: dict[str, NDArray[Any]]) -> None:
        """Turn rows of the hierarchy into names and ids."""
        hierarchy = self.hierarchy
        if hierarchy is None:
            return
        rows = columns.pop("term")
        terms = hierarchy.names[rows].astype(object)
        # Of these labels it is known that they are cells, which would hide what they are.
        unplaced = (rows == 0) & (hierarchy.own[columns["label"]] < 0)
        terms[unplaced] = _UNPLACED + hierarchy.labels[columns["label"][unplaced]].astype(object)
        columns["term"] = pd.Categorical(terms)
        columns["term_id"] = pd.Categorical.from_codes(rows, hierarchy.terms)
        columns["term_probability"] = columns.pop("term_probability")
        if "set_term" in columns:
            names = np.append(hierarchy.names.astype(object), None)  # row -1: an empty set
            set_terms = names[columns["set_term"]]
            sets = np.asarray(columns["prediction_set"], dtype=object)
            alone = pd.Series(sets).isin(hierarchy.labels[hierarchy.own < 0]).to_numpy()
            set_terms[alone] = _UNPLACED + sets[alone]
            columns["set_term"] = pd.Categorical(set_terms)

    def _corrected_scores(self, truth: NDArray[Any], predicted: NDArray[Any]) -> pd.DataFrame:
        """Rows that :meth:`evaluate` adds; none without an ontology that holds the labels."""
        hierarchy = self.hierarchy
        if hierarchy is None or not np.isin(truth, hierarchy.labels).all():
            return pd.DataFrame()
        corrected = ontology_corrected(truth, predicted, hierarchy)
        report = classification_report(truth, corrected.predicted)
        return report.loc[["macro average", "accuracy"]].rename(lambda name: name + _CORRECTED)


def _report(matches: pd.DataFrame) -> None:
    """Warn of labels that were not placed, and log those that were placed by what is usual."""
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
        warnings.warn(
            f"{len(lost)} of {len(matches)} labels were not found in the Cell Ontology: "
            f"{', '.join(first)}{more}. Say which terms they are: "
            f"`model.set_ontology({{{str(lost.index[0])!r}: 'CL:...'}})`; until then their cells "
            f"have the term {_UNPLACED + str(lost.index[0])!r}.",
            UserWarning,
            stacklevel=3,
        )


def _finer(hierarchy: LabelHierarchy, coarse_labels: Sequence[str]) -> dict[str, list[str]]:
    """Find what coarse labels stand for."""
    finer = hierarchy.finer()
    found = {}
    for label in coarse_labels:
        row = finer[list(hierarchy.labels).index(label)]
        if not row.any():
            raise ValueError(f"No label is a kind of {label!r}, so that it stands for none.")
        found[label] = [str(name) for name in hierarchy.labels[row]]
    return found
