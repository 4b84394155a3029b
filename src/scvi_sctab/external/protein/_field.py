"""Registry field of surface proteins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data.fields import ObsmField

from scvi_sctab.data import get_proteins, list_names

if TYPE_CHECKING:
    from anndata import AnnData


class ProteinField(ObsmField):  # type: ignore[misc]
    """Where proteins are in an AnnData, and what they are called.

    Parameters
    ----------
    key, names_key
        As in :func:`~scvi_sctab.data.get_proteins`.
    """

    def __init__(self, key: str, names_key: str | None = None):
        super().__init__(
            REGISTRY_KEYS.PROTEIN_EXP_KEY,
            key,
            colnames_uns_key=names_key,
            correct_data_format=False,
        )

    def validate_field(self, adata: AnnData) -> None:
        """Check proteins."""
        get_proteins(adata, self.attr_key, self.colnames_uns_key)

    def _setup_column_names(self, adata: AnnData) -> list[str]:
        return [*get_proteins(adata, self.attr_key, self.colnames_uns_key).columns]

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any
    ) -> dict[str, Any]:
        """Register further cells; proteins are matched by name, and some may be missing."""
        theirs = self._setup_column_names(adata_target)
        require_shared(theirs, state_registry["column_names"], self.attr_key)
        return state_registry


def require_shared(theirs: Sequence[str], known: Sequence[str], key: str) -> None:
    """Raise an error if cells have no protein of the model.

    Parameters
    ----------
    theirs, known
        Names of the proteins of the cells, and of the model.
    key
        Key of ``obsm`` with the proteins of the cells.

    Raises
    ------
    ValueError
        If no name is shared.
    """
    if not set(theirs) & set(known):
        raise ValueError(
            f"None of the model's proteins, {list_names(known)}, is among those of "
            f"`adata.obsm[{key!r}]`: {list_names(theirs)}. Rename them."
        )
