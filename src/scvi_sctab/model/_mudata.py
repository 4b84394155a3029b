"""Models of one modality of a MuData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scvi_sctab._constants import UNLABELED_CATEGORY
from scvi_sctab.data import cells_of_mudata, is_mudata

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_MODALITIES = "_scvi_sctab_modalities"
_UUID = "_scvi_uuid"


class MuDataMixin:
    """Set-up and use of the modality of a MuData with counts of genes."""

    # Modality of counts and of columns if the model was set up with a MuData; saved.
    modalities_: dict[str, str] | None = None

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        layer: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str = UNLABELED_CATEGORY,
        batch_key: str | None = None,
        donor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        modalities: Mapping[str, str] | None = None,
    ) -> None:
        """Check a reference and register its counts and labels.

        Parameters
        ----------
        mdata
            Reference with raw counts of genes in one modality. The verbs of its model take MuData
            as well as AnnData.
        layer
            Layer of that modality with raw counts; ``None`` is its ``X``.
        labels_key, unlabeled_category, batch_key, donor_key, categorical_covariate_keys
            As in :meth:`setup_anndata`. Columns are looked up in the modality given by
            ``modalities``, else in ``mdata.obs``, else in the modality with counts.
        modalities
            Modality of each argument, as in other models of scvi-tools:
            ``{"layer": "rna", "labels_key": "rna"}``. Only ``"layer"`` is needed.

        Raises
        ------
        KeyError
            If a modality or a column does not exist.
        TypeError
            If ``mdata`` is not a MuData.
        ValueError
            As in :meth:`setup_anndata`, or if the modality with counts is not given.

        Examples
        --------
        >>> SCTAB.setup_mudata(
        ...     mdata, labels_key="cell_type", modalities={"layer": "rna"}
        ... )  # doctest: +SKIP
        >>> model = SCTAB(mdata)  # doctest: +SKIP
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
        arguments = {
            "labels_key": labels_key,
            "batch_key": batch_key,
            "donor_key": donor_key,
            "categorical_covariate_keys": categorical_covariate_keys,
        }
        cells = cells_of_mudata(mdata, modalities, _columns(arguments))
        cls.setup_anndata(cells, layer=layer, unlabeled_category=unlabeled_category, **arguments)
        mdata.uns[_UUID] = cells.uns[_UUID]
        mdata.uns[_MODALITIES] = dict(modalities)

    @classmethod
    def _set_up_cells(cls, mdata: MuData) -> tuple[AnnData, dict[str, str]]:
        """Find the cells that :meth:`setup_mudata` registered, and their modalities."""
        cells = cls._find_cells(mdata.uns.get(_UUID))
        if cells is None or _MODALITIES not in mdata.uns:
            raise ValueError(
                f"Set the MuData up first: `{cls.__name__}.setup_mudata(mdata, labels_key=..., "
                "modalities={'layer': ...})`."
            )
        return cells, dict(mdata.uns[_MODALITIES])

    def _cells_of(self, adata: Any) -> Any:
        """Return the model's modality of a MuData as AnnData; return other objects unchanged."""
        if self.modalities_ is None or not is_mudata(adata):
            return adata
        setup = self.registry["setup_args"]
        return cells_of_mudata(adata, self.modalities_, _columns(setup), required=False)


def _columns(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Map the columns in arguments of :meth:`setup_anndata` to the names of the arguments."""
    columns = {}
    for argument in ("labels_key", "batch_key", "donor_key"):
        if arguments.get(argument) is not None:
            columns[arguments[argument]] = argument
    for key in arguments.get("categorical_covariate_keys") or ():
        columns.setdefault(key, "categorical_covariate_keys")
    return columns
