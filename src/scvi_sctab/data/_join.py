"""References of several studies as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import anndata as ad
import pandas as pd
from anndata import AnnData

from scvi_sctab.data._genes import check_genes
from scvi_sctab.data._obs import get_column
from scvi_sctab.data._reader import read_counts

if TYPE_CHECKING:
    from scipy import sparse


def join_references(
    references: Mapping[str, AnnData],
    labels_key: str,
    names: Mapping[str, str] | None = None,
    *,
    genes: Literal["intersection", "union"] = "intersection",
    study_key: str = "study",
    layer: str | None = None,
) -> AnnData:
    """Join labelled cells of several studies, with genes matched by name.

    Parameters
    ----------
    references
        Raw counts of each study by its name, ``(n_cells, n_genes)``; genes in any order. They are
        not changed.
    labels_key
        Column of each ``obs`` with cell types.
    names
        Common name of a label, such as ``match_labels(labels)["term"]``; a label without one, or
        with an empty one, keeps its own.
    genes
        ``"intersection"`` keeps genes that all studies have; ``"union"`` keeps all genes, which
        are 0 where a study lacks them, so that the model can tell studies apart by them.
    study_key
        Column to add with the name of the study.
    layer
        Layer with raw counts; ``None`` is ``X``.

    Returns
    -------
    ``(n_cells, n_genes)``: raw counts in ``X``, CSR; columns of ``obs`` that all studies have,
    with common names in ``labels_key``, and ``study_key``. Names of cells end in that of their
    study.

    Raises
    ------
    KeyError
        If a study has no such column or layer.
    ValueError
        If there is no study, a gene is duplicated, ``study_key`` is a column already, studies
        share too few genes, or a value is not a raw count.

    Examples
    --------
    >>> from scvi_sctab import datasets
    >>> from scvi_sctab.ontology import match_labels
    >>> studies = {"kang18": datasets.pbmc_kang18(), "pbmc3k": datasets.pbmc3k()}
    >>> labels = {label for study in studies.values() for label in study.obs["cell_type"]}
    >>> joined = join_references(studies, "cell_type", match_labels(sorted(labels))["term"])
    >>> joined.shape
    (5438, 12814)
    """
    if not references:
        raise ValueError("There is no study to join: `join_references({'name': adata})`.")
    if genes not in ("intersection", "union"):
        raise ValueError(f"{genes=} is neither 'intersection' nor 'union'.")
    common = {} if names is None else {str(k): str(v) for k, v in dict(names).items() if v}
    parts = {
        study: _part(adata, study, labels_key, common, study_key, layer)
        for study, adata in references.items()
    }
    shared = set.intersection(*(set(part.obs) for part in parts.values()))
    for part in parts.values():
        part.obs = part.obs[[column for column in part.obs if column in shared]]
    joined = ad.concat(
        parts,
        join="inner" if genes == "intersection" else "outer",
        label=study_key,
        index_unique="-",
        fill_value=0,
    )
    check_genes(list(joined.var_names))
    return joined


def _part(
    adata: AnnData,
    study: str,
    labels_key: str,
    names: Mapping[str, str],
    study_key: str,
    layer: str | None,
) -> AnnData:
    """Take counts and columns of one study, under common names of genes and labels."""
    if study_key in adata.obs:
        raise ValueError(
            f"{study!r} has a column {study_key!r} already: name another one, `study_key=`."
        )
    obs = adata.obs.copy()
    labels = get_column(adata.obs, labels_key, "labels_key").astype(object)
    obs[labels_key] = labels.map(lambda label: names.get(str(label), label))
    try:
        genes = check_genes(list(adata.var_names))
    except ValueError as error:
        raise type(error)(f"Study {study!r}: {error}") from error
    blocks: list[sparse.csr_matrix] = list(read_counts(adata, layer))
    counts = ad.concat([AnnData(block) for block in blocks]).X
    return AnnData(counts, obs, pd.DataFrame(index=genes))
