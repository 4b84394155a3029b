"""SCTAB, in the order of its use: set up, build, train, map a query, embed.

``predict``, ``annotate``, ``evaluate``, ``calibrate`` and the other verbs that a model shares with
an ensemble are in ``_annotator.py``; ``get_markers`` and the other explanations in
``_explainer.py``; surgery in ``_surgery.py``; ``save`` and ``load`` in ``base``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.data.fields import BaseAnnDataField, LayerField

from scvi_sctab._config import (
    PRESETS,
    EncoderName,
    MaskName,
    NetworkConfig,
    choose_preset,
    override,
)
from scvi_sctab._constants import (
    CONDITIONS_KEY,
    DONOR_KEY,
    MIN_GENE_OVERLAP,
    UNKNOWN_CODE,
    UNLABELED_CATEGORY,
)
from scvi_sctab._logging import logger
from scvi_sctab.annotation import AnnotationState
from scvi_sctab.base import (
    BaseModel,
    all_or_nothing,
    check_epochs,
    check_trainer_arguments,
    document_cells,
    fit,
    setup_arguments,
)
from scvi_sctab.data import (
    LabeledDataSplitter,
    NamedJointObsField,
    NamedLabelsField,
    NamedObsField,
    TrainingRecord,
    as_keys,
    check_anndata,
    check_cells,
    check_key,
    check_keywords,
    check_labels_unchanged,
    check_reference,
    check_transfer,
    describe_unknown,
    find_cells,
    is_mudata,
)
from scvi_sctab.metrics import CellEvidence
from scvi_sctab.model._annotator import CellAnnotator
from scvi_sctab.model._explainer import CellExplainer
from scvi_sctab.model._mudata import MuDataMixin
from scvi_sctab.model._pretrained import PretrainedMixin
from scvi_sctab.model._published import PublishedCheckpointMixin
from scvi_sctab.model._query_training import QueryTrainer, describe_reference
from scvi_sctab.model._records import (
    QueryRecord,
    ReferenceStatistics,
    saved_record,
)
from scvi_sctab.model._surgery import SurgeryMixin
from scvi_sctab.model._training import ReferenceTrainer, pretrain_encoder
from scvi_sctab.module import CellTypeClassifier, build_classifier
from scvi_sctab.nn import single_precision
from scvi_sctab.train import ClassifierTrainingPlan, SinglePrecisionRunner

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import CellSelection

# Arguments of a model that is loaded or grows: its latent space, and the code of the first batch
# of each query.
_RECORDED_ARGUMENTS = ("pretrained", "first_query_batches")


class SCTAB(
    CellAnnotator,
    CellExplainer,
    SurgeryMixin,
    PretrainedMixin,
    PublishedCheckpointMixin,
    MuDataMixin,
    BaseModel,
):
    """Classifier of cell types from raw counts, scTab :cite:p:`Fischer24`.

    It learns cell types from an annotated reference and predicts them for new cells, of other
    donors and other studies. Genes are matched by name in every call.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`, or MuData by :meth:`setup_mudata`.
    preset
        ``"paper"`` has the published hyperparameters, ``"small"`` those for thousands of cells: a
        smaller TabNet with a linear path from genes to labels. ``"auto"`` is ``"paper"`` from
        200,000 labelled cells on, else ``"small"``, and is logged.
    registry
        Registry of a saved model, in place of ``adata``.
    coarse_labels
        Labels that stand for any of several finer ones, ``{"T cell": ["CD4 T", "CD8 T"]}``. Their
        cells are learnt from as one of these; coarse labels are not predicted.
        :meth:`set_ontology` finds the finer labels.
    encoder
        Network that embeds genes. The defaults of this and all further arguments are those of the
        preset; an argument that does not apply to the encoder is an error.
    freeze_encoder
        Whether the encoder is frozen; for a pretrained one.
    linear_skip
        Whether there is a linear path beside the encoder.
    encoder_weight
        Weight of the encoder's logits beside a linear path.
    batch_dropout
        Share of training cells whose batch is treated as unknown, so that the encoder also embeds
        cells of unknown batches.
    reconstruction_weight
        Weight of the loss that needs no labels.
    n_d
        Width of the embedding, of every encoder but ``"selu"``.
    n_a
        Width of the features from which TabNet computes attention.
    n_steps
        Attention steps of TabNet.
    gamma
        Relaxation of TabNet's prior on genes attended to before; at 1 a gene is used once.
    n_independent, n_shared
        Numbers of gated layers of each step of TabNet, and of those shared by all steps.
    epsilon
        Added to the mask within the logarithm of its entropy.
    virtual_batch_size, momentum
        Settings of ghost batch norm.
    mask_type
        Function that makes attention sparse.
    lambda_sparse
        Weight of the entropy of attention in the loss.
    widths
        Widths of the layers of ``"selu"``; the last one is that of the embedding.
    **others
        Recorded arguments of a model that is loaded or grows.

    Raises
    ------
    TypeError
        If a hyperparameter does not exist, or does not apply to the encoder.
    ValueError
        If the preset does not exist, or neither ``adata`` nor ``registry`` is given.

    Examples
    --------
    >>> from scvi_sctab import SCTAB, datasets
    >>> reference, query = datasets.pbmc_kang18(), datasets.pbmc3k()
    >>> SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    >>> model = SCTAB(reference)  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> query.obs = query.obs.join(model.annotate(query))  # doctest: +SKIP

    Notes
    -----
    The user guide has the equations, and the departures from the paper with their reasons.
    """

    _module_cls = CellTypeClassifier
    _training_plan_cls = ClassifierTrainingPlan
    _data_splitter_cls = LabeledDataSplitter
    _train_runner_cls = SinglePrecisionRunner

    # Whether Ctrl-C ended the last training, for ensembles.
    _was_interrupted = False
    # State; each part is frozen and replaced as a whole.
    training_record: TrainingRecord | None = None
    reference_statistics: ReferenceStatistics | None = None
    query_record: QueryRecord | None = None
    # Names of the state in files.
    training_record_ = saved_record("training_record", TrainingRecord)
    reference_ = saved_record("reference_statistics", ReferenceStatistics)
    surgery_ = saved_record("query_record", QueryRecord)

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str = UNLABELED_CATEGORY,
        batch_key: str | None = None,
        donor_key: str | None = None,
        categorical_covariate_keys: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check a reference and register its counts and labels.

        Parameters
        ----------
        adata
            Reference of raw counts, ``(n_cells, n_genes)``; dense, CSR or CSC. Columns whose
            names start with ``_scvi`` are added to its ``obs``.
        layer
            Layer with raw counts; ``None`` is ``adata.X``.
        labels_key
            Column of ``adata.obs`` with cell types, strings or categories.
        unlabeled_category
            Value of the column for unlabelled cells, from which no label is learnt.
        batch_key
            Column with technical batches (sample, assay, study), on which the encoder is
            conditioned. A query of other batches can then be mapped by :meth:`load_query_data`.
        donor_key
            Column with donors. Whole donors are then held out for validation.
        categorical_covariate_keys
            Column or columns with other categories, on which the encoder is conditioned as well.
        **kwargs
            Passed to :meth:`~scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If a column or the layer does not exist.
        TypeError
            If there is no such argument, or a key is not the name of a column.
        ValueError
            If counts are not raw, cells are empty, genes are duplicated or too few, a column has
            missing values, values of an unsupported type, or different values with the same name,
            such as 1 and "1", or the labels cannot be learnt, such as a single one.

        Warns
        -----
        UserWarning
            If a label comes from one donor only, or reads as missing; if names in a column differ
            only in case, spaces or Unicode form, or have fewer than three cells.
        """
        check_anndata(adata)
        categorical_covariate_keys = as_keys(
            categorical_covariate_keys, "categorical_covariate_keys"
        )
        setup = setup_arguments(locals())
        check_keywords(cls.__name__, kwargs, setup)
        for argument in ("labels_key", "batch_key", "donor_key"):
            check_key(setup[argument], argument)
        if labels_key is None:
            raise ValueError(
                f"Name the column with cell types, `labels_key=`: one of {list(adata.obs)}."
            )
        # A loaded model also accepts unlabelled cells; `train` checks the cells to train on.
        if "source_registry" not in kwargs:
            columns = {"batch_key": batch_key, "donor_key": donor_key}
            check_reference(
                adata, layer, labels_key, unlabeled_category, columns, categorical_covariate_keys
            )
        else:
            check_transfer(adata, kwargs["source_registry"], setup, cls.__name__)
        fields = cls._fields(
            layer, labels_key, unlabeled_category, batch_key, donor_key, categorical_covariate_keys
        )
        cls._register(adata, fields, setup, **kwargs)

    @staticmethod
    def _fields(
        layer: str | None,
        labels_key: str,
        unlabeled_category: str,
        batch_key: str | None = None,
        donor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
    ) -> list[BaseAnnDataField]:
        """List the fields to register."""
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
            NamedLabelsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category),
            NamedObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            NamedJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
        ]
        if donor_key is not None:
            fields.append(NamedObsField(DONOR_KEY, donor_key))
        return fields

    @single_precision()
    def __init__(
        self,
        adata: AnnData | None = None,
        preset: str = "auto",
        *,
        registry: dict[str, Any] | None = None,
        coarse_labels: Mapping[str, Sequence[str]] | None = None,
        encoder: EncoderName | None = None,
        freeze_encoder: bool | None = None,
        linear_skip: bool | None = None,
        encoder_weight: float | None = None,
        batch_dropout: float | None = None,
        reconstruction_weight: float | None = None,
        n_d: int | None = None,
        n_a: int | None = None,
        n_steps: int | None = None,
        gamma: float | None = None,
        n_independent: int | None = None,
        n_shared: int | None = None,
        epsilon: float | None = None,
        virtual_batch_size: int | None = None,
        momentum: float | None = None,
        mask_type: MaskName | None = None,
        lambda_sparse: float | None = None,
        widths: Sequence[int] | None = None,
        **others: Any,
    ):
        arguments = locals()
        given = {f.name: arguments[f.name] for f in fields(NetworkConfig)}
        overrides = {name: value for name, value in given.items() if value is not None}
        pretrained, first_query_batches = (others.pop(name, None) for name in _RECORDED_ARGUMENTS)
        if is_mudata(adata):
            adata, self.modalities_ = self._set_up_cells(adata)
        super().__init__(adata, registry)
        asked = preset
        preset = choose_preset(preset, self._n_labeled_cells())
        config = override(PRESETS[preset].network, overrides | others)
        if asked == "auto":
            logger.info(
                f"preset='auto' took {preset!r} for {self._n_labeled_cells():,} labelled cells."
            )
        # Record resolved values, so that later defaults do not change a saved model.
        built = (pretrained, list(first_query_batches or ()))
        self.init_params_ = {
            "kwargs": {"others": dict(zip(_RECORDED_ARGUMENTS, built, strict=True))},
            "non_kwargs": {"preset": preset, "coarse_labels": None, **config.to_kwargs()},
        }
        self.preset_, self.network = preset, config
        self.module = build_classifier(
            config,
            len(self.gene_names),
            len(self.labels),
            [len(condition.categories) for condition in self.conditions],
            *built,
        )
        self._summarize_as(self._summarize(config))
        coarse = {label: list(finer) for label, finer in (coarse_labels or {}).items()}
        self.annotation = AnnotationState(self.labels, coarse_labels=coarse)

    def _summarize(self, config: NetworkConfig) -> str:
        shape = f"{len(self.gene_names):,} genes, {len(self.labels)} labels"
        skip = " + linear path" if config.linear_skip else ""
        n_parameters = sum(p.numel() for p in self.module.parameters())
        return (
            f"SCTAB, preset {self.preset_!r}: {config.encoder}{skip}, {shape}, "
            f"{n_parameters:,} parameters"
        )

    def _n_labeled_cells(self) -> int:
        if self.adata_manager is None:
            return int(self.summary_stats.n_cells)
        codes = self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)
        return int((np.asarray(codes) < len(self.labels)).sum())

    def train(
        self,
        max_epochs: int | None = None,
        *,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int | None = None,
        early_stopping: bool | None = None,
        augment: bool | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on the labelled cells of the reference; defaults are those of the preset.

        The weights of the epoch with the best macro F1 on held-out cells are kept. Whole donors
        are held out if a ``donor_key`` was set up.

        A query model is adapted to all cells of the query instead, by self-training: in each round
        the cells with the highest probabilities of each predicted label are trained on with that
        label. With ``learn_labels``, labels of the query are trained on as well.

        Parameters
        ----------
        max_epochs
            Number of epochs.
        train_size
            Share of labelled cells for training; with 1 there are no held-out cells, and the last
            weights are kept.
        validation_size
            Share for validation; all other cells if not given.
        shuffle_set_split
            Whether cells or donors are held out at random; otherwise the last cells of each label.
        batch_size
            Cells per step.
        early_stopping
            Whether to stop when the macro F1 no longer improves; by default with the paper preset,
            but not with the small one, whose learning rate follows a cycle.
        augment
            Whether to add differences between donors to training cells, as in scTab; by default
            with the paper preset. A ``donor_key`` is needed.
        accelerator, devices
            Device for training; a GPU if there is one.
        datasplitter_kwargs
            Further arguments of :class:`~scvi_sctab.data.LabeledDataSplitter`.
        plan_kwargs
            Further arguments of :class:`~scvi_sctab.train.ClassifierTrainingPlan`.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, its counts are not raw, its labels have changed since
            set-up, there are no labelled cells to train on, the sizes of the parts are
            inconsistent, or ``max_epochs`` is less than 1.
        TypeError
            If there is no such argument.
        KeyboardInterrupt
            If Ctrl-C came before the first validation; the model is not changed.

        Warns
        -----
        UserWarning
            If cells to hold out were trained on before.

        Notes
        -----
        If a model is trained again, it has the same held-out cells, unless arguments ask for
        another split. If training fails, the model is not changed. After Ctrl-C the best weights
        so far are kept, and calibrated.
        """
        self._require_trainable()
        check_epochs(max_epochs)
        check_trainer_arguments(trainer_kwargs, "train")
        check_labels_unchanged(self.adata_manager)
        self._check_own_cells()
        trainer_kwargs |= {"accelerator": accelerator, "devices": devices}
        datasplitter_kwargs, plan_kwargs = datasplitter_kwargs or {}, plan_kwargs or {}
        splitting = {
            "train_size": train_size,
            "validation_size": validation_size,
            "batch_size": batch_size,
            "shuffle_set_split": shuffle_set_split,
            **datasplitter_kwargs,
        }
        if self.query_record is not None:
            asked = (train_size, validation_size, early_stopping, augment)
            if any(value is not None for value in asked):
                raise ValueError(
                    "A query model trains on all cells of the query; none are held out for "
                    "`train_size`, `validation_size` or `early_stopping`, nor is any augmented."
                )
        with all_or_nothing(self):
            if self.query_record is not None:
                self.query_record = QueryTrainer(self, self.query_record).train(
                    max_epochs, batch_size, datasplitter_kwargs, plan_kwargs, trainer_kwargs
                )
                if self.query_record.patterns:  # training has changed the calibrated reference
                    self.annotation = replace(self.annotation, calibration=None)
                return
            self.training_record = ReferenceTrainer(self).train(
                max_epochs, early_stopping, augment, splitting, plan_kwargs, trainer_kwargs
            )
            self.reference_statistics = describe_reference(self)
            self._calibrate_after_training()

    def pretrain(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the encoder on all cells of the AnnData, without labels, before :meth:`train`.

        The pretext task is masked reconstruction :cite:p:`Arik21`: a decoder reconstructs hidden
        genes from the embedding of the visible ones.

        It improves the encoder if few cells are labelled, but not the linear path beside it; the
        user guide has numbers. The decoder is only kept if the model was built with
        ``reconstruction_weight``; it is then trained further by :meth:`train`.

        Parameters
        ----------
        max_epochs
            Number of epochs; those of 400 steps if not given.
        batch_size
            Cells per step.
        accelerator, devices
            Device for training; a GPU if there is one.
        plan_kwargs
            Further arguments of :class:`~scvi_sctab.train.ClassifierTrainingPlan`.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, reads a latent space, which is pretrained already, has a
            frozen encoder, is a query model, is trained, or its counts are not raw.
        """
        check_epochs(max_epochs)
        check_trainer_arguments(trainer_kwargs, "pretrain")
        self._require_trainable()
        if self.is_trained_:
            raise ValueError("This model is trained already; pretrain a new one before `train()`.")
        if not self.module.reads_genes:
            raise ValueError("This model reads a latent space, which is pretrained already.")
        if self.network.freeze_encoder:
            raise ValueError(
                "The encoder of this model is frozen: pretrain one with `freeze_encoder=False`."
            )
        if self.query_record is not None:
            raise ValueError("A query model is not pretrained; pretrain the reference.")
        self._check_own_cells()
        trainer_kwargs |= {"accelerator": accelerator, "devices": devices}
        with all_or_nothing(self):
            pretrain_encoder(self, max_epochs, batch_size, plan_kwargs or {}, trainer_kwargs)

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
        """Embed cells by the encoder, not conditioned on the batch, so that they can be compared.

        Only a latent space that depends on the batch, such as that of an SCVI, is conditioned on
        it.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        ``(n_cells, n_d)``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            As in :meth:`predict`.
        """
        return self._latent(self._select(adata, indices, layer, min_gene_overlap), batch_size)

    @property
    def labels(self) -> NDArray[np.str_]:
        """Cell types that the model knows, in the order of its logits."""
        state = self.registry["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
        mapping = np.asarray(state["categorical_mapping"]).astype(str)
        return mapping[mapping != str(state["unlabeled_category"])]

    @property
    def annotation(self) -> AnnotationState:
        """State of annotations: calibration, ontology, coarse labels."""
        return self._annotation

    @annotation.setter
    def annotation(self, state: AnnotationState) -> None:
        self._annotation = state
        # Training masks the logits of coarse labels, and a saved model is built with them.
        accepted = state.accepted
        if accepted is not None:
            self.module.accepted = torch.from_numpy(accepted).to(self.module.device)
            self.init_params_["non_kwargs"]["coarse_labels"] = self.coarse_labels

    @property
    def networks(self) -> tuple[CellTypeClassifier, ...]:
        """Networks of the model: its module."""
        return (self.module,)

    @property
    def _is_adapted(self) -> bool:
        """Whether there is a query adapter beside a frozen reference."""
        record = self.query_record
        return self.module.query_paths is not None and (record is None or not record.patterns)

    def _require_trainable(self) -> None:
        if self.adata is None:
            raise ValueError("This model has no AnnData to train on: `SCTAB.load(path, adata)`.")

    def _check_own_cells(self) -> None:
        """Check the model's AnnData, and register it again if another model was set up on it."""
        self._renew_registration()
        check_cells(self.adata, self.layer)

    def _fit(
        self,
        plan: ClassifierTrainingPlan,
        splitter: LabeledDataSplitter,
        max_epochs: int,
        trainer_kwargs: dict[str, Any],
    ) -> None:
        self._was_interrupted = fit(self, plan, splitter, max_epochs, **trainer_kwargs)

    def _to_logits(self, tensors: dict[str, Tensor]) -> CellEvidence:
        """Compute logits and reference logits of a minibatch of cells."""
        _, outputs = self.module(tensors, compute_loss=False)
        logits, of_reference = outputs["logits"], outputs["reference_logits"]
        values = logits.cpu().numpy()
        before = values if of_reference is logits else of_reference.cpu().numpy()
        return CellEvidence(values, before, before)

    def _latent(self, cells: CellSelection, batch_size: int | None = None) -> NDArray[np.float32]:
        return self._stack(self._embed, self.module.encoder.n_output, cells, batch_size)

    def _embed(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        """Embed a minibatch of cells, with unknown batches unless the encoder needs them."""
        if not self.module.needs_batch:
            unknown = torch.full_like(tensors[CONDITIONS_KEY], UNKNOWN_CODE)
            tensors = {**tensors, CONDITIONS_KEY: unknown}
        outputs, _ = self.module(tensors, compute_loss=False)
        return outputs["z"].cpu().numpy()

    def _label_codes(self) -> NDArray[np.int64]:
        """Return label codes of the model's AnnData; unlabelled cells have the last code."""
        codes = self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)
        return np.asarray(codes).ravel().astype(np.int64)

    def _check_selection(self, adata: AnnData, positions: NDArray[np.intp]) -> None:
        """Warn about cells of unknown batches, for which a query model is not adapted."""
        if self.query_record is None or adata is self.adata or self.module.needs_batch:
            return
        unknown = describe_unknown(self.conditions, adata.obs.iloc[positions])
        if unknown:
            warnings.warn(
                "This model was adapted to batches of a query, but the batches of these cells are "
                f"unknown, and predictions are those without adaptation: {' '.join(unknown)}",
                UserWarning,
                stacklevel=4,
            )

    def _find_indices(self) -> None:
        """Find the training and held-out cells among those that the model was loaded with."""
        record = self.training_record
        if record is None:
            return
        parts = {"train": record.trained, "validation": record.held_out, "test": record.set_aside}
        for part, wanted in parts.items():
            name = f"{part}_indices_"
            before = getattr(self, name)
            if before is None:
                continue
            found = find_cells(self._select(None), wanted, before, self.gene_names).positions
            if not np.array_equal(found, np.sort(before)):
                setattr(self, name, found)
