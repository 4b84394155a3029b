"""Explanations of predicted labels: attention, markers, attributions, deletion test, panels of genes."""

from scvi_sctab.explanation._attention import attend_to_genes
from scvi_sctab.explanation._attributions import AttributionMethod, attribute, check_attribution
from scvi_sctab.explanation._deletion import as_scores, delete_genes
from scvi_sctab.explanation._markers import group_means, marker_table
from scvi_sctab.explanation._network import refuse_latent
from scvi_sctab.explanation._panel_genes import PanelGenes, choose_genes, label_moments
from scvi_sctab.explanation._weights import gene_weights

__all__ = [
    "AttributionMethod",
    "PanelGenes",
    "as_scores",
    "attend_to_genes",
    "attribute",
    "check_attribution",
    "choose_genes",
    "delete_genes",
    "gene_weights",
    "group_means",
    "label_moments",
    "marker_table",
    "refuse_latent",
]
