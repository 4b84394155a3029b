"""Model of sparse mechanism shifts of perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from scvi_sctab._config import ROTATION, SHIFT_NETWORK, SHIFT_PREDICTION, SHIFT_TRAIN
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._messages import list_names
from scvi_sctab.base import document_cells
from scvi_sctab.external.svae._adapt import adapt_model
from scvi_sctab.external.svae._checks import (
    check_network,
    check_stability,
    check_stages,
    check_training,
)
from scvi_sctab.external.svae._module import SpikeSlabModule
from scvi_sctab.external.svae._plan import SpikeSlabTrainingPlan
from scvi_sctab.external.svae._predicting_model import PredictingModel
from scvi_sctab.external.svae._query import map_query
from scvi_sctab.external.svae._records import RotationRecord, SurgeryRecord
from scvi_sctab.external.svae._shift_estimates import count_cells
from scvi_sctab.external.svae._stability import compare_seeds
from scvi_sctab.external.svae._training import TrainingArguments, choose_stages
from scvi_sctab.nn import single_precision

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.external.svae._module import Prior


class SpikeSlabVAE(PredictingModel):
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

    @property
    def rotation(self) -> RotationRecord | None:
        """Result of the sparse rotation; ``None`` without that stage."""
        saved = getattr(self, "rotation_", None)
        return None if saved is None else RotationRecord.from_dict(saved)

    @rotation.setter
    def rotation(self, record: RotationRecord) -> None:
        # Attributes with a trailing underscore are saved.
        self.rotation_ = record.to_dict()

    @property
    def surgery(self) -> SurgeryRecord | None:
        """Record of :meth:`load_query_data`; ``None`` if this is no query model."""
        saved = getattr(self, "query_", None)
        return None if saved is None else SurgeryRecord.from_dict(saved)

    @surgery.setter
    def surgery(self, record: SurgeryRecord) -> None:
        self.query_ = record.to_dict()

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
        fine-tuning, or by the published objective with ``rotate=False``; of a query model only the
        effects of new batches are trained. Ctrl-C ends a stage: interrupted in the first one, the
        model is rotated and not fine-tuned.

        Parameters
        ----------
        max_epochs
            Epochs of the autoencoder; if not given, 80, or those of 3,200 steps if these are more.
            Of a trained model, epochs of the further training.
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
            Further arguments of :class:`~scvi_sctab.external.svae.SpikeSlabTrainingPlan`, for all
            stages.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, its counts are not raw, ``train_size`` is not in (0, 1],
            a number of epochs or starts is too small, or an argument would have no effect.

        Warns
        -----
        UserWarning
            If the rotation is unreliable, see :func:`~scvi_sctab.external.svae.sparse_rotation`.
        """
        self._check_arguments(max_epochs, trainer_kwargs, "train")
        check_training(finetune_epochs, n_init, n_starts)
        self._check_stages(rotate, finetune_epochs, n_init)
        self._check_own_cells()
        self._check_own_perturbations()
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

    def _check_stages(self, rotate: bool, finetune_epochs: int | None, n_init: int) -> None:
        """Refuse arguments of stages that this training does not have."""
        reason = None
        if self.surgery is not None:
            reason = "A query model trains the effects of new batches alone"
        elif self.module.prior != "spike_slab":
            reason = f"prior={self.module.prior!r} is trained in one stage"
        elif not rotate:
            reason = "rotate=False is the published schedule, of one stage"
        check_stages(reason, finetune_epochs=finetune_epochs, n_init=n_init)
        if self.is_trained_:
            check_stages("A trained model is trained further by fine-tuning", n_init=n_init)

    def _check_own_perturbations(self) -> None:
        """Refuse to train on cells that lack perturbations, whose shifts would vanish."""
        counts = count_cells(self._codes(self.adata), len(self.perturbations))
        absent = [name for name, n in zip(self.perturbations, counts, strict=True) if not n]
        if absent and self.surgery is None:
            raise ValueError(
                f"The model's cells have none of {list_names(absent)}, whose shifts training would "
                "lose. Train on all cells of the screen: set up a new model on them."
            )

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

    def adapt(
        self,
        adata: AnnData,
        *,
        train_size: float = SHIFT_PREDICTION.adapt_train_size,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> SpikeSlabVAE:
        """Learn the shifts of new perturbations; all else is that of this model.

        Neither encoder nor decoder reads perturbations, so that the best shifts are known in
        closed form: there are no steps to take. Shifts below the threshold of the training, or
        within the noise of few cells, have an inclusion below one half.

        Parameters
        ----------
        adata
            Cells with new perturbations in the same column; others in it are kept. Genes are
            matched by name; batches must be known.
        train_size
            Share of the cells of each new perturbation to learn from. The positions of the others
            are ``validation_indices`` of the result, e.g. for :meth:`get_marginal_ll`.
        layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        A trained model with these cells and all perturbations; this one is not changed.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If there is no new perturbation, one has a single cell, a batch is unknown, counts are
            not raw, or the gene overlap is too small.
        """
        self._require_trained()
        return adapt_model(
            self, adata, train_size=train_size, layer=layer, min_gene_overlap=min_gene_overlap
        )

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData,
        reference_model: Any,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
        allow_pickle: bool = False,
    ) -> SpikeSlabVAE:
        """Map cells of new batches onto a trained model :cite:p:`Lotfollahi21`.

        New batches and categories of covariates are new columns in the first layer of the decoder,
        which start as the mean of the others; :meth:`train` trains them alone. This is not needed
        to embed cells, as the encoder reads no batch.

        Parameters
        ----------
        adata
            The query, with known perturbations; it is not changed.
        reference_model
            A trained model of this class, or the directory that one was saved to.
        layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        allow_pickle
            As in :meth:`load`.

        Returns
        -------
        A trained model with the cells of the query.

        Raises
        ------
        TypeError
            If the reference is of another class.
        ValueError
            If the reference has no batches or knows those of the query, a perturbation is unknown,
            counts are not raw, or the gene overlap is too small.
        """
        reference = cls._load_reference(reference_model, allow_pickle)
        return map_query(cls, reference, adata, layer, min_gene_overlap)

    def stability(
        self,
        sparsity: Sequence[float | None] = (None,),
        *,
        n_seeds: int = SHIFT_PREDICTION.n_seeds,
        max_epochs: int | None = None,
        finetune_epochs: int | None = None,
        n_starts: int = ROTATION.n_starts,
        batch_size: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        **trainer_kwargs: Any,
    ) -> pd.DataFrame:
        """Train models from several random weights, and compare their targets.

        Latents are matched by correlation, as their order and signs have no meaning. Targets that
        other weights do not find are not to be trusted. This takes ``n_seeds`` trainings, and as
        many fine-tunings for each further sparsity; the model itself is not changed.

        Parameters
        ----------
        sparsity
            Values of K to compare; ``None`` is the one that follows from the rotation.
        n_seeds
            Number of models, at least 2.
        max_epochs, finetune_epochs, n_starts, batch_size, accelerator, devices
            As in :meth:`train`.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Returns
        -------
        A row per sparsity, with the mean of K as index: ``agreement``, the F1 score of targets
        between models, mean over pairs, and its standard deviation ``agreement_sd``;
        ``mask_rate``, the share of targets; ``n_active``, the number of latents that are one.

        Raises
        ------
        ValueError
            If the model has no AnnData, or another prior, or ``n_seeds`` is less than 2.
        """
        self._check_arguments(max_epochs, trainer_kwargs, "stability")
        check_training(finetune_epochs, 1, n_starts)
        check_stability(self.module.prior, sparsity, n_seeds, finetune_epochs)
        self._check_own_cells()
        self._check_own_perturbations()
        arguments = TrainingArguments(
            train_size=None,
            batch_size=batch_size,
            early_stopping=False,
            splitter={},
            plan={},
            trainer={"accelerator": accelerator, "devices": devices, **trainer_kwargs},
        )
        return compare_seeds(
            self,
            arguments,
            sparsity=sparsity,
            n_seeds=n_seeds,
            max_epochs=max_epochs,
            finetune_epochs=finetune_epochs,
            n_starts=n_starts,
        )
