"""Registry fields of columns of ``adata.obs``, by the names of their values.

The fields of scvi-tools register raw values of any type, and also categories without cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LabelsWithUnlabeledObsField,
)

from scvi_sctab._messages import list_names
from scvi_sctab.data._names import canonical, name_as_known, name_values
from scvi_sctab.data._obs import get_column

if TYPE_CHECKING:
    from anndata import AnnData

LEARNT = "learnt"
"""Key in the state of labels: whether the labels of the cells are learnt from; yes if absent."""


class NamedObsField(CategoricalObsField):  # type: ignore[misc]
    """Column of categories, by their names; the arguments are those of scvi-tools' class."""

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Register the names that occur, in the order of their values."""
        if self.is_default:
            return super().register_field(adata)
        names = _names(adata, self._original_attr_key, f"{self.registry_key}_key")
        return self._write(adata, names, [*names.categories])

    def transfer_field(
        self,
        state_registry: dict[str, Any],
        adata_target: AnnData,
        extend_categories: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Use the codes of a registry; new names get the next codes, or are refused."""
        if self.is_default:
            return super().transfer_field(state_registry, adata_target, extend_categories)
        argument = f"{self.registry_key}_key"
        names = _names(adata_target, self._original_attr_key, argument)
        known = _known(state_registry[self.CATEGORICAL_MAPPING_KEY])
        place = f"{argument}={self._original_attr_key!r}"
        names, known = _extend(names, known, extend_categories, place)
        return self._write(adata_target, names, known)

    def _write(
        self, adata: AnnData, names: pd.Categorical, known: Sequence[str]
    ) -> dict[str, Any]:
        adata.obs[self.attr_key] = names.set_categories(known).codes
        return {
            self.CATEGORICAL_MAPPING_KEY: np.array(known, dtype=object),
            self.ORIGINAL_ATTR_KEY: self._original_attr_key,
        }


class NamedLabelsField(LabelsWithUnlabeledObsField):  # type: ignore[misc]
    """Column of labels; the unlabelled category is the last, even without unlabelled cells."""

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Register the labels that occur."""
        names = _names(adata, self._original_attr_key, "labels_key")
        unlabeled = str(self._unlabeled_category)
        labels = [name for name in names.categories if name != unlabeled]
        return self._write(adata, names, [*labels, unlabeled])

    def transfer_field(
        self,
        state_registry: dict[str, Any],
        adata_target: AnnData,
        allow_missing_labels: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Use the codes of a registry; new labels are refused.

        If labels are not learnt from by the registry, or the column is missing and
        ``allow_missing_labels``, all cells are unlabelled. The column itself is not changed.
        """
        unlabeled = str(self._unlabeled_category)
        known = _known(state_registry[self.CATEGORICAL_MAPPING_KEY])
        known = known if unlabeled in known else [*known, unlabeled]
        learnt = state_registry.get(LEARNT, True)
        key = self._original_attr_key
        if not learnt or (allow_missing_labels and key not in adata_target.obs):
            names = pd.Categorical([unlabeled] * adata_target.n_obs, [unlabeled])
        else:
            names = _names(adata_target, key, "labels_key")
            new = [name for name in names.categories if name not in known]
            if new:
                raise ValueError(f"labels_key={key!r} holds new labels: {list_names(new)}.")
        state = self._write(adata_target, names, known)
        return state if learnt else state | {LEARNT: False}

    def _write(
        self, adata: AnnData, names: pd.Categorical, known: Sequence[str]
    ) -> dict[str, Any]:
        adata.obs[self.attr_key] = names.set_categories(known).codes
        return {
            self.CATEGORICAL_MAPPING_KEY: np.array(known, dtype=object),
            self.ORIGINAL_ATTR_KEY: self._original_attr_key,
            self.UNLABELED_CATEGORY: str(self._unlabeled_category),
        }


class NamedJointObsField(CategoricalJointObsField):  # type: ignore[misc]
    """Several columns of categories, by their names; arguments as in scvi-tools' class."""

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Register the names that occur in each column, in the order of their values."""
        columns = {key: _names(adata, key, "categorical_covariate_keys") for key in self.attr_keys}
        return self._write(adata, columns, {key: [*columns[key].categories] for key in columns})

    def transfer_field(
        self,
        state_registry: dict[str, Any],
        adata_target: AnnData,
        extend_categories: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Use the codes of a registry; new names get the next codes, or are refused."""
        columns, known = {}, {}
        for key in self.attr_keys:
            names = _names(adata_target, key, "categorical_covariate_keys")
            columns[key], known[key] = _extend(
                names,
                _known(state_registry[self.MAPPINGS_KEY][key]),
                extend_categories,
                f"the covariate {key!r}",
            )
        return self._write(adata_target, columns, known)

    def _write(
        self,
        adata: AnnData,
        columns: dict[str, pd.Categorical],
        known: dict[str, list[str]],
    ) -> dict[str, Any]:
        codes = {key: columns[key].set_categories(known[key]).codes for key in columns}
        adata.obsm[self.attr_key] = pd.DataFrame(codes, index=adata.obs_names)
        return {
            self.MAPPINGS_KEY: {key: np.array(known[key], dtype=object) for key in known},
            self.FIELD_KEYS_KEY: [*self.attr_keys],
            self.N_CATS_PER_KEY: [len(known[key]) for key in self.attr_keys],
        }


def _names(adata: AnnData, key: str, argument: str) -> pd.Categorical:
    get_column(adata.obs, key, argument)  # raises
    return name_values(adata.obs[key])


def _known(mapping: Sequence[object]) -> list[str]:
    """Return the names in a registry; one written by scvi-tools has raw values."""
    return [canonical(value) for value in mapping]


def _extend(
    names: pd.Categorical, known: list[str], may_extend: bool, place: str
) -> tuple[pd.Categorical, list[str]]:
    """Name the values as in a registry, and list its names and the new ones."""
    names = name_as_known(names, known)
    new = [name for name in names.categories if name not in known]
    if new and not may_extend:
        raise ValueError(f"{place} holds values that the model does not know: {list_names(new)}.")
    return names, [*known, *new]
