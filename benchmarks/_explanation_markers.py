"""Textbook and house-keeping genes among the first genes of each ranking, ours and scanpy's.

The score of `get_markers` was chosen by the textbook genes of two of the tasks below, "Kang donors"
and "bundled donors", with seed 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scanpy as sc
from _report import as_markdown
from _tasks import (
    BUNDLED,
    BUNDLED_DONORS,
    DONOR_KEY,
    KANG,
    KANG_DONOR_PAIRS,
    PBMC3K,
    Task,
    hold_out,
    read,
)
from anndata import AnnData

if TYPE_CHECKING:
    from scvi_sctab import SCTAB

TOPS = (5, 10, 20)
N_HOUSE_KEEPING = 10
BEFORE, AFTER = "contribution", "get_markers"
SCANPY = ("t-test", "wilcoxon")

# As listed in the two Seurat tutorials whose labels these data sets carry: "Guided Clustering
# Tutorial" (table of canonical markers of pbmc3k) and "Introduction to scRNA-seq integration"
# (dot plot of the Kang cells). Shared genes, such as CD3D, are left out.
TEXTBOOK = {
    "B": ("MS4A1", "CD79A"),
    "B Activated": ("MIR155HG", "NME1"),
    "CD14 Mono": ("CD14", "LYZ", "S100A9", "CCL2"),
    "CD16 Mono": ("FCGR3A", "MS4A7", "VMO1"),
    "CD4 Memory T": ("IL7R", "S100A4"),
    "CD4 Naive T": ("IL7R", "CCR7", "SELL", "GIMAP5"),
    "CD8 T": ("CD8A", "CCL5"),
    "DC": ("FCER1A", "CST3", "HLA-DQA1", "GPR183"),
    "Eryth": ("HBA2", "HBB"),
    "Mk": ("PPBP", "GNG11"),
    "NK": ("GNLY", "NKG7"),
    "T activated": ("HSPH1", "CACYBP"),
    "pDC": ("TSPAN13", "IL3RA", "IGJ"),
}

# The ten markers of the nearest type of the Azimuth reference of human PBMC, level 2, in full and
# unchanged: B intermediate, CD4 TCM, CD8 TEM, cDC2, platelet and the types of the same name
# (https://azimuth.hubmapconsortium.org/references/human_pbmc). It lists no activated cells.
AZIMUTH = {
    label: tuple(genes.split())
    for label, genes in {
        "B": "MS4A1 TNFRSF13B IGHM IGHD AIM2 CD79A LINC01857 RALGPS2 BANK1 CD79B",
        "CD14 Mono": "S100A9 CTSS S100A8 LYZ VCAN S100A12 IL1B CD14 G0S2 FCN1",
        "CD16 Mono": "CDKN1C FCGR3A PTPRC LST1 IER5 MS4A7 RHOC IFITM3 AIF1 HES4",
        "CD4 Memory T": "IL7R TMSB10 CD4 ITGB1 LTB TRAC AQP3 LDHB IL32 MAL",
        "CD4 Naive T": "TCF7 CD4 CCR7 IL7R FHIT LEF1 MAL NOSIP LDHB PIK3IP1",
        "CD8 T": "CCL5 GZMH CD8A TRAC KLRD1 NKG7 GZMK CST7 CD8B TRGC2",
        "DC": "FCER1A HLA-DQA1 CLEC10A CD1C ENHO PLD4 GSN SLC38A1 NDRG2 AFF3",
        "Eryth": "HBD HBM AHSP ALAS2 CA1 SLC4A1 IFIT1B TRIM58 SELENBP1 TMCC2",
        "Mk": "PPBP PF4 NRGN GNG11 CAVIN2 TUBB1 CLU HIST1H2AC RGS18 GP9",
        "NK": "GNLY TYROBP NKG7 FCER1G GZMB TRDC PRF1 FGFBP2 SPON2 KLRF1",
        "pDC": "ITM2C PLD4 SERPINF1 LILRA4 IL3RA TPM2 MZB1 SPIB IRF4 SMPD3",
    }.items()
}

# Five genes per type by which the authors of pancreatic atlases name their clusters (Baron et al.
# 2016, Muraro et al. 2016), written down before any result was seen.
PANCREAS = {
    "acinar": ("PRSS1", "CPA1", "CTRB2", "REG1A", "PNLIP"),
    "activated_stellate": ("PDGFRA", "COL1A1", "COL1A2", "COL3A1", "SFRP2"),
    "alpha": ("GCG", "LOXL4", "IRX2", "TTR", "ARX"),
    "beta": ("INS", "IAPP", "MAFA", "DLK1", "ADCYAP1"),
    "delta": ("SST", "RBP4", "LEPR", "HHEX", "BCHE"),
    "ductal": ("KRT19", "CFTR", "SPP1", "MMP7", "KRT7"),
    "endothelial": ("VWF", "PECAM1", "PLVAP", "ESAM", "CD93"),
    "macrophage": ("CD68", "CD163", "C1QA", "LAPTM5", "SDS"),
}

BLOOD_LISTS = {"tutorials": TEXTBOOK, "Azimuth": AZIMUTH}
PANCREAS_LISTS = {"atlases": PANCREAS}

# Names of the Kang authors, in the words of the lists; CD4 T cells have the genes of both subsets.
KANG_LABELS = {
    "B cells": ("B",),
    "CD14+ Monocytes": ("CD14 Mono",),
    "CD4 T cells": ("CD4 Naive T", "CD4 Memory T"),
    "CD8 T cells": ("CD8 T",),
    "Dendritic cells": ("DC",),
    "FCGR3A+ Monocytes": ("CD16 Mono",),
    "Megakaryocytes": ("Mk",),
    "NK cells": ("NK",),
}

HOUSE_KEEPING = {"FTL", "FTH1", "TMSB4X", "B2M", "ACTB", "MALAT1", "EEF1A1"}
HOUSE_KEEPING_FAMILIES = ("RPL", "RPS", "MT-")


@dataclass(frozen=True)
class MarkerTask:
    """A reference to train on, queries to take markers from, and lists of genes to find."""

    name: str
    task: Task
    queries: dict[str, AnnData]
    lists: dict[str, dict[str, tuple[str, ...]]]


def marker_tasks(folder: Path, names: list[str] | None = None) -> Iterator[MarkerTask]:
    """Yield the tasks, one in memory at a time."""

    def build(name: str, data: AnnData, donors: tuple[str, ...]) -> Task:
        return Task(name, name, *hold_out(data, donors))

    if names is None or "bundled" in names:
        task = build("bundled donors", read(folder, BUNDLED, "cell_type"), BUNDLED_DONORS)
        queries = {"bundled donors": task.unlabelled_query()}
        queries["bundled to pbmc3k"] = read(folder, PBMC3K, "cell_type")
        yield MarkerTask("bundled", task, queries, BLOOD_LISTS)
    if names is None or "Kang" in names:
        task = build("Kang donors", read(folder, KANG, "cell_type"), KANG_DONOR_PAIRS[0])
        queries = {"Kang donors": task.unlabelled_query()}
        queries["Kang to pbmc3k"] = read(folder, PBMC3K, "cell_type")
        yield MarkerTask("Kang", task, queries, BLOOD_LISTS)
    if names is None or "Baron" in names:
        data = read(folder, "pancreas_baron_human_mouse_328.h5ad", "cell_type")
        task = build("Baron donors", data, ("human3", "mouse1"))
        queries = {"Baron donors": task.unlabelled_query()}
        yield MarkerTask("Baron", task, queries, PANCREAS_LISTS)
    if names is None or "panc8" in names:
        data = read(folder, "pancreas_panc8_small_500.h5ad", "cell_type")
        of_study = data.obs["dataset_id"] == "celseq2"
        donors = tuple(data.obs.loc[of_study, DONOR_KEY].unique())
        task = build("panc8 to CEL-seq2", data, donors)
        queries = {"panc8 to CEL-seq2": task.unlabelled_query()}
        yield MarkerTask("panc8", task, queries, PANCREAS_LISTS)


def listed_genes(label: str, table: dict[str, tuple[str, ...]]) -> list[str]:
    """Genes that a list has for a label, each once."""
    names = KANG_LABELS.get(label, (label,))
    return list(dict.fromkeys(gene for name in names for gene in table.get(name, ())))


def is_house_keeping(gene: str) -> bool:
    """Whether a gene is ribosomal, mitochondrial or one of those that every cell expresses."""
    return gene in HOUSE_KEEPING or gene.startswith(HOUSE_KEEPING_FAMILIES)


def rank_by_model(model: SCTAB, query: AnnData) -> dict[str, dict[str, list[str]]]:
    """First genes per predicted type, by contribution alone and by `get_markers`."""
    markers = model.get_markers(query, n_genes=len(model.gene_names))
    return {BEFORE: first_genes(markers, "contribution"), AFTER: first_genes(markers, "score")}


def first_genes(markers: pd.DataFrame, column: str) -> dict[str, list[str]]:
    """Genes per group with the largest values."""
    best = markers.sort_values(column, ascending=False, kind="stable").groupby("group")
    return best["gene"].agg(lambda genes: list(genes[: max(TOPS)])).to_dict()


def rank_by_scanpy(model: SCTAB, query: AnnData) -> dict[str, dict[str, list[str]]]:
    """First genes per predicted type by `rank_genes_groups`, on the genes of the model.

    As documented: normalised to 10,000, log1p, each type against all other cells. Types of one
    cell, which scanpy refuses, have no genes.
    """
    shared = model.gene_names[np.isin(model.gene_names, query.var_names)]
    cells = AnnData(query[:, shared].X.copy(), var=pd.DataFrame(index=shared))
    cells.obs["label"] = pd.Categorical(model.predict(query))
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sizes = cells.obs["label"].value_counts()
    groups = [str(label) for label in sizes.index[sizes > 1]]
    found = {}
    for method in SCANPY:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sc.tl.rank_genes_groups(
                cells, "label", groups=groups, method=method, n_genes=max(TOPS)
            )
        names = cells.uns["rank_genes_groups"]["names"]
        found[f"scanpy, {method}"] = {label: list(names[label]) for label in groups}
    return found


def score(
    model: SCTAB,
    query: AnnData,
    rankings: dict[str, dict[str, list[str]]],
    lists: dict[str, dict[str, tuple[str, ...]]],
) -> pd.DataFrame:
    """Count listed and house-keeping genes; a gene that the model does not read does not count."""
    known, labels = set(model.gene_names), np.unique(model.predict(query))
    rows = []
    for ranking, best in rankings.items():
        for label in labels:
            genes = best.get(label, [])
            house_keeping = sum(map(is_house_keeping, genes[:N_HOUSE_KEEPING]))
            rows.append((ranking, label, "house-keeping", N_HOUSE_KEEPING, house_keeping, 0))
            for name, table in lists.items():
                listed = [gene for gene in listed_genes(label, table) if gene in known]
                for top in TOPS:
                    hits = len(set(listed) & set(genes[:top]))
                    rows.append((ranking, label, name, top, hits, len(listed)))
    return pd.DataFrame(rows, columns=["ranking", "type", "list", "top", "hits", "listed"])


def marker_report(scores: pd.DataFrame) -> str:
    """A table per list: genes found among the first 5, 10 and 20, mean ± sd over seeds."""
    parts = []
    for name, table in scores.groupby("list", sort=False):
        keys = ["query", "ranking", "top", "seed"]
        total = table.groupby(keys, sort=False)["hits"].sum()
        cells = total.groupby(keys[:-1], sort=False).agg(["mean", "std"])
        text = cells["mean"].map("{:.1f}".format)
        text += cells["std"].map(lambda sd: "" if np.isnan(sd) else f" ± {sd:.1f}")
        wide = text.unstack().rename(columns="first {}".format)
        listed = table[table["top"] == table["top"].max()].groupby(keys, sort=False)
        if name != "house-keeping":
            wide["listed"] = listed["listed"].sum().groupby(keys[:2], sort=False).mean().round(1)
            wide["listed"] = wide["listed"].astype(str)
        wide.index = [f"{query}, {ranking}" for query, ranking in wide.index]
        title = f"genes of the list {name!r}" if name != "house-keeping" else "house-keeping genes"
        parts.append(f"{title}\n\n{as_markdown(wide.rename_axis(index='query, ranking'))}\n")
    return "\n".join(parts)
