"""Recipes of the ready-made models: their cells, and facts about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from scvi_sctab import datasets
from scvi_sctab.data import join_references
from scvi_sctab.ontology import CellOntology

if TYPE_CHECKING:
    from anndata import AnnData

LABELS, TERMS, STUDY, BATCH, DONOR = (
    "cell_type",
    "cell_type_ontology_term_id",
    "study",
    "batch",
    "donor_id",
)
"""Columns of the cells of a recipe."""
# Fewer cells than this cannot be held out by donor and learnt from as well.
_MIN_CELLS = 20


@dataclass(frozen=True)
class Recipe:
    """Recipe of a ready-made model.

    Parameters
    ----------
    cells
        Function that returns labelled raw counts; see :meth:`read`.
    facts
        Title, use and sources of the card.
    coarse_labels
        Labels that stand for any of several finer ones.
    train_size
        Share of the cells to train on; the others choose the weights and calibrate. A small
        reference needs more of these than the preset holds out.
    n_folds
        Number of folds of donors that are held out in turn.
    """

    cells: Callable[[], AnnData]
    facts: Mapping[str, Any]
    coarse_labels: tuple[str, ...] = ()
    train_size: float | None = None
    n_folds: int = 4

    def read(self, without: str | None = None) -> AnnData:
        """Read labelled raw counts, without those of a study if it is given.

        Parameters
        ----------
        without
            Name of a study, a value of ``obs["study"]``.

        Returns
        -------
        ``(n_cells, n_genes)``, with the columns ``cell_type``, ``batch``, ``donor_id`` and
        ``study`` in ``obs``.

        Raises
        ------
        ValueError
            If there is no such study.
        """
        cells = self.cells()
        if without is None:
            return cells
        studies = sorted(cells.obs[STUDY].unique())
        if without not in studies:
            raise ValueError(f"There is no study {without!r}: it is one of {studies}.")
        return cells[cells.obs[STUDY] != without].copy()


def _join(studies: Mapping[str, AnnData], same: Mapping[str, str] | None = None) -> AnnData:
    """Join studies with the names of Cell Ontology terms as labels."""
    ontology = CellOntology.load()
    named = {}
    for study, adata in studies.items():
        cells = adata.copy()
        terms = cells.obs[TERMS].astype(str).replace(dict(same or {}))
        cells.obs[LABELS] = [ontology.name(term) for term in terms]
        columns = [LABELS, DONOR, BATCH]
        cells.obs = cells.obs[columns].astype(str)
        named[study] = cells
    joined = join_references(named, LABELS, study_key=STUDY)
    counts = joined.obs[LABELS].value_counts()
    joined = joined[joined.obs[LABELS].isin(counts[counts >= _MIN_CELLS].index)].copy()
    joined.obs = joined.obs.astype({LABELS: "category", BATCH: "category", DONOR: "category"})
    return joined


def _pbmc() -> AnnData:
    kang, pbmc3k = datasets.pbmc_kang18(), datasets.pbmc3k()
    kang.obs[BATCH] = "kang18-" + kang.obs["condition"].astype(str)
    # Whole megakaryocytes do not circulate: Kang's PF4+ PPBP+ cells are pbmc3k's platelets.
    return _join({"kang18": kang, "pbmc3k": pbmc3k}, {"CL:0000556": "CL:0000233"})


def _pancreas() -> AnnData:
    panc8, baron = datasets.pancreas_panc8(), datasets.pancreas_baron16()
    laboratory = pd.Series(
        {
            "celseq": "gruen16",
            "celseq2": "muraro16",
            "fluidigmc1": "lawlor17",
            "smartseq2": "segerstolpe16",
            "indrop": "baron16",
        }
    )
    of_cell = panc8.obs[BATCH].astype(str).str.replace(r"^indrop\d$", "indrop", regex=True)
    panc8.obs["laboratory"] = laboratory[of_cell].to_numpy()
    # One cell of Baron et al. is in both files.
    genes = panc8.var_names.intersection(baron.var_names)
    known = {tuple(row) for row in baron[:, genes].X.toarray()}
    rows = panc8[:, genes].X.toarray()
    panc8 = panc8[[tuple(row) not in known for row in rows]].copy()
    panc8.obs[BATCH] = panc8.obs["laboratory"]
    baron.obs[BATCH] = "baron16"
    joined = _join({"panc8": panc8, "baron": baron})
    joined.obs[STUDY] = joined.obs[BATCH].astype(str)
    return joined


_MIT = "MIT"
_PBMC = Recipe(
    cells=_pbmc,
    coarse_labels=("T cell",),
    n_folds=2,
    facts={
        "title": "Blood (PBMC)",
        "species": "Homo sapiens",
        "tissue": "blood",
        "training_data": [
            {
                "study": "kang18",
                "publication": "Kang et al. 2018, Nature Biotechnology 36:89 (GEO GSE96583)",
                "source": "github.com/Wang-Cankun/iris3api, data/ifnb_2800.rda",
                "licence": _MIT,
                "assay": "10x 3' v1, half of the cells stimulated with interferon beta",
            },
            {
                "study": "pbmc3k",
                "publication": "Zheng et al. 2017, Nature Communications 8:14049",
                "source": "github.com/rnabioco, clustifyrdata and clustifyr (data: 10x Genomics)",
                "licence": f"{_MIT} (data: CC BY 4.0)",
                "assay": "10x GemCode",
            },
        ],
        "notes": [
            "Labels are clusters of the authors, not sorted cells; the naive CD4 T cells of pbmc3k "
            "seem to include naive CD8 T cells.",
            "Activated T cells of Kang et al. are known as T cells only: they are learnt from as "
            "any of the kinds of T cells, are not predicted, and are not scored.",
            "Megakaryocytes of Kang et al. count as platelets, which are what circulates.",
            "8 erythroid cells were left out: too few to learn from and to hold any out.",
        ],
        "intended_use": "Main types of human peripheral blood mononuclear cells from droplet "
        "assays (10x), raw counts, adults, stimulated or not.",
        "not_for": "Other tissues, tumours, cord blood, bone marrow, mouse, and fine states: "
        "regulatory T cells, MAIT and gamma-delta T cells, subsets of B cells and plasma cells "
        "are no types of this model. Not for diagnosis.",
    },
)
_PANCREAS = Recipe(
    cells=_pancreas,
    train_size=0.75,
    facts={
        "title": "Pancreatic islets",
        "species": "Homo sapiens",
        "tissue": "islets of Langerhans",
        "training_data": [
            {
                "study": study,
                "publication": publication,
                "source": source,
                "licence": _MIT,
                "assay": assay,
            }
            for study, publication, source, assay in (
                (
                    "gruen16",
                    "Grün et al. 2016, Cell Stem Cell 19:266 (GEO GSE81076)",
                    "github.com/cran/bbknnR, data/panc8_small.rda",
                    "CEL-seq",
                ),
                (
                    "muraro16",
                    "Muraro et al. 2016, Cell Systems 3:385 (GEO GSE85241)",
                    "github.com/cran/bbknnR, data/panc8_small.rda",
                    "CEL-seq2",
                ),
                (
                    "lawlor17",
                    "Lawlor et al. 2017, Genome Research 27:208 (GEO GSE86469)",
                    "github.com/cran/bbknnR, data/panc8_small.rda",
                    "Fluidigm C1 SMARTer",
                ),
                (
                    "segerstolpe16",
                    "Segerstolpe et al. 2016, Cell Metabolism 24:593 (E-MTAB-5061)",
                    "github.com/cran/bbknnR, data/panc8_small.rda",
                    "Smart-seq2",
                ),
                (
                    "baron16",
                    "Baron et al. 2016, Cell Systems 3:346 (GEO GSE84133)",
                    "github.com/zhiyhu/CIDER, data/pancreas.RData, and panc8_small.rda",
                    "inDrop",
                ),
            )
        ],
        "notes": [
            "A small reference. Its genes are the variable genes of panc8 that Baron's file has, "
            "too; they are in the model, `model.gene_names`.",
            "Macrophages and stellate cells are of Baron et al. only.",
            "5 endothelial cells were left out: too few to learn from and to hold any out.",
        ],
        "intended_use": "Endocrine cells of isolated human islets, with the exocrine, immune and "
        "stromal cells that come along, of any assay.",
        "not_for": "Whole pancreas, tumours, development, mouse. Gamma, epsilon and endothelial "
        "cells are no types of this model. Not for diagnosis.",
    },
)
RECIPES: Mapping[str, Recipe] = {"pbmc": _PBMC, "pancreas": _PANCREAS}
"""Recipes by the name of the model."""
