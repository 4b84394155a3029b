"""Linear baseline of scTab."""

from __future__ import annotations

from scvi_sctab.baselines._paper_recipe import PaperRecipe


class Linear(PaperRecipe):
    """Linear baseline of the scTab paper :cite:p:`Fischer24`.

    Trained as scTab itself, at a learning rate of 0.0005 and a weight decay of 0.01.

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
    - NOTE[DIFF] A linear layer of ``n_d`` units is between genes and labels, without activation.
    - NOTE[DIFF] Below 65,536 cells the batches are smaller, at least 64 cells. With batches of
      2,048 the published recipe has about one step per epoch on thousands of cells, and hardly
      learns.
    """

    name = "linear"
    encoder = "linear"
    plan_kwargs = {"lr": 5e-4, "weight_decay": 0.01}
