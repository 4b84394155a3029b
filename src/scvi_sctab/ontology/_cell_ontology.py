"""The graph of the Cell Ontology."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import TypeVar

from scvi_sctab.ontology._aliases import find_alias, read_aliases
from scvi_sctab.ontology._near_misses import NearMisses
from scvi_sctab.ontology._organisms import foreign, of_one_species
from scvi_sctab.ontology._reading import ObsoleteTerm, Records, Term, read_bundled, read_file
from scvi_sctab.ontology._spelling import Spelling, normalize, spelling_of

ROOT = "CL:0000000"
"""Id of the term *cell*, the ancestor of every cell type."""

_Text = TypeVar("_Text", str, Spelling)
_ID = re.compile(r"(?:http://purl\.obolibrary\.org/obo/)?CL[:_](\d+)", re.IGNORECASE)
N_NEAR = 3
"""Number of near misses that are listed."""


@dataclass(frozen=True, eq=False, repr=False)
class CellOntology:
    """The Cell Ontology :cite:p:`Diehl16`: its terms and their is_a edges.

    The edges are those between live CL terms; relations such as *develops from* and terms of
    other ontologies are left out. An instance cannot be changed.

    Parameters
    ----------
    version
        Release, as written in the file.
    terms
        Live terms by id.
    obsolete
        Obsolete terms by id.

    Raises
    ------
    ValueError
        If *cell* is missing, or the edges have a cycle.

    Examples
    --------
    >>> ontology = CellOntology.load()
    >>> ontology
    CellOntology(cl/releases/2026-03-26 (derived), 3,324 terms)
    >>> ontology.name("CL:0000084")
    'T cell'
    >>> ontology.lowest_common_ancestor(["CL:0000624", "CL:0000625"])
    'CL:0000791'
    >>> ontology.name("CL:0000791")
    'mature alpha-beta T cell'
    """

    version: str
    terms: Mapping[str, Term]
    obsolete: Mapping[str, ObsoleteTerm] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", MappingProxyType(dict(self.terms)))
        object.__setattr__(self, "obsolete", MappingProxyType(dict(self.obsolete)))
        if ROOT not in self.terms:
            raise ValueError(f"{ROOT} ('cell') is missing, so this is not the Cell Ontology.")
        try:
            self._ancestors  # noqa: B018  # so that a cycle is found here, not at the first use
        except CycleError as error:
            circle = " is a ".join(reversed(error.args[1]))
            raise ValueError(f"The ontology has a circle: {circle}.") from error

    def __repr__(self) -> str:
        return f"CellOntology({self.version}, {len(self.terms):,} terms)"

    @staticmethod
    def load(path: str | os.PathLike[str] | None = None) -> CellOntology:
        """Read the ontology that comes with the package, or another release.

        Parameters
        ----------
        path
            OBO or OWL (RDF/XML) file, compressed or not, such as ``cl-basic.obo`` or ``cl.owl``;
            the bundled file if not given, which is read once. Nothing is downloaded, and imports
            in a file are not followed.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it cannot be read, or is not the Cell Ontology.
        """
        return _bundled() if path is None else _from_records(read_file(path))

    def name(self, term_id: str) -> str:
        """Return the name of a term.

        Parameters
        ----------
        term_id
            Id, such as ``"CL:0000084"``.

        Raises
        ------
        KeyError
            If it is no live term; the message has near misses, or the terms that replaced it.
        """
        return self._term(term_id).name

    def ancestors(self, term_id: str) -> frozenset[str]:
        """Return the ids of all ancestors of a term, without itself.

        Parameters
        ----------
        term_id
            Id of a term; an unknown one raises as in :meth:`name`.
        """
        self._term(term_id)
        return self._ancestors[term_id]

    def descendants(self, term_id: str) -> frozenset[str]:
        """Return the ids of all descendants of a term, without itself.

        Parameters
        ----------
        term_id
            Id of a term; an unknown one raises as in :meth:`name`.
        """
        self._term(term_id)
        return self._descendants[term_id]

    def lowest_common_ancestor(self, term_ids: Iterable[str]) -> str:
        """Return the id of the most specific term that is a common ancestor of some terms.

        Parameters
        ----------
        term_ids
            Ids of one or more terms; unknown ones raise as in :meth:`name`.

        Returns
        -------
        Of the common ancestors, the one with fewest descendants; of equals the one with most
        ancestors, then the one with the smallest id. Here a term counts as its own ancestor, so
        that the result is one of ``term_ids`` if that is an ancestor of the others.

        Raises
        ------
        ValueError
            If no term is given, or there is no common ancestor.
        """
        ids = list(term_ids)
        if not ids:
            raise ValueError("A common ancestor needs at least one term, none was given.")
        common = frozenset.intersection(*(self.ancestors(t) | {t} for t in ids))
        if not common:
            raise ValueError(f"{', '.join(map(self.describe, ids))} share no ancestor.")
        return min(common, key=lambda t: (len(self._descendants[t]), -len(self._ancestors[t]), t))

    def with_id(self, text: str) -> str | None:
        """Return the id, in the form ``CL:0000084``, if a text is the id of a live term.

        Parameters
        ----------
        text
            ``CL:0000084`` in upper or lower case, ``CL_0000084``, or the OBO address of a term.
        """
        term_id = _as_id(text)
        return term_id if term_id in self.terms else None

    def with_obsolete(self, text: str) -> str | None:
        """Return the id of the obsolete term with this id or former name, if there is one.

        Parameters
        ----------
        text
            As in :meth:`with_id` or :meth:`with_name`.
        """
        term_id = _as_id(text)
        return term_id if term_id in self.obsolete else self._obsolete_by_name.get(normalize(text))

    def with_name(self, text: str) -> tuple[str, ...]:
        """Return the ids of the terms with a name, ignoring case and extra spaces.

        Parameters
        ----------
        text
            Name; synonyms do not count.
        """
        return self._by_name.get(normalize(text), ())

    def with_synonym(self, text: str) -> tuple[str, ...]:
        """Return the ids of the terms with an exact synonym, ignoring case and extra spaces.

        Parameters
        ----------
        text
            Synonym; names do not count.
        """
        return self._by_synonym.get(normalize(text), ())

    def with_alias(self, text: str) -> tuple[str, ...]:
        """Return the ids of the terms with a usual name, in any spelling.

        Parameters
        ----------
        text
            Name such as ``"CD14+ Mono"`` or ``"Treg cells"``, of the table that comes with the
            package; an ambiguous name has several terms.
        """
        alias = find_alias(spelling_of(text))
        return () if alias is None else tuple(t for t in alias.term_ids if t in self.terms)

    def with_spelling(self, spelling: Spelling, synonyms: bool = False) -> tuple[str, ...]:
        """Return the ids of the terms with a name of the same words, in any order and spelling.

        Terms of one species, and of invertebrates, plants, fungi and bacteria are left out.

        Parameters
        ----------
        spelling
            Words of a name.
        synonyms
            Whether to look among exact synonyms instead of names.
        """
        index = self._synonyms_by_spelling if synonyms else self._names_by_spelling
        return index.get(spelling, ())

    def near_misses(self, text: str) -> list[str]:
        """List up to three terms that a text may mean, as ``name (id)``; none has to be right.

        Terms of vertebrates come first, and of these the terms with a usual name.

        Parameters
        ----------
        text
            Text similar to an id, a name, or an exact synonym. For an obsolete term the terms that
            replaced it are listed.
        """
        gone = self.with_obsolete(text)
        if gone is not None:
            return [self.describe(term_id) for term_id in self.obsolete[gone].replaced_by]
        term_id = _as_id(text)
        if term_id is not None:
            return [self.describe(t) for t in get_close_matches(term_id, self.terms, n=N_NEAR)]
        native, others = self._near
        found = native.find(text, N_NEAR) or others.find(text, N_NEAR)
        return [self.describe(term_id) for term_id in found]

    def describe(self, term_id: str) -> str:
        """Format name and id, as in ``T cell (CL:0000084)``; the id alone if it is unknown.

        Parameters
        ----------
        term_id
            Id of any term.
        """
        return f"{self.terms[term_id].name} ({term_id})" if term_id in self.terms else term_id

    def _term(self, term_id: str) -> Term:
        if term_id in self.terms:
            return self.terms[term_id]
        near = "; ".join(self.near_misses(str(term_id))) or "none"
        if term_id in self.obsolete:
            was = self.obsolete[term_id].name
            raise KeyError(f"{term_id!r} ({was}) is obsolete. Replaced by: {near}.")
        raise KeyError(f"{term_id!r} is no term of {self!r}. Near misses: {near}.")

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for term_id in TopologicalSorter(
            {t: self.terms[t].parents for t in self.terms}
        ).static_order():
            parents = self.terms[term_id].parents
            found[term_id] = frozenset(parents).union(*(found[parent] for parent in parents))
        return found

    @cached_property
    def _descendants(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {term_id: set() for term_id in self.terms}
        for term_id, ancestors in self._ancestors.items():
            for ancestor in ancestors:
                found[ancestor].add(term_id)
        return {term_id: frozenset(below) for term_id, below in found.items()}

    @cached_property
    def _by_name(self) -> dict[str, tuple[str, ...]]:
        return _index((normalize(term.name), t) for t, term in self.terms.items())

    @cached_property
    def _by_synonym(self) -> dict[str, tuple[str, ...]]:
        pairs = ((s, t) for t, term in self.terms.items() for s in term.synonyms)
        return _index((normalize(synonym), t) for synonym, t in pairs)

    @cached_property
    def _names_by_spelling(self) -> dict[Spelling, tuple[str, ...]]:
        return _index((spelling_of(self.terms[t].name), t) for t in self._general)

    @cached_property
    def _synonyms_by_spelling(self) -> dict[Spelling, tuple[str, ...]]:
        pairs = ((spelling_of(s), t) for t in self._general for s in self.terms[t].synonyms)
        # One or two letters, such as "K" cells, mean different things in different tissues.
        return _index((s, t) for s, t in pairs if len("".join(s.words)) > 2)

    @cached_property
    def _general(self) -> list[str]:
        """Terms of vertebrates that are not of one species only."""
        among = sorted(self.terms.keys() - self._foreign)
        return [t for t in among if not of_one_species(self.terms[t].name)]

    @cached_property
    def _foreign(self) -> frozenset[str]:
        roots = foreign({t: term.name for t, term in self.terms.items()})
        return roots.union(*(self._descendants[t] for t in roots))

    @cached_property
    def _near(self) -> tuple[NearMisses, NearMisses]:
        """Near misses among the terms of vertebrates, and among those of other organisms."""
        usual: dict[str, list[str]] = {}
        for alias in read_aliases():
            for term_id in alias.term_ids:
                usual.setdefault(term_id, []).append(alias.name)
        names = {
            t: (term.name, *term.synonyms, *usual.get(t, ()))
            for t, term in sorted(self.terms.items())
        }
        n_ancestors = {t: len(above) for t, above in self._ancestors.items()}
        native = {t: names[t] for t in names if t not in self._foreign}
        others = {t: names[t] for t in names if t in self._foreign}
        return NearMisses(native, usual.keys(), n_ancestors), NearMisses(
            others, usual.keys(), n_ancestors
        )

    @cached_property
    def _obsolete_by_name(self) -> dict[str, str]:
        return {normalize(term.name): term_id for term_id, term in self.obsolete.items()}


def _as_id(text: str) -> str | None:
    match = _ID.fullmatch(text.strip())
    return f"CL:{match[1]}" if match else None


def _index(pairs: Iterable[tuple[_Text, str]]) -> dict[_Text, tuple[str, ...]]:
    found: dict[_Text, set[str]] = {}
    for text, term_id in pairs:
        found.setdefault(text, set()).add(term_id)
    return {text: tuple(sorted(ids)) for text, ids in found.items()}


def _from_records(records: Records) -> CellOntology:
    return CellOntology(records.version, records.terms, records.obsolete)


@cache
def _bundled() -> CellOntology:
    return _from_records(read_bundled())
