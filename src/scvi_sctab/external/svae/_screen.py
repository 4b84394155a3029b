"""Base of models of perturbation screens: set-up, and reading of cells with perturbations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField, NumericalJointObsField, NumericalObsField

from scvi_sctab.base import BaseModel, setup_arguments
from scvi_sctab.data import (
    CellSelection,
    NamedJointObsField,
    NamedObsField,
    UnlabeledDataSplitter,
    as_keys,
    check_anndata,
    check_cells,
    check_genes,
    check_key,
    check_keywords,
    describe_unknown,
    get_column,
    read_counts,
    refuse_view,
)
from scvi_sctab.external.svae._covariates import numeric_columns
from scvi_sctab.external.svae._field import PERTURBATIONS_KEY, PerturbationField
from scvi_sctab.external.svae._guides import Guides, encode_guides
from scvi_sctab.train import SinglePrecisionRunner

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scvi.data.fields import AnnDataField
    from torch import Tensor

T = TypeVar("T")


class ScreenModel(BaseModel):
    """Model that is set up with a perturbation screen, and whose decoder reads batches."""

    _data_splitter_cls = UnlabeledDataSplitter
    _train_runner_cls = SinglePrecisionRunner

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        perturbation_key: str | None = None,
        control_category: str | None = None,
        *,
        separator: str | None = None,
        perturbation_obsm_key: str | None = None,
        layer: str | None = None,
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check cells of a perturbation screen and register them.

        Parameters
        ----------
        adata
            Raw counts, ``(n_cells, n_genes)``; dense, CSR or CSC.
        perturbation_key
            Column of ``adata.obs`` with the perturbation of each cell.
        control_category
            Name of unperturbed cells, whose shift is 0; ``None`` if the screen has none.
        separator
            Text between the perturbations of a cell with several, e.g. ``"+"``: the shift of
            ``"A+B"`` is the sum of those of its parts. Without, names are not split.
        perturbation_obsm_key
            Key of ``adata.obsm`` with a boolean matrix ``(n_cells, n_perturbations)`` in place of
            ``perturbation_key``; names are those of its columns. Cells without any are controls.
        layer
            Layer with raw counts; ``None`` is ``adata.X``.
        batch_key, categorical_covariate_keys
            Columns of categories that the decoder reads.
        size_factor_key
            Column of size factors, in any unit; the sums of counts if not given.
        continuous_covariate_keys
            Columns of numbers that the decoder reads; they are standardised.
        **kwargs
            Passed to :meth:`~scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If there is no such column, key or layer.
        TypeError
            If there is no such argument, or a key or the control is not a string.
        ValueError
            If counts are not raw, cells are empty, genes are duplicated or too few, values are
            missing, the control does not occur, all cells are controls, or a perturbation has one
            cell.
        """
        categorical_covariate_keys = as_keys(
            categorical_covariate_keys, "categorical_covariate_keys"
        )
        continuous_covariate_keys = as_keys(continuous_covariate_keys, "continuous_covariate_keys")
        arguments = setup_arguments(locals())
        check_keywords(cls.__name__, kwargs, arguments)
        for name in ("perturbation_key", "perturbation_obsm_key", "batch_key", "size_factor_key"):
            check_key(arguments[name], name)
        if control_category is not None and not isinstance(control_category, str):
            raise TypeError(
                f"{control_category=} is no string, as names of perturbations are: "
                f"`control_category={str(control_category)!r}`."
            )
        if separator is not None and not (isinstance(separator, str) and separator):
            raise ValueError(
                f"{separator=}: give the text between the perturbations of a cell, such as '+', or "
                "leave it out, and names are not split."
            )
        if (perturbation_key is None) == (perturbation_obsm_key is None):
            raise ValueError(
                "Name the column of perturbations, `perturbation_key=`, one of "
                f"{list(check_anndata(adata).obs)}; or a boolean matrix, `perturbation_obsm_key=`, "
                f"one of {list(adata.obsm)}; not both."
            )
        cls._set_up(adata, arguments, **kwargs)

    @classmethod
    def _set_up(
        cls, adata: AnnData, arguments: dict[str, Any], *, may_extend: bool = False, **kwargs: Any
    ) -> None:
        """Check and register cells; they may have new perturbations if ``may_extend``."""
        layer, batch_key = arguments["layer"], arguments["batch_key"]
        refuse_view(check_anndata(adata))
        if "source_registry" not in kwargs:
            check_genes(adata.var_names)
            check_cells(adata, layer)
        columns = [("batch_key", batch_key)] if batch_key is not None else []
        covariates = arguments["categorical_covariate_keys"] or []
        columns += [("categorical_covariate_keys", key) for key in covariates]
        for argument, key in columns:
            get_column(adata.obs, key, argument)
        _decoder_arrays(adata, arguments)
        guides = Guides.of_arguments(arguments)
        fields: list[AnnDataField] = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
            NamedObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            NamedJointObsField(
                REGISTRY_KEYS.CAT_COVS_KEY, arguments["categorical_covariate_keys"]
            ),
            NumericalJointObsField(
                REGISTRY_KEYS.CONT_COVS_KEY, arguments["continuous_covariate_keys"]
            ),
            NumericalObsField(
                REGISTRY_KEYS.SIZE_FACTOR_KEY, arguments["size_factor_key"], required=False
            ),
            PerturbationField(guides, may_extend=may_extend),
        ]
        cls._register(adata, fields, arguments, **kwargs)

    def _setup(self, name: str) -> Any:
        """Return an argument of set-up."""
        return self.registry["setup_args"][name]

    @property
    def perturbations(self) -> list[str]:
        """Perturbations whose shifts are learnt, in the order of the tables; not the control."""
        state = self.registry["field_registries"][PERTURBATIONS_KEY]["state_registry"]
        return [str(name) for name in state["names"]]

    @property
    def control(self) -> str | None:
        """Name of unperturbed cells, if there is one."""
        return self._guides.control

    @property
    def _guides(self) -> Guides:
        return Guides.of_arguments(self.registry["setup_args"])

    def _splitter(self, **kwargs: Any) -> UnlabeledDataSplitter:
        """Build the data module that splits the cells."""
        arrays = self._arrays(self.adata)
        # A likelihood of counts needs the zeros, too.
        return self._data_splitter_cls(self.adata_manager, arrays=arrays, dense=True, **kwargs)

    def _start(self, cells: NDArray[np.intp]) -> None:
        """Set the unit of size factors and moments of covariates, before the first training."""
        keys, size_key = self._setup("continuous_covariate_keys"), self._setup("size_factor_key")
        if self.is_trained_:
            return
        if size_key is not None:
            sizes = numeric_columns(self.adata.obs, [size_key], "size_factor_key")[cells]
            total = sum(float(block.sum()) for block in read_counts(self.adata, self.layer, cells))
            # Proportions of genes sum to 1, so that those of a panel need the sums of its counts.
            self.module.size_factor_unit.fill_(total / float(sizes.sum(dtype=np.float64)))
        if not keys:
            return
        values = numeric_columns(self.adata.obs, keys, "continuous_covariate_keys")[cells]
        std = values.std(axis=0)
        self.module.covariate_mean.copy_(torch.from_numpy(values.mean(axis=0)))
        self.module.covariate_std.copy_(torch.from_numpy(np.where(std > 0, std, 1)))

    def _codes(self, adata: AnnData) -> NDArray[np.int64]:
        """Look up the perturbations of cells, ``(n_cells, max_parts)``; -1 fills up."""
        guides = self._guides
        return encode_guides(guides.read(adata), self.perturbations, guides.place)

    def _arrays(self, adata: AnnData) -> dict[str, NDArray[Any]]:
        """Read what module and loss take of cells besides counts and categories."""
        decoder = _decoder_arrays(adata, self.registry["setup_args"])
        return {**decoder, PERTURBATIONS_KEY: self._codes(adata)}

    def _posterior(
        self, cells: CellSelection, batch_size: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute posterior means and variances of latents, each ``(n_cells, n_latent)``."""
        n_latent = self.module.n_latent
        moments = self._stack(self._embed, 2 * n_latent, cells, batch_size)
        return moments[:, :n_latent], moments[:, n_latent:]

    def _embed(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        return self.module.embed(tensors).cpu().numpy()

    def _map_decoded(
        self,
        function: Callable[[dict[str, Tensor]], T],
        cells: CellSelection,
        batch_size: int | None = None,
        *,
        with_perturbations: bool = False,
    ) -> Iterator[T]:
        """Apply a function that decodes to minibatches of cells, whose batches must be known."""
        self._require_trained()
        rows = cells.adata.obs.iloc[cells.positions]
        unknown = describe_unknown(self.conditions, rows)
        if unknown:
            raise ValueError(
                f"The decoder depends on batch and covariates: {'; '.join(unknown)} Map cells of "
                f"other batches first: `{type(self).__name__}.load_query_data(adata, model)`."
            )
        # Others of the same AnnData need not be known.
        chosen = cells.adata[cells.positions]
        arrays = (
            self._arrays(chosen)
            if with_perturbations
            else _decoder_arrays(chosen, self.registry["setup_args"])
        )
        return self._map_cells(function, cells, batch_size, arrays)

    def _per_cell(
        self,
        function: Callable[[dict[str, Tensor]], Tensor],
        cells: CellSelection,
        batch_size: int | None,
    ) -> NDArray[np.float64]:
        """Compute a number per cell with perturbations, ``(n_cells,)``."""
        parts = self._map_decoded(function, cells, batch_size, with_perturbations=True)
        values = [np.zeros(0), *(part.double().cpu().numpy() for part in parts)]
        if not len(cells):
            raise ValueError("There are no cells to average over.")
        return np.concatenate(values)


def _decoder_arrays(adata: AnnData, setup: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Read continuous covariates and size factors of cells, where there are any."""
    arrays: dict[str, NDArray[Any]] = {}
    if setup["continuous_covariate_keys"]:
        arrays[REGISTRY_KEYS.CONT_COVS_KEY] = numeric_columns(
            adata.obs, setup["continuous_covariate_keys"], "continuous_covariate_keys"
        )
    if setup["size_factor_key"] is not None:
        arrays[REGISTRY_KEYS.SIZE_FACTOR_KEY] = numeric_columns(
            adata.obs, [setup["size_factor_key"]], "size_factor_key", positive=True
        )
    return arrays
