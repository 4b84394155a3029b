"""Loading of a saved model, of one network or of several."""

from __future__ import annotations

import os
from pathlib import Path

from scvi_sctab._constants import ENSEMBLE_FILE
from scvi_sctab.model._ensemble import SCTABEnsemble
from scvi_sctab.model._sctab import SCTAB


def load_model(path: str | os.PathLike[str], accelerator: str = "auto") -> SCTAB | SCTABEnsemble:
    """Load a model to predict with, without its cells.

    Parameters
    ----------
    path
        Directory of a saved :class:`~scvi_sctab.SCTAB` or :class:`~scvi_sctab.SCTABEnsemble`.
    accelerator
        Device of the model.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If it is damaged, or of another version.
    """
    is_ensemble = (Path(path) / ENSEMBLE_FILE).exists()
    cls = SCTABEnsemble if is_ensemble else SCTAB
    return cls.load(path, adata=False, accelerator=accelerator)
