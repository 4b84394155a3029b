"""Explanations of predicted labels: attention, markers, attributions, deletion test."""

from scvi_sctab.explanation._attention import attend_to_genes
from scvi_sctab.explanation._attributions import AttributionMethod, attribute, check_attribution
from scvi_sctab.explanation._deletion import as_scores, delete_genes
from scvi_sctab.explanation._markers import group_means, marker_table
from scvi_sctab.explanation._network import refuse_latent

__all__ = [
    "AttributionMethod",
    "as_scores",
    "attend_to_genes",
    "attribute",
    "check_attribution",
    "delete_genes",
    "group_means",
    "marker_table",
    "refuse_latent",
]
