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
"""Id of the term *cell*, of which every cell type is a kind."""

_Text = TypeVar("_Text", str, Spelling)
_ID = re.compile(r"(?:http://purl\.obolibrary\.org/obo/)?CL[:_](\d+)", re.IGNORECASE)
N_NEAR = 3
"""How many near misses are listed."""


@dataclass(frozen=True, eq=False, repr=False)
class CellOntology:
    """The Cell Ontology :cite:p:`Diehl16`: its terms and what is a kind of what.

    The edges are is_a edges between live CL terms; relations such as *develops from* and terms of
    other ontologies are left out. It cannot be changed.

    Parameters
    ----------
    version
        Release, as the file states it.
    terms
        Live terms by id.
    obsolete
        Terms that were taken out, by id.

    Raises
    ------
    ValueError
        If *cell* is missing, or terms are in a circle a kind of each other.

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
            self._ancestors  # noqa: B018  # a circle is found here, not at the first question
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
            OBO or OWL (RDF/XML) file, compressed or not, such as ``cl-basic.obo`` or ``cl.owl``.
            The bundled one if not given; it is read once. Nothing is downloaded, imports of a
            file are not followed.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it cannot be read, or is not the Cell Ontology.
        """
        return _bundled() if path is None else _from_records(read_file(path))

    def name(self, term_id: str) -> str:
        """Name of a term.

        Parameters
        ----------
        term_id
            Id, such as ``"CL:0000084"``.

        Raises
        ------
        KeyError
            If it is no live term; the message has near misses, or what replaced it.
        """
        return self._term(term_id).name

    def ancestors(self, term_id: str) -> frozenset[str]:
        """Ids of all terms that a term is a kind of, directly or not; itself is not among them.

        Parameters
        ----------
        term_id
            Id of a term; one that is unknown raises as in :meth:`name`.
        """
        self._term(term_id)
        return self._ancestors[term_id]

    def descendants(self, term_id: str) -> frozenset[str]:
        """Ids of all terms that are a kind of a term, directly or not; itself is not among them.

        Parameters
        ----------
        term_id
            Id of a term; one that is unknown raises as in :meth:`name`.
        """
        self._term(term_id)
        return self._descendants[term_id]

    def lowest_common_ancestor(self, term_ids: Iterable[str]) -> str:
        """Id of the most specific term that covers all the terms given.

        Parameters
        ----------
        term_ids
            Ids of one or more terms; those that are unknown raise as in :meth:`name`.

        Returns
        -------
        Of the terms that each of them is or is a kind of, the one with fewest descendants; of
        equals the one with most ancestors, then the one with the smallest id. It is one of
        ``term_ids`` if that covers the others.

        Raises
        ------
        ValueError
            If no term is given, or nothing covers all of them.
        """
        ids = list(term_ids)
        if not ids:
            raise ValueError("A common ancestor needs at least one term, none was given.")
        common = frozenset.intersection(*(self.ancestors(t) | {t} for t in ids))
        if not common:
            raise ValueError(f"{', '.join(map(self.describe, ids))} share no ancestor.")
        return min(common, key=lambda t: (len(self._descendants[t]), -len(self._ancestors[t]), t))

    def with_id(self, text: str) -> str | None:
        """Id, in the form ``CL:0000084``, if a text is the id of a live term.

        Parameters
        ----------
        text
            ``CL:0000084`` in upper or lower case, ``CL_0000084``, or the OBO address of a term.
        """
        term_id = _as_id(text)
        return term_id if term_id in self.terms else None

    def with_obsolete(self, text: str) -> str | None:
        """Id of the obsolete term that a text is the id or the former name of.

        Parameters
        ----------
        text
            As in :meth:`with_id` or :meth:`with_name`.
        """
        term_id = _as_id(text)
        return term_id if term_id in self.obsolete else self._obsolete_by_name.get(normalize(text))

    def with_name(self, text: str) -> tuple[str, ...]:
        """Ids of the terms with a name, upper or lower case and extra spaces ignored.

        Parameters
        ----------
        text
            Name; synonyms do not count.
        """
        return self._by_name.get(normalize(text), ())

    def with_synonym(self, text: str) -> tuple[str, ...]:
        """Ids of the terms with an exact synonym, upper or lower case and extra spaces ignored.

        Parameters
        ----------
        text
            Synonym; names do not count.
        """
        return self._by_synonym.get(normalize(text), ())

    def with_alias(self, text: str) -> tuple[str, ...]:
        """Ids of the terms that a usual name stands for, however it is spelled.

        Parameters
        ----------
        text
            Name such as ``"CD14+ Mono"`` or ``"Treg cells"``, of the table that comes with the
            package; several terms if it is ambiguous.
        """
        alias = find_alias(spelling_of(text))
        return () if alias is None else tuple(t for t in alias.term_ids if t in self.terms)

    def with_spelling(self, spelling: Spelling, synonyms: bool = False) -> tuple[str, ...]:
        """Ids of the terms with a name of the same words, in whatever order and spelling.

        Terms of one species, and of invertebrates, plants, fungi and bacteria do not count.

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
        """Up to three terms that a text may mean, as ``name (id)``; none of them has to be right.

        Terms of vertebrates come first, and of these those with a usual name.

        Parameters
        ----------
        text
            Something like an id, a name, or an exact synonym. What replaced an obsolete term comes
            instead of what looks like it.
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
        """Name and id for messages, as in ``T cell (CL:0000084)``; the id alone if it is unknown.

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
        """Terms that are neither of one species only nor of organisms that are no vertebrates."""
        among = sorted(self.terms.keys() - self._foreign)
        return [t for t in among if not of_one_species(self.terms[t].name)]

    @cached_property
    def _foreign(self) -> frozenset[str]:
        roots = foreign({t: term.name for t, term in self.terms.items()})
        return roots.union(*(self._descendants[t] for t in roots))

    @cached_property
    def _near(self) -> tuple[NearMisses, NearMisses]:
        """Of vertebrates, and of other organisms."""
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
