"""Model of sparse mechanism shifts of perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField, NumericalJointObsField, NumericalObsField

from scvi_sctab._config import ROTATION, SHIFT_NETWORK, SHIFT_TRAIN
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.base import BaseModel, document_cells, setup_arguments
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
    get_column,
    refuse_view,
)
from scvi_sctab.external.svae._checks import check_network, check_training
from scvi_sctab.external.svae._covariates import numeric_columns
from scvi_sctab.external.svae._field import PERTURBATIONS_KEY, PerturbationField
from scvi_sctab.external.svae._guides import Guides, encode_guides
from scvi_sctab.external.svae._module import SpikeSlabModule
from scvi_sctab.external.svae._plan import SpikeSlabTrainingPlan
from scvi_sctab.external.svae._records import RotationRecord
from scvi_sctab.external.svae._training import TrainingArguments, choose_stages
from scvi_sctab.nn import single_precision
from scvi_sctab.train import SinglePrecisionRunner

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scvi.data.fields import AnnDataField
    from torch import Tensor

    from scvi_sctab.external.svae._module import Prior


class SpikeSlabVAE(BaseModel):
    """Learn which latent variables each perturbation shifts, the sVAE+ of :cite:t:`Lopez23`.

    A variational autoencoder of counts in which a perturbation shifts few latents. This makes
    latents identifiable, up to order and sign, as modules that perturbations move. By default it
    is trained in three stages: an autoencoder without perturbations, a rotation of its latents in
    which shifts are sparse (:func:`~scvi_sctab.external.svae.sparse_rotation`), and fine-tuning
    with the sparse prior.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`.
    n_latent
        Number of latents. Take more than there may be modules: superfluous latents stay unused,
        too few mix modules. There should be two perturbations per latent.
    n_hidden, n_layers, dropout_rate
        Shape of encoder and decoder, as of :class:`scvi.model.SCVI`.
    gene_likelihood
        Negative binomial, ``"nb"``, or zero-inflated, ``"zinb"``.
    prior
        ``"spike_slab"``, the model; for comparison ``"dense"``, all shifts without masks (iVAE);
        ``"l1"``, masks with an L1 penalty (sVAE); ``"none"``, a standard normal (VAE).
    sparsity
        K of the spike-and-slab prior, from 1, not sparse, on; or the weight of the L1 penalty. If
        not given, K follows from the threshold of the rotation and the number of cells.
    beta
        Weight of the KL divergence of latents.
    registry
        Registry of a saved model, in place of ``adata``.

    Raises
    ------
    ValueError
        If a hyperparameter is out of range.

    Examples
    --------
    >>> from scvi_sctab.external import SpikeSlabVAE
    >>> SpikeSlabVAE.setup_anndata(cells, "guide", "non-targeting")  # doctest: +SKIP
    >>> model = SpikeSlabVAE(cells)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> model.get_intervention_targets()  # doctest: +SKIP
    >>> model.predict_perturbation("IFNGR1")  # doctest: +SKIP
    """

    _module_cls = SpikeSlabModule
    _training_plan_cls = SpikeSlabTrainingPlan
    _data_splitter_cls = UnlabeledDataSplitter
    _train_runner_cls = SinglePrecisionRunner

    @single_precision()
    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        n_latent: int = SHIFT_NETWORK.n_latent,
        n_hidden: int = SHIFT_NETWORK.n_hidden,
        n_layers: int = SHIFT_NETWORK.n_layers,
        dropout_rate: float = SHIFT_NETWORK.dropout_rate,
        gene_likelihood: Literal["nb", "zinb"] = SHIFT_NETWORK.gene_likelihood,
        prior: Prior = SHIFT_NETWORK.prior,
        sparsity: float | None = None,
        beta: float = SHIFT_NETWORK.beta,
        registry: dict[str, Any] | None = None,
    ):
        super().__init__(adata, registry)
        self.init_params_ = self._get_init_params(locals())
        check_network(self._arguments())
        self.module = self._build_module()
        n_parameters = sum(p.numel() for p in self.module.parameters())
        self._summarize_as(
            f"{type(self).__name__}: prior {prior!r}, {len(self.gene_names):,} genes, "
            f"{len(self.perturbations):,} perturbations, {n_latent} latents, "
            f"{n_parameters:,} parameters"
        )

    def _build_module(self) -> SpikeSlabModule:
        """Build a module with random weights."""
        arguments = self._arguments()
        if arguments["sparsity"] is None:
            l1 = arguments["prior"] == "l1"
            arguments["sparsity"] = SHIFT_NETWORK.l1_penalty if l1 else 1.0
        return self._module_cls(
            len(self.gene_names),
            len(self.perturbations),
            n_categories=[len(condition.categories) for condition in self.conditions],
            n_covariates=len(self._setup("continuous_covariate_keys") or ()),
            **arguments,
        )

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
            Column of size factors; the sums of counts if not given.
        continuous_covariate_keys
            Columns of numbers that the decoder reads; they are standardised.
        **kwargs
            Passed to :meth:`~scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If there is no such column, key or layer.
        TypeError
            If there is no such argument, or a key is not a string.
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

    @property
    def rotation(self) -> RotationRecord | None:
        """Result of the sparse rotation; ``None`` without that stage."""
        saved = getattr(self, "rotation_", None)
        return None if saved is None else RotationRecord.from_dict(saved)

    @rotation.setter
    def rotation(self, record: RotationRecord) -> None:
        # Attributes with a trailing underscore are saved.
        self.rotation_ = record.to_dict()

    def train(
        self,
        max_epochs: int | None = None,
        *,
        rotate: bool = True,
        finetune_epochs: int | None = None,
        n_init: int = SHIFT_TRAIN.n_init,
        n_starts: int = ROTATION.n_starts,
        train_size: float | None = None,
        batch_size: int | None = None,
        early_stopping: bool = False,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train in three stages: autoencoder, sparse rotation, sparse fine-tuning.

        If training fails, the model is as before. A trained model is trained further by
        fine-tuning, and a query model on its new batches alone.

        Parameters
        ----------
        max_epochs
            Epochs of the autoencoder; if not given, 80, or those of 3,200 steps if these are more.
        rotate
            Whether to train in stages. ``False`` is the published schedule: 300 epochs with masks
            that are sampled for each cell. The rotation itself is of the spike-and-slab prior
            alone; other priors are trained for ``max_epochs`` by either schedule.
        finetune_epochs
            Epochs of the fine-tuning; if not given, 60, or those of 2,400 steps. With 0, masks are
            the targets of the rotation.
        n_init
            Number of autoencoders from different random weights. The one whose rotation has the
            lowest criterion is kept. More take as many times as long, and guard against a poor
            start.
        n_starts
            Number of starts of the rotation.
        train_size
            Share of cells for training; all if not given, and 0.9 with ``early_stopping``.
        batch_size
            Cells per step.
        early_stopping
            Whether to hold out cells, stop when their loss no longer decreases, and keep the
            weights of the best epoch.
        accelerator, devices
            Device for training; a GPU if there is one.
        datasplitter_kwargs
            Further arguments of :class:`~scvi_sctab.data.UnlabeledDataSplitter`.
        plan_kwargs
            Further arguments of :class:`SpikeSlabTrainingPlan`, for all stages.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, its counts are not raw, ``train_size`` is not in (0, 1],
            or a number of epochs or starts is too small.

        Warns
        -----
        UserWarning
            If the rotation is unreliable, see :func:`~scvi_sctab.external.svae.sparse_rotation`.
        """
        self._check_arguments(max_epochs, trainer_kwargs, "train")
        check_training(finetune_epochs, n_init, n_starts)
        self._check_own_cells()
        arguments = TrainingArguments(
            train_size=train_size,
            batch_size=batch_size,
            early_stopping=early_stopping,
            splitter=datasplitter_kwargs or {},
            plan=plan_kwargs or {},
            trainer={"accelerator": accelerator, "devices": devices, **trainer_kwargs},
        )
        choose_stages(
            self,
            arguments,
            max_epochs=max_epochs,
            rotate=rotate,
            finetune_epochs=finetune_epochs,
            n_init=n_init,
            n_starts=n_starts,
        )

    def _splitter(self, **kwargs: Any) -> UnlabeledDataSplitter:
        """Build the data module that splits the cells."""
        arrays = self._arrays(self.adata)
        return self._data_splitter_cls(self.adata_manager, arrays=arrays, **kwargs)

    def _start(self, cells: NDArray[np.intp]) -> None:
        """Set moments of continuous covariates, before the first training."""
        keys = self._setup("continuous_covariate_keys")
        if self.is_trained_ or not keys:
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

    @document_cells
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.float32]:
        """Compute posterior means of latents; perturbations and batches are not needed.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`scvi_sctab.SCTAB.predict`.

        Returns
        -------
        ``(n_cells, n_latent)``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If counts are not raw, or the gene overlap is too small.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        return self._posterior(cells, batch_size)[0]

    def get_intervention_targets(self) -> pd.DataFrame:
        """Return the posterior probability that a perturbation shifts a latent.

        Returns
        -------
        A row per perturbation without the control, a column per latent; 1 for the dense prior, 0
        without a prior.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        """
        return self._table(self.module.inclusion())

    def get_intervention_effects(self) -> pd.DataFrame:
        """Return the shifts of latents, multiplied by their probability.

        Returns
        -------
        A row per perturbation without the control, a column per latent. The unit is the standard
        deviation of latents within a perturbation.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        """
        return self._table(self.module.inclusion() * self.module.shift)

    def _table(self, values: Tensor) -> pd.DataFrame:
        self._require_trained()
        rows = pd.Index(self.perturbations, name="perturbation")
        columns = pd.RangeIndex(self.module.n_latent, name="latent")
        return pd.DataFrame(values.detach().cpu().numpy(), rows, columns)


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
