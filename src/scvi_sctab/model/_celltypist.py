"""Import of the models of CellTypist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scvi_sctab._logging import logger
from scvi_sctab.base import read_celltypist
from scvi_sctab.model._published import make_registry

if TYPE_CHECKING:
    from scvi_sctab.model._sctab import SCTAB


def load_celltypist(cls: type[SCTAB], path: Path) -> SCTAB:
    """Build a model with the coefficients of one of CellTypist.

    Parameters
    ----------
    cls
        Class of the model to build.
    path
        As of :meth:`scvi_sctab.SCTAB.from_celltypist`.
    """
    file = read_celltypist(path)
    registry = make_registry(cls, [str(gene) for gene in file.genes], list(file.labels))
    model = cls(registry=registry, preset="small", encoder="celltypist", linear_skip=False)
    order = [list(file.labels).index(label) for label in model.labels]
    model.module.encoder.set_scores(
        file.coefficients[order], file.intercepts[order], file.mean, file.scale
    )
    model.module.eval()
    model.is_trained_ = True
    about = ", ".join(
        str(value)
        for key in ("details", "version", "date", "source")
        if (value := file.description.get(key))
    )
    logger.info(f"{path.name}: {about or 'no description'}.")
    return model
