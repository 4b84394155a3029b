"""scTab's linear comparison."""

from __future__ import annotations

from scvi_sctab.baselines._paper_recipe import PaperRecipe


class Linear(PaperRecipe):
    """The linear model that scTab compares itself with :cite:p:`Fischer24`.

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
    - NOTE[DIFF] A layer of ``n_d`` stands between genes and labels, with no function in between.
    - NOTE[DIFF] Fewer than 65,536 cells are trained on in smaller batches, of 64 at least. In
      batches of 2,048 the published recipe takes no more steps on thousands of cells than it has
      epochs, and learns next to nothing.
    """

    name = "linear"
    encoder = "linear"
    plan_kwargs = {"lr": 5e-4, "weight_decay": 0.01}
