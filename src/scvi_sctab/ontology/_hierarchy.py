"""Hierarchy of the labels of a model, from the Cell Ontology."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scvi_sctab.ontology._cell_ontology import ROOT, CellOntology

if TYPE_CHECKING:
    from scvi_sctab._types import Names

# Probabilities are rounded to multiples of 2^-40, so that float64 sums of up to 2^12 of them are
# exact in any order: equal sets of labels have equal sums, and larger sets no smaller ones.
_STEP = 2.0**-40
_MAX_LABELS = 2**12
_MOST = 1.01  # probabilities in half precision may sum to this much
_BLOCK_CELLS = 4096


@dataclass(frozen=True, eq=False)
class LabelHierarchy:
    """Labels, their terms and all ancestors of these, as arrays that need no ontology file.

    Terms are sorted by number of labels (descending), number of ancestors (ascending) and id. So
    a term comes after all its ancestors, and the first one is *cell*, to which every label
    belongs, matched or not. A label without a term belongs to no other term.

    Parameters
    ----------
    labels
        Distinct labels, ``(n_labels,)``.
    terms
        CL ids of their terms and of all ancestors of these, ``(n_terms,)``.
    names
        Names of the terms, ``(n_terms,)``.
    members
        Whether the term of a label is a term or its descendant, ``(n_terms, n_labels)``. A column
        holds a label's own term and its ancestors.
    own
        Row of the label's own term, -1 where it has none, ``(n_labels,)``.
    n_ancestors
        Number of ancestors of a term in the ontology, ``(n_terms,)``.

    Raises
    ------
    ValueError
        If the shapes or values of the arrays are inconsistent.

    Examples
    --------
    >>> hierarchy = LabelHierarchy.build(
    ...     ["CD4 T", "CD8 T", "mystery"],
    ...     {"CD4 T": "CL:0000624", "CD8 T": "CL:0000625"},
    ...     CellOntology.load(),
    ... )
    >>> rows = hierarchy.deepest([[0.5, 0.4, 0.1], [0.3, 0.3, 0.4]], level=0.8)
    >>> hierarchy.names[rows].tolist()
    ['mature alpha-beta T cell', 'cell']
    """

    # Arrays of strings; Sphinx would read the underscore of `np.str_` as a link.
    labels: NDArray[Any]
    terms: NDArray[Any]
    names: NDArray[Any]
    members: NDArray[np.bool_]
    own: NDArray[np.int64]
    n_ancestors: NDArray[np.int64]

    def __post_init__(self) -> None:
        for key, dtype in _DTYPES.items():
            array: NDArray[Any] = np.array(getattr(self, key), dtype=dtype)
            array.flags.writeable = False
            object.__setattr__(self, key, array)
        self._check()

    @staticmethod
    def build(labels: Names, terms: Mapping[str, str], ontology: CellOntology) -> LabelHierarchy:
        """Build the hierarchy of labels from an ontology.

        Parameters
        ----------
        labels
            Distinct labels, ``(n_labels,)``.
        terms
            CL id by label, such as ``match_labels(labels)["term_id"]``; a label without an entry,
            or with an empty id, is unmatched. Entries of other labels are ignored.
        ontology
            Ontology of the ids.

        Raises
        ------
        KeyError
            If an id is no live term of the ontology.
        ValueError
            If there is no label, a label is duplicated, or there are more than 4,096.
        """
        by_label = {str(label): term_id for label, term_id in dict(terms).items()}
        own_ids = [by_label.get(str(label)) or "" for label in labels]
        above = [{t} | ontology.ancestors(t) if t else set() for t in own_ids]
        n_members = {t: sum(t in ids for ids in above) for t in set().union(*above)}
        n_members[ROOT] = len(own_ids)
        rows = sorted(n_members, key=lambda t: (-n_members[t], len(ontology.ancestors(t)), t))
        members = np.array([[t == ROOT or t in ids for ids in above] for t in rows], dtype=bool)
        return LabelHierarchy(
            labels=np.array(labels, dtype=str),
            terms=np.array(rows, dtype=str),
            names=np.array([ontology.name(t) for t in rows], dtype=str),
            members=members.reshape(len(rows), len(own_ids)),
            own=np.array([rows.index(t) if t else -1 for t in own_ids], dtype=np.int64),
            n_ancestors=np.array([len(ontology.ancestors(t)) for t in rows], dtype=np.int64),
        )

    def child_matrix(self) -> NDArray[np.bool_]:
        """Return the predictions that scTab's evaluation accepts per truth :cite:p:`Fischer24`.

        Returns
        -------
        ``(n_labels, n_labels)``, true at ``[y, p]`` where ``p`` is ``y`` or the term of ``p`` is
        that of ``y`` or its descendant. Two labels with the same term accept each other; a label
        without a term accepts, and is accepted by, only itself.
        """
        matched = self.own >= 0
        # The row -1 of labels without a term is a valid index, and masked.
        accepted: NDArray[np.bool_] = self.members[self.own] & matched[:, None] & matched[None, :]
        np.fill_diagonal(accepted, True)
        return accepted

    def finer(self) -> NDArray[np.bool_]:
        """Return which labels are strictly finer than which.

        Returns
        -------
        ``(n_labels, n_labels)``, true at ``[y, p]`` where the term of ``p`` is a descendant of the
        term of ``y``.
        """
        finer = self.child_matrix()
        finer[self.own[:, None] == self.own[None, :]] = False
        return finer

    def coarse(self) -> NDArray[np.bool_]:
        """Return which labels have finer ones among the labels, ``(n_labels,)``."""
        return np.asarray(self.finer().any(axis=1))

    def roll_up(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Compute the probability of each term: the sum over its labels.

        Parameters
        ----------
        probabilities
            Probabilities of the labels, ``(n_cells, n_labels)``.

        Returns
        -------
        ``(n_cells, n_terms)``, exact to 1e-8, at most 1. A term never has less than its
        descendants, and terms with the same labels have the same, bit by bit.

        Raises
        ------
        ValueError
            If there is not one column per label, a number is negative or not finite, or those of a
            cell add up to more than 1.
        """
        exact = np.round(self._checked(probabilities).astype(np.float64) / _STEP) * _STEP
        return np.minimum(exact @ self.members.T.astype(np.float64), 1.0)

    def deepest(self, probabilities: ArrayLike, level: float) -> NDArray[np.int64]:
        """Find the most specific term with enough probability, in bounded memory.

        Parameters
        ----------
        probabilities
            Probabilities of the labels, ``(n_cells, n_labels)``.
        level
            Probability that the term has to reach, in (0, 1]. Above one half, terms without a
            label in common cannot both reach it; below they can, and the more specific is chosen.

        Returns
        -------
        Rows of :attr:`terms`, ``(n_cells,)``: of the terms that reach the level the one with
        fewest labels, of equals the one with most ancestors, then the most probable. The first
        row, *cell*, always counts as reached.

        Raises
        ------
        ValueError
            If the level is not in (0, 1], or as in :meth:`roll_up`.
        """
        if not 0 < level <= 1:
            raise ValueError(f"The level is {level}; it has to be in (0, 1].")
        rows = np.zeros(len(checked := self._checked(probabilities)), dtype=np.int64)
        for cells in _blocks(len(checked)):
            rolled = self.roll_up(checked[cells])
            rows[cells] = self._most_specific(rolled >= level, rolled)
        return rows

    def lowest_common_ancestor(self, sets: ArrayLike) -> NDArray[np.int64]:
        """Find the most specific term of all labels of a set, such as a prediction set.

        Parameters
        ----------
        sets
            Whether each label is in the set of each cell, ``(n_cells, n_labels)``.

        Returns
        -------
        Rows of :attr:`terms`, ``(n_cells,)``: of the terms that hold the whole set the one with
        fewest labels, of equals the one with most ancestors, then the first. A set with a label
        that has no term gets the first row, *cell*; an empty set gets -1.

        Raises
        ------
        ValueError
            If there is not one column per label, or an entry is not true or false.
        """
        chosen = np.asarray(sets)
        if chosen.dtype != np.bool_:
            raise ValueError(f"Sets are true or false for each label, not {chosen.dtype}.")
        chosen = self._fitting(chosen)
        rows = np.full(len(chosen), -1, dtype=np.int64)
        outside = ~self.members.T
        for cells in _blocks(len(chosen)):
            left_out = chosen[cells].astype(np.float32) @ outside.astype(np.float32)
            rows[cells] = self._most_specific(left_out == 0, np.zeros_like(left_out))
        rows[~chosen.any(axis=1)] = -1
        return rows

    def with_labels(self, labels: ArrayLike) -> LabelHierarchy:
        """Add labels behind the known ones; they are kinds of *cell*, and of nothing else.

        Parameters
        ----------
        labels
            Known labels in their order, then new ones, ``(n_labels,)``.
        """
        names = np.asarray(labels)
        n_new = len(names) - len(self.labels)
        of_root = np.zeros((len(self.terms), n_new), dtype=bool)
        of_root[0] = True
        return replace(
            self,
            labels=names,
            members=np.concatenate([self.members, of_root], axis=1),
            own=np.append(self.own, np.full(n_new, -1)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as lists of strings and arrays of numbers, to save."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: v.tolist() if v.dtype.kind == "U" else v.copy() for k, v in values.items()}

    @staticmethod
    def from_dict(saved: Mapping[str, Any]) -> LabelHierarchy:
        """Restore the result of :meth:`to_dict`; lists instead of arrays are accepted.

        Parameters
        ----------
        saved
            Result of :meth:`to_dict`, also after a round trip through JSON.

        Raises
        ------
        ValueError
            If a field is missing or unknown, or the arrays are inconsistent.
        """
        if saved.keys() != _DTYPES.keys():
            raise ValueError(f"A hierarchy has the fields {list(_DTYPES)}, not {list(saved)}.")
        return LabelHierarchy(**saved)

    def _check(self) -> None:
        n_terms, n_labels = len(self.terms), len(self.labels)
        if not 0 < n_labels <= _MAX_LABELS:
            raise ValueError(f"A hierarchy has 1 to {_MAX_LABELS:,} labels, not {n_labels:,}.")
        distinct, counts = np.unique(self.labels, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"Labels are duplicated: {distinct[counts > 1].tolist()}.")
        shapes = {"names": (n_terms,), "members": (n_terms, n_labels), "own": (n_labels,)}
        for key, shape in (shapes | {"n_ancestors": (n_terms,)}).items():
            if (found := getattr(self, key).shape) != shape:
                raise ValueError(
                    f"`{key}` has shape {found}, not {shape} as the terms and labels."
                )
        if self.terms[:1].tolist() != [ROOT] or not self.members[0].all():
            raise ValueError(f"The first term has to be {ROOT}, with all labels.")
        if not ((self.own >= -1) & (self.own < n_terms)).all():
            raise ValueError("`own` points to rows that there are not.")

    def _fitting(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim != 2 or array.shape[1] != len(self.labels):
            raise ValueError(
                f"One column for each of the {len(self.labels)} labels is needed, the shape is "
                f"{array.shape}."
            )
        return array

    def _checked(self, probabilities: ArrayLike) -> NDArray[Any]:
        array = self._fitting(np.asarray(probabilities))
        if not (array >= 0).all() or np.isinf(array).any():
            raise ValueError("Probabilities are negative, infinite or not numbers.")
        if (excess := array.sum(axis=1, dtype=np.float64).max(initial=0)) > _MOST:
            raise ValueError(f"Probabilities of a cell add up to {excess:.3g}, more than 1.")
        return array

    def _most_specific(self, holds: NDArray[np.bool_], score: NDArray[Any]) -> NDArray[np.int64]:
        """Find the row in ``holds`` with fewest members, most ancestors and highest score."""
        key = np.stack([self.members.sum(axis=1), -self.n_ancestors])
        # Terms are sorted by this key, so the last row in `holds` has the best rank.
        rank = np.cumsum(np.concatenate([[0], (np.diff(key) != 0).any(axis=0)]))
        best = rank[holds.shape[1] - 1 - np.argmax(holds[:, ::-1], axis=1)]
        candidates = holds & (rank[None, :] == best[:, None])
        return np.where(candidates, score, -1).argmax(axis=1)


_DTYPES: dict[str, type] = {
    "labels": np.str_,
    "terms": np.str_,
    "names": np.str_,
    "members": np.bool_,
    "own": np.int64,
    "n_ancestors": np.int64,
}


def _blocks(n_cells: int) -> Iterator[slice]:
    for start in range(0, n_cells, _BLOCK_CELLS):
        yield slice(start, start + _BLOCK_CELLS)
