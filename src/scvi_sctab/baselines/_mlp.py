"""Multilayer perceptron, a baseline of scTab."""

from __future__ import annotations

from scvi_sctab.baselines._paper_recipe import PaperRecipe


class MLP(PaperRecipe):
    """Multilayer perceptron of the scTab paper :cite:p:`Fischer24`.

    Eight layers of 128 units, trained as scTab itself, at a learning rate of 0.002.

    Parameters
    ----------
    seed
        As in :class:`SCTABPredictor`.
    train_kwargs
        Arguments of :meth:`~scvi_sctab.SCTAB.train`, in place of the recipe's.
    **model_kwargs
        Arguments of :class:`~scvi_sctab.SCTAB`, in place of the recipe's.

    Notes
    -----
    NOTE[DIFF] The batch size is that of :class:`Linear`.
    """

    name = "MLP"
    encoder = "mlp"
    plan_kwargs = {"lr": 2e-3}
