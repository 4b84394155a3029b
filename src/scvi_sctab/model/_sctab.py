"""SCTAB, in the order of its use: set up, build, train, map a query, embed.

``predict``, ``annotate``, ``evaluate``, ``calibrate`` and the other verbs that a model shares with
an ensemble are in ``_annotator.py``, ``get_markers`` and the other explanations in
``_explainer.py``, ``save`` and ``load`` in ``base/_checkpoint.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.model import SCANVI, SCVI

from scvi_sctab._config import (
    FEW_UP_TO_N_CELLS,
    PRESETS,
    EncoderName,
    MaskName,
    NetworkConfig,
    choose_preset,
    override,
)
from scvi_sctab._constants import (
    CONDITIONS_KEY,
    MIN_GENE_OVERLAP,
    N_FOLDS,
    TOTAL_KEY,
    UNKNOWN_CODE,
    UNLABELED_CATEGORY,
)
from scvi_sctab._logging import logger
from scvi_sctab._messages import warn
from scvi_sctab.annotation import AnnotationState, fit_calibration
from scvi_sctab.base import (
    BaseModel,
    Checkpoints,
    all_or_nothing,
    choose_device,
    document_cells,
    fit,
    setup_arguments,
)
from scvi_sctab.data import (
    LabeledDataSplitter,
    TrainingRecord,
    as_keys,
    cells_of_mudata,
    check_anndata,
    check_key,
    check_keywords,
    check_labels_unchanged,
    check_reference,
    check_transfer,
    count_totals,
    describe_unknown,
    find_cells,
    is_mudata,
    labelled_fields,
)
from scvi_sctab.metrics import CellLogits, check_method
from scvi_sctab.model._audit import audit
from scvi_sctab.model._celltypist import load_celltypist
from scvi_sctab.model._explainer import CellExplainer
from scvi_sctab.model._few_labels import LeftOutCells, are_all_here, leave_out_again
from scvi_sctab.model._left_out import predict_left_out
from scvi_sctab.model._mudata import columns_of, find_registered, register_mudata
from scvi_sctab.model._panel_selection import choose_panel
from scvi_sctab.model._panels import restrict_to_panel
from scvi_sctab.model._pretrained import build_on_encoder, build_on_latent_space
from scvi_sctab.model._published import load_published
from scvi_sctab.model._query_training import QueryTrainer, describe_reference
from scvi_sctab.model._records import (
    PanelRecord,
    QueryRecord,
    ReferenceStatistics,
    saved_record,
)
from scvi_sctab.model._surgery import map_query, report_surgery
from scvi_sctab.model._training import ReferenceTrainer, pretrain_encoder
from scvi_sctab.module import CellTypeClassifier, build_classifier
from scvi_sctab.nn import count_molecules, single_precision
from scvi_sctab.train import ClassifierTrainingPlan, SinglePrecisionRunner

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab._types import HasEncoder, TrainingCells
    from scvi_sctab.annotation import LabelAudit
    from scvi_sctab.base import CellReader
    from scvi_sctab.data import CellSelection, CellSplitter
    from scvi_sctab.data.stores import AtlasDataModule
    from scvi_sctab.metrics import ScalingMethod
    from scvi_sctab.model._surgery_report import SurgeryReport

# Arguments of a model that is loaded or grows: its latent space, and the code of the first batch
# of each query.
_RECORDED_ARGUMENTS = ("pretrained", "first_query_batches")


# `BaseModel` comes first: what it has of the interface of `CellExplainer` is what counts.
class SCTAB(BaseModel, CellExplainer):
    """Cell types from raw counts with scTab :cite:p:`Fischer24`.

    It learns cell types from an annotated reference and predicts them for new cells, of other
    donors and other studies. Genes are matched by name in every call.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`, or MuData by :meth:`setup_mudata`.
    preset
        ``"paper"`` has the published hyperparameters, ``"small"`` those for thousands of cells: a
        smaller TabNet with a linear path from genes to labels. ``"auto"`` is ``"paper"`` from
        200,000 labelled cells on, else ``"small"``, and is logged. ``"few"``, for up to some
        hundred labelled cells, trains no network: :meth:`train` solves a regression on genes and
        on the principal components of all cells, labelled or not, at once.
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
    # Whether the encoder was trained before this model was built on it.
    has_pretrained_encoder_ = False
    # Logits of the training cells of a fit in closed form, each by all others.
    _left_out: LeftOutCells | None = None
    # State; each part is frozen and replaced as a whole.
    training_record: TrainingRecord | None = None
    reference_statistics: ReferenceStatistics | None = None
    query_record: QueryRecord | None = None
    panel_record: PanelRecord | None = None
    # Modality of counts and of columns, where the model was set up with a MuData.
    modalities_: dict[str, str] | None = None
    # Names under which files hold it.
    training_record_ = saved_record("training_record", TrainingRecord)
    reference_ = saved_record("reference_statistics", ReferenceStatistics)
    surgery_ = saved_record("query_record", QueryRecord)
    panel_ = saved_record("panel_record", PanelRecord)

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

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        layer: str | None = None,
        labels_key: str | None = None,
        unlabeled_category: str = UNLABELED_CATEGORY,
        batch_key: str | None = None,
        donor_key: str | None = None,
        categorical_covariate_keys: str | Sequence[str] | None = None,
        modalities: Mapping[str, str] | None = None,
    ) -> None:
        """Check a reference and register where its counts and labels are.

        Parameters
        ----------
        mdata
            Reference with raw counts of genes in one modality. A model of it takes MuData and
            AnnData alike.
        layer
            Layer of that modality with raw counts; ``None`` is its ``X``.
        labels_key, unlabeled_category, batch_key, donor_key, categorical_covariate_keys
            As in :meth:`setup_anndata`. A column is one of ``mdata.obs``, else of the modality
            with counts, unless ``modalities`` says otherwise.
        modalities
            Modality by argument, as scvi-tools' other models take it:
            ``{"layer": "rna", "labels_key": "rna"}``. Only ``"layer"`` is needed.

        Raises
        ------
        KeyError
            If a modality or a column does not exist.
        TypeError
            If ``mdata`` is no MuData.
        ValueError
            As in :meth:`setup_anndata`, or if it is not said which modality holds counts.

        Examples
        --------
        >>> SCTAB.setup_mudata(
        ...     mdata, labels_key="cell_type", modalities={"layer": "rna"}
        ... )  # doctest: +SKIP
        >>> model = SCTAB(mdata)  # doctest: +SKIP
        """
        arguments = {
            "labels_key": labels_key,
            "batch_key": batch_key,
            "donor_key": donor_key,
            "categorical_covariate_keys": as_keys(
                categorical_covariate_keys, "categorical_covariate_keys"
            ),
        }
        register_mudata(cls, mdata, layer, unlabeled_category, arguments, modalities)

    _fields = staticmethod(labelled_fields)

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
        is_rebuilt = any(name in others for name in _RECORDED_ARGUMENTS)
        pretrained, first_query_batches = (others.pop(name, None) for name in _RECORDED_ARGUMENTS)
        if encoder == "celltypist" and adata is not None and not is_rebuilt:
            raise ValueError(
                "encoder='celltypist' is that of imported models: `SCTAB.from_celltypist(path)`."
            )
        if is_mudata(adata):
            adata, self.modalities_ = find_registered(type(self), adata)
        super().__init__(adata, registry)
        asked = preset
        preset = choose_preset(preset, self._n_labeled_cells())
        config = override(PRESETS[preset].network, overrides | others)
        if asked == "auto":
            few = " For so few, preset='few' is solved in a second: see the page on few labels."
            logger.info(
                f"preset='auto' took {preset!r} for {self._n_labeled_cells():,} labelled cells."
                + few * (self._n_labeled_cells() <= FEW_UP_TO_N_CELLS and not overrides)
            )
        # Record resolved values, so that later defaults do not change a saved model.
        built = (pretrained, list(first_query_batches or ()))
        self.init_params_ = {
            "kwargs": {"others": dict(zip(_RECORDED_ARGUMENTS, built, strict=True))},
            "non_kwargs": {"preset": preset, "coarse_labels": None, **config.to_kwargs()},
        }
        self.preset_, self.network_config = preset, config
        self.module = build_classifier(
            config,
            len(self.gene_names),
            len(self.labels),
            [len(condition.categories) for condition in self.conditions],
            *built,
        )
        self._summarize_as(self._summarize(config))
        coarse = {label: list(finer) for label, finer in (coarse_labels or {}).items()}
        self.annotation = AnnotationState(
            self.labels, coarse_labels=coarse, one_vs_rest=self.module.is_imported
        )

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

    @classmethod
    def from_pretrained(
        cls,
        model: SCVI | SCANVI | HasEncoder,
        labels_key: str | None = None,
        unlabeled_category: str | None = None,
        freeze_encoder: bool = False,
        *,
        adata: AnnData | None = None,
        batch_key: str | None = None,
        donor_key: str | None = None,
        preset: str = "auto",
        **overrides: Any,
    ) -> Any:
        """Build a model on the encoder of a trained one; ``model`` is left as it is.

        From a model of :mod:`scvi_sctab.pretrain`, the encoder of genes is taken over, and trained
        further unless it is frozen. Beside it runs the linear path of the preset;
        ``linear_skip=False`` goes without.

        From an SCVI or a SCANVI, TabNet reads the latent space in place of genes. Unless it is
        frozen, the autoencoder is trained further, with its evidence lower bound in the loss.
        Batches and covariates are its own, and :meth:`load_query_data` adapts it to new ones. For
        that, train it as scvi-tools advises for surgery: ``encode_covariates=True``,
        ``use_layer_norm="both"``, ``use_batch_norm="none"``.

        Parameters
        ----------
        model
            A trained model of :mod:`scvi_sctab.pretrain`, a :class:`scvi.model.SCVI` or
            :class:`scvi.model.SCANVI` with its AnnData, or another model with a method
            ``pretrained_encoder``.
        labels_key, unlabeled_category
            As in :meth:`setup_anndata`; those of ``model`` if not given.
        freeze_encoder
            Whether the encoder stays as it is. Only the embedding of a SELU encoder is
            standardised over ``adata``, once, frozen or not.
        adata
            Cells with labels, if they are others than those of ``model``; their counts in the
            same layer. Genes are matched by name. Not for an SCVI or a SCANVI.
        batch_key, donor_key
            As in :meth:`setup_anndata`; an SCVI or a SCANVI has batches of its own.
        preset, **overrides
            As of the class; for an SCVI or a SCANVI ``reconstruction_weight`` is the weight of
            the lower bound in nats per cell and gene, 1 if not given. With ``preset="few"`` a head
            on the encoder is solved, and the encoder stays as it is.

        Returns
        -------
        A model to :meth:`train`.

        Raises
        ------
        TypeError
            If ``model`` has no encoder that is known.
        RuntimeError
            If it is not trained.
        ValueError
            If there are no cells, the encoder would have another shape, ``model`` was set up in a
            way that SCTAB does not support, or as in :meth:`setup_anndata`.
        """
        given = {"labels_key": labels_key, "unlabeled_category": unlabeled_category}
        labels_setup = {name: value for name, value in given.items() if value is not None}
        if hasattr(model, "pretrained_encoder") and not isinstance(model, type):
            setup = {"batch_key": batch_key, "donor_key": donor_key, **labels_setup}
            overrides = {"freeze_encoder": freeze_encoder, **overrides}
            return build_on_encoder(cls, model, adata, setup, preset, overrides)
        if not isinstance(model, SCVI | SCANVI):
            raise TypeError(
                f"from_pretrained() takes a trained SCVI or SCANVI, a model of "
                "`scvi_sctab.pretrain`, or one with a method `pretrained_encoder`, not a "
                f"{type(model).__name__}."
            )
        if adata is not None or batch_key is not None:
            raise ValueError(
                f"A {type(model).__name__} brings its own cells and batches: train it on the "
                "labelled cells, too, and leave out `adata` and `batch_key`."
            )
        setup = {"donor_key": donor_key, **labels_setup}
        return build_on_latent_space(cls, model, freeze_encoder, setup, preset, overrides)

    @classmethod
    def from_sctab_checkpoint(
        cls,
        path: str | os.PathLike[str],
        var_names: Sequence[str],
        labels: Sequence[str],
    ) -> Any:
        """Import a published scTab checkpoint; none of its pickled code is executed.

        Parameters
        ----------
        path
            A ``.ckpt`` file, or the directory of a run, whose checkpoint with the best validation
            macro F1 is taken.
        var_names
            Genes in the order of the checkpoint: ``feature_id`` of the archive's ``var.parquet``
            for Ensembl ids, or ``feature_name`` for symbols.
        labels
            Cell types in the order of the checkpoint: ``label`` of the archive's
            ``categorical_lookup/cell_type.parquet``.

        Returns
        -------
        A trained model without an AnnData, to predict with.

        Raises
        ------
        FileNotFoundError
            If there is no checkpoint.
        ValueError
            If the file is damaged, is not a scTab TabNet checkpoint, holds anything but tensors
            and settings, or does not fit ``var_names`` and ``labels``.

        Warns
        -----
        UserWarning
            If the checkpoint does not record what its shapes do not show.

        Examples
        --------
        >>> genes = pd.read_parquet("minimal/var.parquet").feature_id  # doctest: +SKIP
        >>> types = pd.read_parquet(
        ...     "minimal/categorical_lookup/cell_type.parquet"
        ... ).label  # doctest: +SKIP
        >>> SCTAB.from_sctab_checkpoint("scTab/run5", genes, types)  # doctest: +SKIP
        """
        return load_published(cls, Path(path), var_names, labels)

    @classmethod
    def from_sctab_checkpoints(
        cls,
        path: str | os.PathLike[str],
        var_names: Sequence[str],
        labels: Sequence[str],
    ) -> list[Any]:
        """Import all runs of a published archive; see :meth:`from_sctab_checkpoint`.

        Parameters
        ----------
        path
            Directory with ``run1``, ``run2``, ...
        var_names, labels
            As in :meth:`from_sctab_checkpoint`.

        Returns
        -------
        A model per run. Their mean ``predict(soft=True)`` is scTab's deep ensemble.

        Raises
        ------
        FileNotFoundError
            If there is no run.
        ValueError
            As in :meth:`from_sctab_checkpoint`.
        """
        runs = sorted(Path(path).glob("run*"), key=lambda run: (len(run.name), run.name))
        if not runs:
            raise FileNotFoundError(f"There is no run1, run2, ... in {path}.")
        return [cls.from_sctab_checkpoint(run, var_names, labels) for run in runs]

    @classmethod
    def from_celltypist(cls, path: str | os.PathLike[str]) -> Any:
        """Import a model of CellTypist :cite:p:`DominguezConde22`; its pickle is not executed.

        The labels and ``predict(soft=True)`` are those of ``celltypist.annotate``, without
        majority voting: the probability of a label is that of the label against all others, so
        that those of a cell need not sum to one. As there, a cell is normalised by its counts over
        all genes of the query, and a gene that the query lacks contributes nothing.

        After :meth:`calibrate` on labelled cells, probabilities sum to one, and there are
        prediction sets and novelty. The model is saved and loaded as any other.

        Parameters
        ----------
        path
            A ``.pkl`` file of CellTypist.

        Returns
        -------
        A trained model without an AnnData, to predict with. Its genes are symbols; raw counts over
        all genes of a query are needed, not log-normalised expression.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file names code that a model does not need, is damaged, or is no model of
            CellTypist. Nothing of it was executed.

        Examples
        --------
        >>> model = SCTAB.from_celltypist("Immune_All_Low.pkl")  # doctest: +SKIP
        >>> model.calibrate(labelled, labels_key="cell_type")  # doctest: +SKIP
        >>> model.annotate(query)  # doctest: +SKIP
        """
        return load_celltypist(cls, Path(path))

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
        depth_augmentation: bool = False,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every_n_steps: int = 1000,
        resume: bool = False,
        datamodule: AtlasDataModule | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on the labelled cells of the reference; defaults are those of the preset.

        The weights of the epoch with the best macro F1 on held-out cells are kept. Whole donors
        are held out if a ``donor_key`` was set up.

        A query model is adapted to all cells of the query instead, by self-training: in each round
        the cells with the highest probabilities of each predicted label are trained on with that
        label, without those that look novel. A query of too few types, too unlike the reference or
        with too doubtful labels is not adapted. With ``learn_labels``, labels of the query are
        trained on as well, and it is always adapted.

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
        depth_augmentation
            Whether to thin half of the training cells to random depths, others in each step, for
            queries of shallow cells: 20 to 1,000 molecules.
        accelerator, devices
            Device for training; a GPU if there is one. Several train in a process each, with
            ``batch_size`` cells per step and device: ``devices=2, strategy="ddp"``.
        datasplitter_kwargs
            Further arguments of :class:`~scvi_sctab.data.LabeledDataSplitter`.
        plan_kwargs
            Further arguments of :class:`~scvi_sctab.train.ClassifierTrainingPlan`.
        checkpoint_dir
            Folder for the state of the training, from which a killed one continues. The order of
            the cells then depends on a seed and the epoch.
        checkpoint_every_n_steps
            Number of steps after which the state is written.
        resume
            Whether to continue from the state in ``checkpoint_dir``; without one, training starts
            from the beginning.
        datamodule
            Cells on disk to train on, for a model that was built from their registry. They are the
            model's AnnData from then on, and are held out as the corpus was split, unless
            arguments ask for another split.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, its counts are not raw, its labels have changed since
            set-up, there are no labelled cells to train on, the sizes of the parts are
            inconsistent, ``max_epochs`` is less than 1, or the state in ``checkpoint_dir`` is
            damaged or that of another training.
        FileExistsError
            If ``checkpoint_dir`` holds a state and ``resume`` is not set.
        TypeError
            If there is no such argument.
        KeyboardInterrupt
            If Ctrl-C came before the first validation; the model is not changed.

        Warns
        -----
        UserWarning
            If cells to hold out were trained on before, or a query is not adapted.

        Notes
        -----
        With ``preset="few"`` there are no steps, so that arguments about them are refused. All
        labelled cells are fitted, and calibration takes the predictions for each cell by the fit to
        all others, which are exact; a ``train_size`` holds cells out as elsewhere.

        If a model is trained again, it has the same held-out cells, unless arguments ask for
        another split. If training fails, the model is not changed. After Ctrl-C the best weights
        so far are kept, and calibrated. A training that is resumed ends with the weights that it
        would have had; one that has ended repeats the steps after its last state.
        """
        self._refuse_imported("trained")
        self._check_arguments(max_epochs, trainer_kwargs, "train", datamodule)
        check_labels_unchanged(self.adata_manager)
        self._check_own_cells()
        checkpoints = Checkpoints.of(checkpoint_dir, checkpoint_every_n_steps, resume)
        trainer_kwargs |= {"accelerator": accelerator, "devices": devices}
        if checkpoints is not None:
            trainer_kwargs["checkpoints"] = checkpoints
        datasplitter_kwargs, plan_kwargs = datasplitter_kwargs or {}, plan_kwargs or {}
        splitting = {
            "train_size": train_size,
            "validation_size": validation_size,
            "batch_size": batch_size,
            "shuffle_set_split": shuffle_set_split,
            **datasplitter_kwargs,
        }
        wants_split = train_size is not None or validation_size is not None
        wants_split |= not shuffle_set_split or "seed" in splitting
        if self._atlas is not None and not (wants_split or self.is_trained_):
            parts = self._atlas.parts(self._label_codes() < len(self.labels))
            splitting = {"external_indexing": parts, **splitting}
        if self.query_record is not None:
            if checkpoints is not None:
                raise ValueError(
                    "The training of a query model is short and has no state to continue from: "
                    "leave out `checkpoint_dir`."
                )
            asked = (train_size, validation_size, early_stopping, augment)
            if depth_augmentation or any(value is not None for value in asked):
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
                max_epochs,
                early_stopping,
                augment,
                depth_augmentation,
                splitting,
                plan_kwargs,
                trainer_kwargs,
            )
            # Statements about the model before; new ones need the training to be whole.
            self.annotation = replace(self.annotation, calibration=None)
            self.reference_statistics = None
        self.reference_statistics = describe_reference(self)
        self._calibrate_after_training()

    def calibrate_across(
        self, study_key: str, method: ScalingMethod | None = None, **train_kwargs: Any
    ) -> None:
        """Calibrate for cells of a laboratory that the reference lacks.

        A query of another laboratory is like a study that was left out, not like a donor that was:
        the model is trained again without each study in turn, and calibrated on what these models
        state about the cells of the study that they lack. Prediction sets keep their rate within
        each study, the worst included. Predicted labels do not change. Nor does novelty, if the
        model was calibrated before: there, a query is compared with what is typical of its own
        cells, see :meth:`get_novelty`.

        Parameters
        ----------
        study_key
            Column of the reference with studies, or with batches or donors. Those with 50 or more
            labelled cells count; there must be two of them.
        method
            As in :meth:`calibrate`.
        **train_kwargs
            Arguments of :meth:`train` that the model was trained with, but for those of its split
            and of its checkpoints.

        Raises
        ------
        KeyError
            If there is no such column.
        RuntimeError
            If the model is not trained.
        TypeError
            If an argument of the split or of checkpoints is given.
        ValueError
            If fewer than two studies have enough labelled cells, the cells that the model was
            trained on are not here, their labels have changed since ``setup_anndata``, its encoder
            was trained before, or it is a query model.
        """
        self._require_trained()
        if method is not None:
            check_method(method)
        held_out, codes, left_out = predict_left_out(self, study_key, train_kwargs)
        trained = self._trained_logits()
        known = self.calibration
        calibration = fit_calibration(self.annotation, held_out, codes, trained, method, left_out)
        if known is not None:
            calibration = replace(calibration, centers=known.centers, distance=known.distance)
        self.annotation = replace(self.annotation, calibration=calibration)

    def audit_labels(
        self,
        n_folds: int = N_FOLDS,
        *,
        group_key: str | None = None,
        groupby: str | Sequence[str] = (),
        **train_kwargs: Any,
    ) -> LabelAudit:
        """Find cells of the reference whose label contradicts models that never saw them.

        Donors are divided into folds. The model is trained again without each fold in turn, and
        predicts its cells, see :func:`~scvi_sctab.metrics.find_label_issues`. A temperature and
        the power of the label prior are fitted to all of these predictions. An issue is a reason
        to look at a cell: the label may be wrong, or the type hard to tell. Nothing is changed,
        and the model need not be trained.

        Parameters
        ----------
        n_folds
            Number of folds, and of trainings; as many as donors, if these are fewer.
        group_key
            Column of two or more values, which stay whole in folds. If not given, the donors or
            else the batches that were set up, if there are two; without either, cells are divided.
        groupby
            One or more further columns, such as clusters, in the groups of which issues are
            counted.
        **train_kwargs
            Arguments of :meth:`train`, but for those of its split and of its checkpoints, and
            ``early_stopping``.

        Returns
        -------
        Four data frames: ``cells``, ``labels``, ``pairs`` and ``groups``.

        Raises
        ------
        KeyError
            If there is no such column.
        TypeError
            If an argument of the split or of checkpoints is given.
        ValueError
            If the model has no cells, its labels have changed since ``setup_anndata``, its encoder
            was trained before, it is a query model, ``early_stopping`` is given, ``group_key`` has
            one value, there are fewer than two folds, or more than cells of any label, or no label
            is in two folds, because donors have labels of their own.

        Examples
        --------
        >>> audit = model.audit_labels()  # doctest: +SKIP
        >>> audit.pairs.head()  # doctest: +SKIP
        >>> first = audit.cells.sort_values("score", ascending=False)  # doctest: +SKIP
        """
        self._refuse_imported("audited")
        return audit(self, n_folds, group_key, groupby, train_kwargs)

    def pretrain(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        plan_kwargs: dict[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every_n_steps: int = 1000,
        resume: bool = False,
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
            Device for training; a GPU if there is one. Several train in a process each, with
            ``batch_size`` cells per step and device: ``devices=2, strategy="ddp"``.
        plan_kwargs
            Further arguments of :class:`~scvi_sctab.train.ClassifierTrainingPlan`.
        checkpoint_dir
            Folder for the state of the training, from which a killed one continues. The order of
            the cells then depends on a seed and the epoch.
        checkpoint_every_n_steps
            Number of steps after which the state is written.
        resume
            Whether to continue from the state in ``checkpoint_dir``; without one, training starts
            from the beginning.
        **trainer_kwargs
            Further arguments of :class:`~scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If the model has no AnnData, reads a latent space, which is pretrained already, has a
            frozen encoder, is a query model, is trained, or its counts are not raw; or if the
            state in ``checkpoint_dir`` is damaged or that of another training.
        FileExistsError
            If ``checkpoint_dir`` holds a state and ``resume`` is not set.
        """
        self._check_arguments(max_epochs, trainer_kwargs, "pretrain")
        if self.query_record is not None:
            raise ValueError("A query model is not pretrained; pretrain the reference.")
        if self.is_trained_:
            raise ValueError("This model is trained already; pretrain a new one before `train()`.")
        if not self.module.reads_genes:
            raise ValueError("This model reads a latent space, which is pretrained already.")
        if self.network_config.freeze_encoder:
            raise ValueError(
                "The encoder of this model is frozen: pretrain one with `freeze_encoder=False`."
            )
        self._check_own_cells()
        checkpoints = Checkpoints.of(checkpoint_dir, checkpoint_every_n_steps, resume)
        trainer_kwargs |= {"accelerator": accelerator, "devices": devices}
        if checkpoints is not None:
            trainer_kwargs["checkpoints"] = checkpoints
        with all_or_nothing(self):
            pretrain_encoder(self, max_epochs, batch_size, plan_kwargs or {}, trainer_kwargs)

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | None = None,
        reference_model: Any = None,
        registry: dict[str, Any] | None = None,
        policy: str | Sequence[str] = "batch",
        *,
        learn_labels: bool = False,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
        accelerator: str = "auto",
        device: int | str = "auto",
        allow_pickle: bool = False,
    ) -> Any:
        """Make a model for a query, of other batches than the reference, from a trained one.

        The model predicts at once as the reference does for cells of an unknown batch.
        :meth:`train` then adapts it to the query, without labels.

        Parameters
        ----------
        adata
            Raw counts of the query, in the layer of the reference; genes in any order. It needs
            the columns of batch and covariates that the reference was set up with; that of
            labels may be missing. Nothing is written into it: the model has counts of its own,
            ``model.adata``, which share memory if genes are the reference's already.
        reference_model
            A trained model, or the directory that one was saved to. A query model is one, too.
        registry
            In place of ``adata``, the registry of a query model of this reference.
        policy
            What training may move: ``"batch"``, only what the query's batches and new labels add,
            so that the reference's cells keep their predictions exactly (with new labels, the
            logits of the old ones); ``"head"``, the linear
            layers to the logits, too; ``"all"``; or patterns of names of parameters, such as
            ``["final_mapping.*"]``, to train beside what is new. Running statistics of batch norm
            are always kept.
        learn_labels
            Whether training learns from the labels that the query has in the reference's column
            of labels; the model grows by those that the reference does not know. If not, they are
            taken for somebody else's annotation: they change nothing and stay where they are.
        layer
            Layer of the query with raw counts, if not that of the reference; ``"X"`` is
            ``adata.X``.
        min_gene_overlap
            Share of the reference's genes below which the query is refused.
        accelerator, device
            Where to put the model.
        allow_pickle
            Whether to load a reference that was saved as ``model.pt`` only, see :meth:`load`.

        Returns
        -------
        A model of the query.

        Raises
        ------
        KeyError
            If the query lacks a column, or the layer.
        TypeError
            If ``reference_model`` is a model of another class.
        RuntimeError
            If the reference is not trained.
        ValueError
            If the policy does not exist or leaves nothing to train, a column has missing values,
            or ``X`` does not hold raw counts or too few of the reference's genes; if ``registry`` is
            not that of a query of this reference, or cells without a label are called otherwise.

        Warns
        -----
        UserWarning
            If there are new labels, or fewer than 80 % of the genes.

        Examples
        --------
        >>> query_model = SCTAB.load_query_data(query, "reference_model")  # doctest: +SKIP
        >>> query_model.train()  # doctest: +SKIP
        >>> print(query_model.surgery_report())  # doctest: +SKIP
        """
        reference = cls._load_reference(reference_model, allow_pickle, accelerator, device)
        reference._refuse_imported("adapted to a query")
        model = map_query(
            cls,
            reference,
            adata,
            registry,
            policy,
            learn_labels=learn_labels,
            layer=layer,
            min_gene_overlap=min_gene_overlap,
        )
        model.to_device(choose_device(accelerator, device))
        model.module.eval()
        return model

    def surgery_report(self) -> SurgeryReport:
        """Report what the query brought, what was trained for it, and what that changed.

        Returns
        -------
        A report with a value per field, to print as text.

        Raises
        ------
        RuntimeError
            If this is not a model of a query.
        """
        if self.query_record is None:
            raise RuntimeError(
                "This model was not made by `SCTAB.load_query_data`: there is nothing to report."
            )
        return report_surgery(self, self.query_record)

    def restrict(self, genes: Sequence[str]) -> Any:
        """Make a model that reads only the genes of a panel; this one is left as it is.

        For targeted panels and spatial data. Genes that a query lacks would count as 0 in this
        model, and the others be too large in the sum to which a cell is normalised; the restricted
        model normalises over the genes of the panel alone. In about a second, its linear path and
        the head of its encoder are fitted to the training cells, and it is calibrated on the
        held-out ones, as after training.

        ``panel_record.confusions`` of the result compares both models on held-out cells: labels
        that the panel cannot tell apart.

        Parameters
        ----------
        genes
            Names of the panel's genes, e.g. ``query.var_names``, in any order; Ensembl versions
            are ignored. Genes that the model does not know are left out, and logged.

        Returns
        -------
        A trained model with the cells of this one, of the panel's genes only. Cells of which the
        panel has no molecule are left out.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        TypeError
            If ``genes`` are not names.
        ValueError
            If the model knows fewer than ten of the genes, does not have the cells that it was
            trained on, is that of a query, reads a latent space, or was imported from CellTypist.

        Warns
        -----
        UserWarning
            If the panel tells some labels apart less well.

        Examples
        --------
        >>> panel_model = model.restrict(xenium.var_names)  # doctest: +SKIP
        >>> panel_model.panel_record.confusions.head()  # doctest: +SKIP
        >>> panel_model.annotate(xenium)  # doctest: +SKIP
        """
        return restrict_to_panel(self, genes)

    def select_panel(
        self,
        n_genes: int,
        labels: Sequence[str] | None = None,
        *,
        candidates: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Select the genes of a panel that tell labels apart, for an experiment to design.

        Genes are chosen one by one, each for the pairs of labels that the genes before it tell
        apart least, by a bound on the error of telling them apart :cite:p:`Kailath67`. It takes a
        second, and the result is the same each time; the first genes of a panel are those of a
        smaller one.

        Parameters
        ----------
        n_genes
            Number of genes, at least ten.
        labels
            Labels to tell from each other and from all others, which count as one; all if not
            given.
        candidates
            Genes to choose among, e.g. those for which there are probes; all of the model if not
            given.
        exclude
            Genes that are not chosen.

        Returns
        -------
        A row per gene in the order of choice: ``gene``, ``rank`` from 1, and the pair of labels for
        which it was chosen most: ``label``, which expresses it more, and ``against``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        TypeError
            If ``candidates`` or ``exclude`` is a single name.
        ValueError
            If there are fewer candidates than ``n_genes``, a label does not exist, or as in
            :meth:`restrict`.

        Examples
        --------
        >>> panel = model.select_panel(100, exclude=["MALAT1"])  # doctest: +SKIP
        >>> model.restrict(panel["gene"]).evaluate()  # doctest: +SKIP
        """
        return choose_panel(self, n_genes, labels, candidates, exclude)

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
        accepted = state.accepted
        self._annotation = state
        # Training masks the logits of coarse labels, and a saved model is built with them.
        masked = None if accepted is None else torch.from_numpy(accepted).to(self.module.device)
        self.module.accepted = masked
        parameters = self.init_params_
        own = {**parameters["non_kwargs"], "coarse_labels": self.coarse_labels or None}
        self.init_params_ = {**parameters, "non_kwargs": own}

    @property
    def networks(self) -> tuple[CellTypeClassifier, ...]:
        """Networks of the model: its module."""
        return (self.module,)

    @property
    def _is_adapted(self) -> bool:
        """Whether there is a query adapter beside a frozen reference."""
        record = self.query_record
        return self.module.query_paths is not None and (record is None or not record.patterns)

    @property
    def _is_left_out_in_turn(self) -> bool:
        """Whether each training cell has a prediction by all others, and none are held out."""
        solved = PRESETS[self.preset_].train.closed_form and self.query_record is None
        return solved and self.is_trained_ and not self._has_held_out()

    def _has_unseen(self) -> bool:
        return self._is_left_out_in_turn or super()._has_unseen()

    def _unseen_cells(self) -> CellSelection:
        if not self._is_left_out_in_turn:
            return super()._unseen_cells()
        cells = self._trained_cells()
        if self._left_out is None:
            self._left_out = leave_out_again(self, cells)
        return cells

    def _logits_of(
        self, cells: CellSelection, batch_size: int | None = None
    ) -> Iterator[CellLogits]:
        """Yield logits; those of training cells of a fit in closed form are by all other cells."""
        parts = super()._logits_of(cells, batch_size)
        if cells.adata is not self.adata:
            return parts
        if self._left_out is None and self._is_left_out_in_turn and are_all_here(self):
            self._unseen_cells()  # of a model that was loaded, they are found by a fit
        return parts if self._left_out is None else self._left_out.put_into(parts, cells.positions)

    def _training_cells(self, **splitting: Any) -> TrainingCells:
        """Split the model's cells into those to train on and to hold out."""
        splitting = self._loading() | splitting
        return self._data_splitter_cls(self.adata_manager, len(self.labels), **splitting)

    def _fit(
        self,
        plan: ClassifierTrainingPlan,
        splitter: TrainingCells,
        max_epochs: int,
        trainer_kwargs: dict[str, Any],
    ) -> None:
        self._was_interrupted = fit(
            self, plan, cast("CellSplitter", splitter), max_epochs, **trainer_kwargs
        )

    def _to_logits(self, tensors: dict[str, Tensor]) -> CellLogits:
        """Compute logits and reference logits of a minibatch of cells."""
        _, outputs = self.module(tensors, compute_loss=False)
        logits, of_reference = outputs["logits"], outputs["reference_logits"]
        values = logits.cpu().numpy()
        before = values if of_reference is logits else of_reference.cpu().numpy()
        n_molecules = count_molecules(tensors[REGISTRY_KEYS.X_KEY]).cpu().numpy()
        return CellLogits(values, before, before, n_molecules)

    def _latent(self, cells: CellSelection, batch_size: int | None = None) -> NDArray[np.float32]:
        return self._stack(self._embed, self.module.encoder.n_output, cells, batch_size)

    def _embed(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        """Embed a minibatch of cells, with unknown batches unless the encoder needs them."""
        if not self.module.needs_batch:
            unknown = torch.full_like(tensors[CONDITIONS_KEY], UNKNOWN_CODE)
            tensors = {**tensors, CONDITIONS_KEY: unknown}
        outputs, _ = self.module(tensors, compute_loss=False)
        return outputs["z"].cpu().numpy()

    def _read(
        self, cells: CellSelection, arrays: Mapping[str, NDArray[Any]] | None = None
    ) -> CellReader:
        """Read cells, with their counts over all genes for imported models."""
        if self.module.is_imported:
            totals = count_totals(cells.adata, cells.layer, cells.positions)
            arrays = {**(arrays or {}), TOTAL_KEY: totals}
        return super()._read(cells, arrays)

    def _refuse_imported(self, verb: str) -> None:
        """Refuse to change the weights of a model of another package."""
        if self.module.is_imported:
            raise ValueError(
                f"A model imported from CellTypist is not {verb}: it predicts, and "
                "`model.calibrate(adata)` with labelled cells adds prediction sets and novelty. "
                "Train a model of your own, `SCTAB(reference)`, for anything else."
            )

    def _label_codes(self) -> NDArray[np.int64]:
        """Return label codes of the model's AnnData; unlabelled cells have the last code."""
        codes = self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)
        return np.asarray(codes).ravel().astype(np.int64)

    def _cells_of(self, adata: Any) -> Any:
        """Take the model's modality of a MuData; anything else is left as it is."""
        if self.modalities_ is None or not is_mudata(adata):
            return adata
        columns = columns_of(self.registry["setup_args"])
        return cells_of_mudata(adata, self.modalities_, columns, required=False)

    def _check_selection(self, adata: AnnData, positions: NDArray[np.intp]) -> None:
        """Warn about cells of unknown batches, for which a query model is not adapted."""
        if self.query_record is None or adata is self.adata or self.module.needs_batch:
            return
        unknown = describe_unknown(self.conditions, adata.obs.iloc[positions])
        if unknown:
            warn(
                "This model was adapted to batches of a query, but the batches of these cells are "
                f"unknown, and predictions are those without adaptation: {' '.join(unknown)}"
            )

    def _find_indices(self) -> None:
        """Find the training and held-out cells among those that the model was loaded with."""
        record = self.training_record
        # The record of a query model is that of its reference.
        if record is None or self.query_record is not None:
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
