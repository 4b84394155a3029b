"""SCTAB: set up and build. Training, prediction, attribution and files are in its mixins."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import BaseAnnDataField, LayerField
from scvi.model.base import BaseModelClass

from scvi_sctab._config import PRESETS, NetworkConfig, choose_preset, override
from scvi_sctab._constants import DONOR_KEY, UNLABELED_CATEGORY
from scvi_sctab.base import CellsMixin, CheckpointMixin, QueryPreparationMixin, RegisteredMixin
from scvi_sctab.data import (
    LabeledDataSplitter,
    NamedJointObsField,
    NamedLabelsField,
    NamedObsField,
    as_keys,
    check_anndata,
    check_key,
    check_keywords,
    check_reference,
    check_transfer,
    is_mudata,
)
from scvi_sctab.model._adaptation import AdaptationMixin
from scvi_sctab.model._annotation import AnnotationMixin
from scvi_sctab.model._attribution import AttributionMixin
from scvi_sctab.model._captum import CaptumMixin
from scvi_sctab.model._coarse import CoarseLabelsMixin
from scvi_sctab.model._deletion import DeletionMixin
from scvi_sctab.model._explanation import ExplanationMixin
from scvi_sctab.model._held_out import HeldOutMixin
from scvi_sctab.model._mudata import MuDataMixin
from scvi_sctab.model._ontology import OntologyMixin
from scvi_sctab.model._prediction import PredictionMixin
from scvi_sctab.model._pretrained import PretrainedMixin
from scvi_sctab.model._pretraining import PretrainingMixin
from scvi_sctab.model._published import PublishedCheckpointMixin
from scvi_sctab.model._refinement import RefinementMixin
from scvi_sctab.model._surgery import SurgeryMixin
from scvi_sctab.model._training import TrainingMixin
from scvi_sctab.model._uncertainty import UncertaintyMixin
from scvi_sctab.module import CellTypeClassifier, build_classifier
from scvi_sctab.nn import single_precision
from scvi_sctab.train import ClassifierTrainingPlan, SinglePrecisionRunner

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

# A child of the host's logger, so that `scvi.settings.verbosity` governs it.
logger = logging.getLogger("scvi.sctab")


class SCTAB(
    PretrainedMixin,
    PretrainingMixin,
    TrainingMixin,
    AdaptationMixin,
    PredictionMixin,
    AnnotationMixin,
    UncertaintyMixin,
    HeldOutMixin,
    OntologyMixin,
    CoarseLabelsMixin,
    ExplanationMixin,
    AttributionMixin,
    CaptumMixin,
    DeletionMixin,
    RefinementMixin,
    SurgeryMixin,
    MuDataMixin,
    QueryPreparationMixin,
    CheckpointMixin,
    PublishedCheckpointMixin,
    RegisteredMixin,
    CellsMixin,
    BaseModelClass,
):
    """Cell types from raw counts with scTab :cite:p:`Fischer24`.

    Learns cell types from an annotated reference and predicts them for cells it has not seen, of
    other donors and other studies. Genes are matched by name in every call.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`, or MuData by :meth:`setup_mudata`.
    preset
        ``"paper"`` is the published network and recipe, ``"small"`` one for thousands of cells:
        a smaller TabNet with a linear path from genes to labels. ``"auto"`` takes ``"paper"``
        from 200,000 labelled cells on, and says which it took.
    registry
        Registry of a saved model, in place of ``adata``.
    pretrained
        What :meth:`from_pretrained` found out about an encoder.
    first_query_batches
        For each query that :meth:`load_query_data` mapped, the code of its first batch.
    coarse_labels
        Labels that stand for any of several finer ones, ``{"T cell": ["CD4 T", "CD8 T"]}``. Their
        cells are learnt from as one of these; they are not predicted. :meth:`set_ontology` finds
        what they stand for.
    **overrides
        Hyperparameters to change; the preset gives the others:

        - ``encoder`` (``"tabnet"``, ``"mlp"``, ``"linear"`` or ``"selu"``): what embeds genes.
        - ``freeze_encoder`` (bool): whether it stays as it is; for one that is pretrained.
        - ``widths`` (tuple of int): of the layers of ``"selu"``.
        - ``n_d``, ``n_a`` (int): width of the embedding, and of what steers attention.
        - ``n_steps`` (int): attention steps.
        - ``gamma`` (float): how freely later steps attend to the same gene; 1 is never.
        - ``n_independent``, ``n_shared`` (int): gated layers of each step, and of all steps.
        - ``epsilon`` (float): added to the mask within the logarithm of its entropy.
        - ``virtual_batch_size`` (int), ``momentum`` (float): of ghost batch norm.
        - ``mask_type`` (``"entmax"`` or ``"sparsemax"``): what makes attention sparse.
        - ``lambda_sparse`` (float): weight of the entropy of attention in the loss.
        - ``batch_dropout`` (float): share of training cells whose batch is withheld from the
          encoder, so that it also knows cells of unseen batches.
        - ``linear_skip`` (bool): whether a linear path runs beside the encoder.
        - ``encoder_weight`` (float): weight of the encoder's logits beside a linear path.
        - ``reconstruction_weight`` (float): weight of the loss that needs no labels.

    Raises
    ------
    TypeError
        If a hyperparameter does not exist.
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
    The user guide has the equations, and where this leaves the paper and why.
    """

    _module_cls = CellTypeClassifier
    _training_plan_cls = ClassifierTrainingPlan
    _data_splitter_cls = LabeledDataSplitter
    _train_runner_cls = SinglePrecisionRunner

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
        """Check a reference and register where its counts and labels are.

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
            Label of cells that have none; they are not learnt from.
        batch_key
            Column with technical batches (sample, assay, study), which the encoder is told. A
            query of other batches can then be mapped by :meth:`load_query_data`.
        donor_key
            Column with donors. Whole donors are then held out for validation.
        categorical_covariate_keys
            Column or columns with other categories, which the encoder is told, too.
        **kwargs
            Passed to :meth:`~scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            If a column or the layer does not exist.
        TypeError
            If there is no such argument, or a key is not the name of a column.
        ValueError
            If ``X`` does not hold raw counts, cells are empty, genes stand twice or are too few,
            a column has missing values, values that have no name or different ones of the same
            name, such as 1 and "1", or the labels cannot be learnt.

        Warns
        -----
        UserWarning
            If a label comes from one donor only, or reads as if its cells had none; if names in a
            column differ in case, spaces or Unicode form alone, or have fewer than three cells.
        """
        check_anndata(adata)
        categorical_covariate_keys = as_keys(
            categorical_covariate_keys, "categorical_covariate_keys"
        )
        setup_method_args = cls._get_setup_method_args(**locals())
        check_keywords(cls.__name__, kwargs, setup_method_args["setup_args"])
        for argument in ("labels_key", "batch_key", "donor_key"):
            check_key(setup_method_args["setup_args"][argument], argument)
        if labels_key is None:
            raise ValueError(
                f"Name the column with cell types, `labels_key=`: one of {list(adata.obs)}."
            )
        # A model that is loaded takes cells without labels, too; `train` checks what it trains on.
        if "source_registry" not in kwargs:
            columns = {"batch_key": batch_key, "donor_key": donor_key}
            check_reference(
                adata, layer, labels_key, unlabeled_category, columns, categorical_covariate_keys
            )
        else:
            setup = setup_method_args["setup_args"]
            check_transfer(adata, kwargs["source_registry"], setup, cls.__name__)
        fields = cls._fields(
            layer, labels_key, unlabeled_category, batch_key, donor_key, categorical_covariate_keys
        )
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @staticmethod
    def _fields(
        layer: str | None,
        labels_key: str,
        unlabeled_category: str,
        batch_key: str | None = None,
        donor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
    ) -> list[BaseAnnDataField]:
        """List what is registered of an AnnData."""
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
        registry: dict | None = None,
        pretrained: dict[str, Any] | None = None,
        first_query_batches: Sequence[int] = (),
        coarse_labels: Mapping[str, Sequence[str]] | None = None,
        **overrides: Any,
    ):
        if is_mudata(adata):
            adata, self.modalities_ = self._set_up_cells(adata)
        super().__init__(adata, registry)
        asked = preset
        preset = choose_preset(preset, self._n_labeled_cells())
        config = override(PRESETS[preset].network, overrides)
        if asked == "auto":
            logger.info(
                f"preset='auto' took {preset!r} for {self._n_labeled_cells():,} labelled cells."
            )
        # Record what was resolved, so that a saved model does not follow later defaults.
        overrides = config.to_kwargs()
        self.init_params_ = self._get_init_params(locals())
        self.preset_, self._network = preset, config
        self.module = build_classifier(
            config,
            len(self.gene_names),
            len(self.labels),
            [len(condition.categories) for condition in self.conditions],
            pretrained,
            first_query_batches,
        )
        self._model_summary_string = self._summarize(config)
        if coarse_labels:
            self._set_coarse_labels({k: list(v) for k, v in coarse_labels.items()})

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

    @property
    def labels(self) -> NDArray[np.str_]:
        """Cell types that the model knows, in the order of its logits."""
        state = self.registry["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
        mapping = np.asarray(state["categorical_mapping"]).astype(str)
        return mapping[mapping != str(state["unlabeled_category"])]
