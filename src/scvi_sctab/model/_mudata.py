"""Models of one modality of a MuData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scvi_sctab.data import cells_of_mudata, is_mudata

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from scvi_sctab.model._sctab import SCTAB

_MODALITIES = "_scvi_sctab_modalities"
_UUID = "_scvi_uuid"


def register_mudata(
    cls: type[SCTAB],
    mdata: MuData,
    layer: str | None,
    unlabeled_category: str,
    columns: dict[str, Any],
    modalities: Mapping[str, str] | None,
) -> None:
    """Register the modality of a MuData that holds counts of genes.

    Parameters
    ----------
    cls
        Class of the models.
    mdata, layer, unlabeled_category, modalities
        As of :meth:`scvi_sctab.SCTAB.setup_mudata`.
    columns
        Its arguments that name columns.
    """
    if not is_mudata(mdata):
        raise TypeError(
            f"mdata must be a MuData, not {type(mdata).__name__}; for an AnnData: "
            f"`{cls.__name__}.setup_anndata(adata, ...)`."
        )
    if not modalities or "layer" not in modalities:
        raise ValueError(
            "Say which modality holds counts of genes, "
            f"`modalities={{'layer': {next(iter(mdata.mod), 'rna')!r}}}`; `mdata` has "
            f"{list(mdata.mod)}."
        )
    cells = cells_of_mudata(mdata, modalities, columns_of(columns))
    cls.setup_anndata(cells, layer=layer, unlabeled_category=unlabeled_category, **columns)
    mdata.uns[_UUID] = cells.uns[_UUID]
    mdata.uns[_MODALITIES] = dict(modalities)


def find_registered(cls: type[SCTAB], mdata: MuData) -> tuple[AnnData, dict[str, str]]:
    """Find the cells that :func:`register_mudata` registered, and their modalities.

    Parameters
    ----------
    cls
        Class of the models.
    mdata
        The MuData.

    Raises
    ------
    ValueError
        If it was not registered.
    """
    cells = cls._find_cells(mdata.uns.get(_UUID))
    if cells is None or _MODALITIES not in mdata.uns:
        raise ValueError(
            f"Set the MuData up first: `{cls.__name__}.setup_mudata(mdata, labels_key=..., "
            "modalities={'layer': ...})`."
        )
    return cells, dict(mdata.uns[_MODALITIES])


def columns_of(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Columns that arguments of ``setup_anndata`` name, with the argument.

    Parameters
    ----------
    arguments
        Arguments by name.
    """
    columns = {}
    for argument in ("labels_key", "batch_key", "donor_key"):
        if arguments.get(argument) is not None:
            columns[arguments[argument]] = argument
    for key in arguments.get("categorical_covariate_keys") or ():
        columns.setdefault(key, "categorical_covariate_keys")
    return columns
