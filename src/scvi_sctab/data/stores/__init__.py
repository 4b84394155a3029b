"""Stores of cells that do not fit into memory."""

from scvi_sctab.data.stores._corpus import Corpus
from scvi_sctab.data.stores._data_module import AtlasDataModule
from scvi_sctab.data.stores._donors import split_donors, subsample
from scvi_sctab.data.stores._filter import CorpusFilter
from scvi_sctab.data.stores._manifest import Manifest, SourceRecord
from scvi_sctab.data.stores._prepare import prepare_corpus

__all__ = [
    "AtlasDataModule",
    "Corpus",
    "CorpusFilter",
    "Manifest",
    "SourceRecord",
    "prepare_corpus",
    "split_donors",
    "subsample",
]
