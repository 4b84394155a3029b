"""Quickstart: training on some donors, annotation of unseen donors and of an unseen study.

Runs offline on the data that comes with the package, in a few minutes on two cores, and writes
``quickstart/``: annotated cells, a UMAP, confusion matrices and a reliability diagram.
"""

import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from anndata import AnnData

from scvi_sctab import SCTAB, datasets, metrics, plotting

OUTPUT = Path("quickstart")
UNSEEN_DONORS = ["1244", "1016"]
TERM = "cell_type_ontology_term_id"
# The one term in which the studies differ: a platelet is a fragment of a megakaryocyte, and the
# reference labels these cells as megakaryocytes, the query as platelets.
SAME_TERM = {"CL:0000233": "CL:0000556"}


def harmonize(reference: AnnData, query: AnnData) -> None:
    """Give both studies the reference's name for each Cell Ontology term, in ``label``."""
    term = reference.obs[TERM].astype(str)
    # Where clusters share a term, the name of the larger one is used.
    names = reference.obs["cell_type"].astype(str).groupby(term).agg(lambda x: x.mode()[0])
    reference.obs["label"] = term.map(names)
    query.obs["label"] = query.obs[TERM].astype(str).replace(SAME_TERM).map(names)


def annotate(model: SCTAB, adata: AnnData, name: str) -> AnnData:
    """Annotate cells, print the scores and return the annotated cells."""
    annotation = model.annotate(adata)
    report = metrics.classification_report(adata.obs["label"], annotation["label"].astype(str))
    print(f"\n=== {name}: {adata.n_obs:,} cells ===")
    print(report.round(2).to_string())
    covered = [
        t in s.split(" | ")
        for t, s in zip(adata.obs["label"], annotation["prediction_set"], strict=False)
    ]
    print(
        f"\nmacro F1 {report.loc['macro average', 'f1']:.3f}; "
        f"prediction sets hold the true label in {np.mean(covered):.0%} of the cells, stated 90%; "
        f"{annotation['novel'].mean():.0%} called novel, stated 5% for known types"
    )
    print("the first cells of annotate():")
    print(annotation.head().round(3).to_string())
    annotated = adata.copy()
    annotated.obs = annotated.obs.drop(columns="label").join(
        annotation.assign(truth=adata.obs["label"], dataset=name)
    )
    annotated.obsm["X_sctab"] = model.get_latent_representation(adata)
    return annotated


def draw_umap(cells: list[AnnData]) -> None:
    """Draw a UMAP of the latent space, with truth, prediction and uncertainty."""
    obs = pd.concat([adata.obs for adata in cells])
    latent = AnnData(np.concatenate([adata.obsm["X_sctab"] for adata in cells]))
    sc.pp.neighbors(latent, use_rep="X", random_state=0)
    sc.tl.umap(latent, random_state=0)
    figure, axes = plt.subplots(2, 2, figsize=(13, 8.5), layout="constrained")
    titles = {
        "dataset": "study",
        "truth": "true type",
        "label": "predicted type",
        "uncertainty": "uncertainty",
    }
    for ax, (column, title) in zip(axes.flat, titles.items(), strict=True):
        values = obs[column] if column == "uncertainty" else obs[column].astype("category")
        plotting.plot_embedding(latent.obsm["X_umap"], values.rename(title), ax)
    figure.savefig(OUTPUT / "umap.png", dpi=120)


def draw_scores(cells: list[AnnData]) -> None:
    """Draw confusion matrices and a reliability diagram."""
    figure, reliability = plt.subplots(figsize=(6.8, 5), layout="constrained")
    for adata in cells:
        truth, predicted = adata.obs["truth"].astype(str), adata.obs["label"].astype(str)
        name = adata.obs["dataset"].iloc[0]
        stated, right = adata.obs["probability"], (truth == predicted).to_numpy()
        error = metrics.expected_calibration_error(stated, right)
        bins = metrics.reliability(stated, right)
        plotting.plot_reliability(bins, reliability, label=name, ece=error)
        ax = plotting.plot_confusion(metrics.confusion(truth, predicted))
        ax.set_title(name)
        ax.figure.savefig(OUTPUT / f"confusion_{name.replace(' ', '_')}.png", dpi=120)
    figure.savefig(OUTPUT / "reliability.png", dpi=120)


def main() -> None:
    """Train, annotate, write and draw."""
    OUTPUT.mkdir(exist_ok=True)
    warnings.filterwarnings("ignore", module="lightning")
    scvi.settings.seed = 0
    kang, pbmc3k = datasets.pbmc_kang18(), datasets.pbmc3k()
    harmonize(kang, pbmc3k)
    unseen = kang.obs["donor_id"].isin(UNSEEN_DONORS).to_numpy()
    reference, donors = kang[~unseen].copy(), kang[unseen].copy()

    SCTAB.setup_anndata(reference, labels_key="label", donor_key="donor_id")
    model = SCTAB(reference)
    print(f"Training on {reference.n_obs:,} cells of {reference.obs['donor_id'].nunique()} donors")
    model.set_ontology(dict(zip(reference.obs["label"], reference.obs[TERM], strict=True)))
    model.train()
    model.save(OUTPUT / "model", overwrite=True)

    cells = [annotate(model, donors, "unseen donors"), annotate(model, pbmc3k, "unseen study")]
    markers = model.get_markers(pbmc3k, n_genes=6)
    print("\ngenes with the largest contribution to each predicted type of the unseen study")
    print(markers.groupby("group")["gene"].agg(", ".join).to_string())

    for adata in cells:
        file = f"annotated_{adata.obs['dataset'].iloc[0].replace(' ', '_')}.h5ad"
        adata.write_h5ad(OUTPUT / file)
    print("\nDrawing ...")
    draw_umap(cells)
    draw_scores(cells)
    print(f"\nWritten to {OUTPUT}/: {', '.join(sorted(p.name for p in OUTPUT.iterdir()))}")


if __name__ == "__main__":
    main()
