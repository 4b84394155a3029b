"""Data module of a corpus, from which models are trained without loading it into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import lightning.pytorch as pl
import numpy as np
from scvi import REGISTRY_KEYS

from scvi_sctab.data._keywords import as_keys, check_key
from scvi_sctab.data._reference import check_columns, warn_about_columns
from scvi_sctab.data._registration import labelled_fields, make_manager
from scvi_sctab.data.stores._annbatch import import_annbatch
from scvi_sctab.data.stores._corpus import Corpus
from scvi_sctab.data.stores._donors import PARTS
from scvi_sctab.data.stores._loader import StoreLoader

if TYPE_CHECKING:
    from numpy.typing import NDArray


_COMPARED = ("labels_key", "batch_key", "donor_key", "categorical_covariate_keys")


class OfCorpus(Enum):
    """Default of a column: that with which the corpus was prepared, if any."""

    OF_CORPUS = "of the corpus"

    def __repr__(self) -> str:
        return "OF_CORPUS"


OF_CORPUS: Final = OfCorpus.OF_CORPUS


class AtlasDataModule(pl.LightningDataModule):
    """Cells of a corpus to train on; their counts are read from disk batch by batch.

    Parameters
    ----------
    path
        Folder of the corpus, see :func:`prepare_corpus`, or the opened corpus.
    labels_key
        Column of cell types; that of the corpus if not given.
    unlabeled_category
        Value of the column for unlabelled cells; that of the corpus if not given.
    batch_key
        Column of technical batches; that of the corpus if not given, ``None`` for no batches.
    donor_key
        Column of donors; that of the corpus if not given, ``None`` for none.
    categorical_covariate_keys
        Column or columns with other categories.

    Attributes
    ----------
    corpus
        The corpus.
    adata
        All its cells, with columns in memory and counts on disk, registered for
        :class:`~scvi_sctab.SCTAB`. Other models are set up on it, too.
    manager, registry
        Its registration.

    Raises
    ------
    ImportError
        If the extra ``atlas`` is not installed; it needs Python 3.12.
    FileNotFoundError
        If there is no corpus.
    KeyError, ValueError
        As in :meth:`scvi_sctab.SCTAB.setup_anndata`.

    Examples
    --------
    >>> from scvi_sctab import SCTAB
    >>> from scvi_sctab.data.stores import AtlasDataModule
    >>> atlas = AtlasDataModule("atlas")  # doctest: +SKIP
    >>> model = SCTAB(registry=atlas.registry)  # doctest: +SKIP
    >>> model.train(datamodule=atlas)  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Corpus,
        labels_key: str | None = None,
        *,
        unlabeled_category: str | None = None,
        batch_key: str | None | OfCorpus = OF_CORPUS,
        donor_key: str | None | OfCorpus = OF_CORPUS,
        categorical_covariate_keys: str | Sequence[str] | None = None,
    ):
        super().__init__()
        import_annbatch("AtlasDataModule")
        self.corpus = path if isinstance(path, Corpus) else Corpus.open(path)
        written = self.corpus.manifest.settings
        covariates = as_keys(categorical_covariate_keys, "categorical_covariate_keys")
        self._setup: dict[str, Any] = {
            "layer": None,
            "labels_key": labels_key or written["labels_key"],
            "unlabeled_category": unlabeled_category or written["unlabeled_category"],
            "batch_key": written["batch_key"] if batch_key is OF_CORPUS else batch_key,
            "donor_key": written["donor_key"] if donor_key is OF_CORPUS else donor_key,
            "categorical_covariate_keys": covariates,
        }
        columns = {name: self._setup[name] for name in ("labels_key", "batch_key", "donor_key")}
        for name, key in columns.items():
            check_key(key, name)
        self.adata = self.corpus.read_lazily()
        labels = (columns.pop("labels_key"), self._setup["unlabeled_category"])
        # Counts were checked when the corpus was written.
        names = check_columns(self.adata, *labels, columns, covariates)
        warn_about_columns(self.adata, *labels, names)
        self.manager = make_manager(
            "SCTAB", self.adata, labelled_fields(**self._setup), dict(self._setup)
        )
        self.registry: dict[str, Any] = self.manager.registry

    def check_fits(self, registry: dict[str, Any]) -> None:
        """Refuse a model of other genes or columns.

        Parameters
        ----------
        registry
            Registry of the model.

        Raises
        ------
        ValueError
            If genes differ, or the model was set up with other columns.
        """
        state = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
        genes = state["column_names"]
        if list(genes) != list(self.adata.var_names):
            n_common = len(set(genes) & set(self.adata.var_names))
            raise ValueError(
                f"The corpus {self.corpus.path} has {self.adata.n_vars:,} genes and the model "
                f"{len(genes):,}, of which {n_common:,} are the same: prepare a corpus of the "
                "model's genes, `prepare_corpus(..., genes=model.gene_names)`."
            )
        setup = registry["setup_args"]
        # A model without labels has fewer columns.
        differ = [key for key in _COMPARED if key in setup and setup[key] != self._setup[key]]
        if differ:
            key = differ[0]
            raise ValueError(
                f"The model was set up with {key}={setup[key]!r}, the cells with "
                f"{self._setup[key]!r}: `AtlasDataModule(path, {key}={setup[key]!r}, ...)`."
            )

    @property
    def loader(self) -> Callable[..., Any]:
        """Function that makes a loader of some cells, for a splitter."""
        return partial(StoreLoader, self.corpus.datasets())

    def parts(self, labelled: NDArray[np.bool_]) -> list[NDArray[np.intp]] | None:
        """Return the split that was written into the corpus, ``None`` if there is none.

        Parameters
        ----------
        labelled
            Cells that have a label, ``(n_cells,)``; others are in no part.

        Returns
        -------
        Positions for training, validation and test.
        """
        if "split" not in self.adata.obs:
            return None
        part = self.adata.obs["split"].to_numpy()
        parts = [np.flatnonzero(labelled & (part == name)) for name in PARTS]
        return parts if len(parts[0]) else None
