"""Annotations in the schema of the Cell Annotation Platform: label sets, terms, markers, rationale.

The schema is that of the package ``cell-annotation-schema``; the columns of ``obs`` and the entries
of ``uns`` are those of the platform's encoding for AnnData.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd

from scvi_sctab.cli._layouts import TOOL

if TYPE_CHECKING:
    from scvi_sctab.cli._layouts import Request
    from scvi_sctab.data.files import Query, StoredCells
    from scvi_sctab.model import SCTAB, AnnotatedQuery, SCTABEnsemble

LABELS, TERMS = "scvi_sctab", "scvi_sctab_term"
"""Names of the label sets."""
_SCHEMA_VERSION = "1.1.0"
_URL = "https://pypi.org/project/scvi-sctab"
_MISSING = "NA"  # the schema's word
_N_MARKERS = 10
# Fields of an annotation that are columns of `obs`, too.
_COLUMNS = (
    "cell_fullname",
    "cell_ontology_exists",
    "cell_ontology_term_id",
    "cell_ontology_term",
    "rationale",
    "marker_gene_evidence",
)


@dataclass(frozen=True)
class CapAnnotation:
    """Annotation of a file in the platform's schema.

    Parameters
    ----------
    title
        Title of the data set.
    author
        First and last name of the author.
    descriptions
        Description of each label set.
    annotations
        A record per label of each set, with the names of its cells.
    """

    title: str
    author: str
    descriptions: Mapping[str, str]
    annotations: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(
        cls,
        model: SCTAB | SCTABEnsemble,
        stored: StoredCells,
        query: Query,
        annotated: AnnotatedQuery,
        request: Request,
        min_gene_overlap: float,
        term_level: float,
    ) -> CapAnnotation:
        """Describe an annotation, with marker genes of each label.

        Parameters
        ----------
        model
            The model.
        stored, query
            The open file, and what was found in it.
        annotated
            Its annotation.
        request
            Options of the command.
        min_gene_overlap
            Share of the model's genes that the file must have.
        term_level
            Smallest probability of a term.
        """
        frame = annotated.columns
        genes = _rank_genes(model, stored, query, min_gene_overlap)
        hierarchy = model.hierarchy
        # Names are those of the model, whose ontology may be another release than the bundled one.
        names = (
            {} if hierarchy is None else dict(zip(hierarchy.terms, hierarchy.names, strict=True))
        )
        by = f"{TOOL} {version(TOOL)} with the model {request.model} ({model.digest[:12]})"
        descriptions = {LABELS: f"Most probable cell type by {by}."}
        records = [*_labels(frame, _terms_of_labels(model), names, genes, by)]
        if "term_id" in frame:
            level = f"a probability of {term_level:g} or more"
            descriptions[TERMS] = f"Most specific Cell Ontology term of {level} by {by}."
            records += _terms(frame, names, level, by)
        return cls(stored.path.stem, request.author, descriptions, tuple(records))

    def to_json(self) -> dict[str, Any]:
        """Return the file of the schema."""
        return {
            "title": self.title,
            "author_name": self.author,
            "cellannotation_schema_version": _SCHEMA_VERSION,
            "cellannotation_timestamp": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
            "cellannotation_version": "1.0.0",
            "cellannotation_url": _MISSING,  # the platform's, when it publishes
            "labelsets": [
                {
                    "name": name,
                    "description": description,
                    "annotation_method": "algorithmic",
                    "automated_annotation": _algorithm(),
                }
                for name, description in self.descriptions.items()
            ],
            "annotations": list(self.annotations),
        }

    def to_obs(self, cells: pd.Index) -> pd.DataFrame:
        """Return the columns of ``obs``.

        Parameters
        ----------
        cells
            Names of the cells.
        """
        columns: dict[str, pd.Series] = {}
        for name in self.descriptions:
            records = [record for record in self.annotations if record["labelset"] == name]
            labels = pd.Series(
                {cell: record["cell_label"] for record in records for cell in record["cell_ids"]}
            ).reindex(cells)
            columns[name] = labels.astype("category")
            for field in _COLUMNS:
                values = {
                    record["cell_label"]: _plain(record.get(field, _MISSING)) for record in records
                }
                mapped = labels.map(values)
                is_flag = field == "cell_ontology_exists"
                columns[f"{name}--{field}"] = mapped.astype(bool if is_flag else "category")
        return pd.DataFrame(columns, index=cells)

    def to_uns(self) -> dict[str, Any]:
        """Return the entries of ``uns``."""
        return {
            "title": self.title,
            "author_name": self.author,
            "cellannotation_schema_version": _SCHEMA_VERSION,
            "cellannotation_metadata": {
                name: {"description": text, "annotation_method": "algorithmic", **_algorithm()}
                for name, text in self.descriptions.items()
            },
        }


def _algorithm() -> dict[str, str]:
    return {
        "algorithm_name": TOOL,
        "algorithm_version": version(TOOL),
        "algorithm_repo_url": _URL,
    }


def _plain(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value


def _terms_of_labels(model: SCTAB | SCTABEnsemble) -> dict[str, str]:
    """Return the Cell Ontology terms of labels that have one."""
    hierarchy = model.hierarchy
    if hierarchy is None:
        return {}
    pairs = zip(hierarchy.labels.tolist(), hierarchy.own.tolist(), strict=True)
    return {label: str(hierarchy.terms[own]) for label, own in pairs if own >= 0}


def _rank_genes(
    model: SCTAB | SCTABEnsemble, stored: StoredCells, query: Query, min_gene_overlap: float
) -> dict[str, list[str]] | None:
    """Rank genes of labels, named as in the file; ``None`` for a model whose genes have no ranks."""
    if any(network.is_imported or not network.reads_genes for network in model.networks):
        return None
    markers = model.get_markers(
        query.cells, n_genes=_N_MARKERS, layer="X", min_gene_overlap=min_gene_overlap
    )
    own = pd.Series(stored.matrices[query.counts].var.index, query.cells.var_names)
    # Genes that the model does not read may be duplicated.
    own = own[~own.index.duplicated()]
    markers = markers[markers["score"] > 0]
    named = markers["gene"].map(own).groupby(markers["group"].astype(str)).agg(list)
    return {str(label): genes for label, genes in named.items()}


def _ontology_fields(term_id: str | None, names: Mapping[str, str]) -> dict[str, Any]:
    if term_id is None:
        return {"cell_ontology_exists": False}
    return {
        "cell_ontology_exists": True,
        "cell_ontology_term_id": term_id,
        "cell_ontology_term": str(names[term_id]),
    }


def _labels(
    frame: pd.DataFrame,
    terms: Mapping[str, str],
    names: Mapping[str, str],
    genes: Mapping[str, list[str]] | None,
    by: str,
) -> Iterator[dict[str, Any]]:
    for label, cells in frame.groupby(frame["label"].astype(str), observed=True):
        yield {
            "labelset": LABELS,
            "cell_label": label,
            "cell_fullname": label,
            **_ontology_fields(terms.get(label), names),
            "rationale": f"Most probable of {len(cells):,} cells {_certainty(cells)}, by {by}."
            + (
                " Markers are genes with large contributions and specific expression."
                * bool(genes)
            ),
            **({} if genes is None else {"marker_gene_evidence": genes.get(label, [])}),
            "cell_ids": cells.index.tolist(),
        }


def _terms(
    frame: pd.DataFrame, names: Mapping[str, str], level: str, by: str
) -> Iterator[dict[str, Any]]:
    for term_id, cells in frame.groupby(frame["term_id"].astype(str), observed=True):
        fields = _ontology_fields(term_id, names)
        name = fields["cell_ontology_term"]
        yield {
            "labelset": TERMS,
            "cell_label": name,
            "cell_fullname": name,
            **fields,
            "rationale": f"Most specific term of {level} for {len(cells):,} cells, by {by}.",
            "cell_ids": cells.index.tolist(),
        }


def _certainty(cells: pd.DataFrame) -> str:
    text = f"(median probability {cells['probability'].median():.2f}"
    if "status" in cells:
        text += f", {(cells['status'] == 'confident').mean():.0%} confident"
    return f"{text})"
