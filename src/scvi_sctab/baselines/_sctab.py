"""SCTAB with the interface of the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng
from scvi import settings

from scvi_sctab.baselines._template import Baseline
from scvi_sctab.model import SCTAB, SCTABEnsemble

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data import GeneAlignment


class SCTABPredictor(Baseline):
    """:class:`~scvi_sctab.SCTAB` with its defaults :cite:p:`Fischer24`, without any surgery.

    Parameters
    ----------
    seed
        Seed of scvi-tools during training; the random states outside are not changed.
    name
        Name in tables.
    train_kwargs
        Arguments of :meth:`~scvi_sctab.SCTAB.train`.
    **model_kwargs
        Arguments of :class:`~scvi_sctab.SCTAB`, such as ``preset`` or hyperparameters.
    """

    name = "SCTAB"
    _model_cls: type[SCTAB | SCTABEnsemble] = SCTAB

    def __init__(
        self,
        seed: int = 0,
        *,
        name: str | None = None,
        train_kwargs: Mapping[str, Any] | None = None,
        **model_kwargs: Any,
    ):
        super().__init__(seed)
        self.name = type(self).name if name is None else name
        self.train_kwargs = {"enable_progress_bar": False, **(train_kwargs or {})}
        self.model_kwargs = model_kwargs

    @property
    def model(self) -> SCTAB | SCTABEnsemble:
        """The trained model."""
        return self._model

    def _fit(self, reference: AnnData, labels: NDArray[np.str_]) -> None:
        with seeded(self.seed):
            self._model_cls.setup_anndata(
                reference, labels_key=self._labels_key, donor_key=self._donor_key
            )
            self._model = self._model_cls(reference, **self.model_kwargs)
            self._model.train(**self._training(reference.n_obs))

    def _training(self, n_cells: int) -> dict[str, Any]:
        """Return the arguments of training for this number of cells."""
        return self.train_kwargs

    def _predict(self, query: AnnData, alignment: GeneAlignment) -> NDArray[np.floating]:
        return np.asarray(self._model.predict(query, soft=True))


class SCTABEnsemblePredictor(SCTABPredictor):
    """:class:`~scvi_sctab.SCTABEnsemble` with its defaults, without any surgery.

    Parameters
    ----------
    seed, name, train_kwargs
        As in :class:`SCTABPredictor`.
    **model_kwargs
        Arguments of :class:`~scvi_sctab.SCTABEnsemble`, such as ``n_members``.
    """

    name = "SCTABEnsemble"
    _model_cls = SCTABEnsemble


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed scvi-tools within a ``with`` block."""
    before = settings.seed
    with isolate_rng():
        settings.seed = seed
        try:
            yield
        finally:
            settings.seed = before
