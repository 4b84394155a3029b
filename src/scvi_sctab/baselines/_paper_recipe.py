"""Base class of the baselines that are trained by scTab's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scvi_sctab.baselines._sctab import SCTABPredictor

_BATCH_SIZE = 2048
_MIN_BATCH_SIZE = 64
_MIN_STEPS_PER_EPOCH = 32


class PaperRecipe(SCTABPredictor):
    """Classifier with another encoder than TabNet, trained as scTab is.

    Parameters
    ----------
    seed
        As in :class:`SCTABPredictor`.
    train_kwargs
        Arguments of :meth:`~scvi_sctab.SCTAB.train`.
    **model_kwargs
        Arguments of :class:`~scvi_sctab.SCTAB`.
    """

    encoder: ClassVar[str]
    plan_kwargs: ClassVar[dict[str, float]]

    def __init__(
        self, seed: int = 0, *, train_kwargs: Mapping[str, Any] | None = None, **model_kwargs: Any
    ):
        train_kwargs = dict(train_kwargs or {})
        train_kwargs["plan_kwargs"] = {**self.plan_kwargs, **train_kwargs.get("plan_kwargs", {})}
        model_kwargs = {"preset": "paper", "encoder": self.encoder, **model_kwargs}
        super().__init__(seed, train_kwargs=train_kwargs, **model_kwargs)

    def _training(self, n_cells: int) -> dict[str, Any]:
        smaller = max(n_cells // _MIN_STEPS_PER_EPOCH, _MIN_BATCH_SIZE)
        return {"batch_size": min(smaller, _BATCH_SIZE), **self.train_kwargs}
