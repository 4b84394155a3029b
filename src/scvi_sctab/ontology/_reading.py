"""Reading of the Cell Ontology from files."""

from __future__ import annotations

import os
import warnings
import zlib
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from pronto.ontology import Ontology

_PREFIX = "CL:"
_OBSOLETE_PREFIX = "obsolete "
_BUNDLED = "cell_ontology.obo.gz"
# Errors of pronto and of the parsers that it uses, on files that they cannot read.
_PARSER_ERRORS = (ValueError, SyntaxError, LookupError, EOFError, OSError, zlib.error)


class Term(NamedTuple):
    """A live term of the Cell Ontology.

    Attributes
    ----------
    name
        Its name.
    synonyms
        Its exact synonyms, sorted; broader, narrower and related ones are left out.
    parents
        Ids of its parents among the CL terms, sorted.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


class ObsoleteTerm(NamedTuple):
    """An obsolete term of the Cell Ontology.

    Attributes
    ----------
    name
        The name that it had.
    replaced_by
        Ids to use instead, possibly of other ontologies, sorted; often none.
    """

    name: str
    replaced_by: tuple[str, ...] = ()


class Records(NamedTuple):
    """Version, live and obsolete terms of a file."""

    version: str
    terms: dict[str, Term]
    obsolete: dict[str, ObsoleteTerm]


def read_bundled() -> Records:
    """Read the file that comes with the package."""
    return _records(_parse(BytesIO((files("scvi_sctab.ontology") / _BUNDLED).read_bytes())))


def read_file(path: str | os.PathLike[str]) -> Records:
    """Read a file of the user, or raise an error that says what is wrong with it."""
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(
            f"There is no ontology file {place}. Download one, such as cl-basic.obo of the Cell "
            "Ontology, or leave `path` out for the one that is bundled."
        )
    try:
        with place.open("rb") as file:
            records = _records(_parse(file))
    except _PARSER_ERRORS as error:
        raise ValueError(
            f"{place} cannot be read as an ontology in OBO or OWL (RDF/XML) format: {error}"
        ) from error
    if not records.terms:
        raise ValueError(
            f"{place} has no live terms with ids like CL:0000000, so it is not the Cell Ontology."
        )
    return records


def _parse(file: BinaryIO) -> Ontology:
    # Imported here, because it takes a tenth of a second.
    from pronto.ontology import Ontology

    with warnings.catch_warnings():
        # About axioms, encodings and imports; the parts that are needed are checked below.
        warnings.simplefilter("ignore")
        return Ontology(file, import_depth=0, threads=1)


def _records(ontology: Ontology) -> Records:
    ours = [term for term in ontology.terms() if term.id.startswith(_PREFIX)]
    live = {term.id: term for term in ours if not term.obsolete}
    terms = {
        term_id: Term(
            name=term.name or term_id,
            synonyms=tuple(sorted({s.description for s in term.synonyms if s.scope == "EXACT"})),
            parents=tuple(
                sorted(
                    parent.id
                    for parent in term.superclasses(distance=1, with_self=False)
                    if parent.id in live
                )
            ),
        )
        for term_id, term in sorted(live.items())
    }
    obsolete = {
        term.id: ObsoleteTerm(
            name=(term.name or term.id).removeprefix(_OBSOLETE_PREFIX),
            replaced_by=tuple(sorted(term.replaced_by.ids)),
        )
        for term in ours
        if term.obsolete
    }
    return Records(ontology.metadata.data_version or "unknown", terms, obsolete)
