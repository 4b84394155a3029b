"""Encoders that are trained without labels, for :meth:`scvi_sctab.SCTAB.from_pretrained`."""

from scvi_sctab.pretrain._contrastive import BYOL, BarlowTwins
from scvi_sctab.pretrain._masked_autoencoder import MaskedAutoencoder

__all__ = ["BYOL", "BarlowTwins", "MaskedAutoencoder"]
