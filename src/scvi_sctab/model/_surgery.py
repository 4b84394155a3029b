"""Architecture surgery: a query mapped onto a reference."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from scvi_sctab._constants import MIN_GENE_OVERLAP, QUERY_POLICIES
from scvi_sctab._logging import logger
from scvi_sctab._messages import list_names
from scvi_sctab.base import choose_device
from scvi_sctab.data import (
    Condition,
    check_anndata,
    check_query_conditions,
    choose_layer,
    n_labelled,
    name_as_known,
    name_values,
    query_cells,
    query_labels,
    query_registry,
    registered_conditions,
    strip_versions,
)
from scvi_sctab.model._query_training import QueryTrainer
from scvi_sctab.model._records import QueryRecord
from scvi_sctab.model._surgery_report import SurgeryReport
from scvi_sctab.nn import matches, n_trained

if TYPE_CHECKING:
    from anndata import AnnData


class SurgeryMixin:
    """Architecture surgery :cite:p:`Lotfollahi21`: parameters for a query beside frozen ones."""

    query_record: QueryRecord | None

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
        """Build a query model, for new batches, from a trained reference.

        Before training it predicts as the reference does for cells of an unknown batch.
        :meth:`train` adapts it to the query, without labels.

        Parameters
        ----------
        adata
            Raw counts of the query, in the layer of the reference; genes in any order. It needs
            the columns of batch and covariates that the reference was set up with; the column of
            labels may be missing. It is not changed: the model has a copy, ``model.adata``, which
            shares memory if the genes are those of the reference.
        reference_model
            A trained model, also a query model, or the directory that one was saved to.
        registry
            In place of ``adata``, the registry of a query model of this reference.
        policy
            Parameters of the reference to train: ``"batch"``, none, only the parameters for the
            query's batches and new labels, so that the predictions for the reference's cells do
            not change (with new labels, the logits of the old labels); ``"head"``, the linear
            layers to the logits; ``"all"``; or patterns of names of parameters, such as
            ``["final_mapping.*"]``. Running statistics of batch norm are never changed.
        learn_labels
            Whether to train on the labels of the query in the reference's column of labels; the
            model gets new labels for those that the reference does not know. If not, labels of the
            query have no effect.
        layer
            Layer of the query with raw counts, if not that of the reference; ``"X"`` is
            ``adata.X``.
        min_gene_overlap
            Gene overlap below which the query is refused.
        accelerator, device
            Device of the model.
        allow_pickle
            Whether to load a reference that was only saved as ``model.pt``, see :meth:`load`.

        Returns
        -------
        A query model.

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
            counts are not raw, the gene overlap is too small, ``registry`` is not that of a query
            model of this reference, or unlabelled cells have another name.

        Warns
        -----
        UserWarning
            If there are new labels, or the gene overlap is below 80 %.

        Examples
        --------
        >>> query_model = SCTAB.load_query_data(query, "reference_model")  # doctest: +SKIP
        >>> query_model.train()  # doctest: +SKIP
        >>> print(query_model.surgery_report())  # doctest: +SKIP
        """
        reference = cls._load_reference(reference_model, allow_pickle)
        if adata is None:
            if registry is None:
                raise ValueError("Give a query: `adata=`, or the registry of one, `registry=`.")
            _check_registry(registry, reference)
            query, missing = None, list[str]()
        else:
            adata = check_anndata(reference._cells_of(adata))
            place = choose_layer(adata, layer, reference.layer), min_gene_overlap
            query, missing = cls._set_up_query(adata, reference, learn_labels, *place)
            registry = cls._registry_of(query)
        model = cls(query, registry=registry, **cls._arguments_of_query(reference, registry))
        n_categories = [len(condition.categories) for condition in reference.conditions]
        new_entries = model.module.grow_from(reference.module.state_dict(), n_categories)
        model.annotation = reference.annotation.for_labels(model.labels)
        model.reference_statistics = reference.reference_statistics
        model.training_record = reference.training_record
        model.modalities_ = reference.modalities_
        model.query_record = QueryRecord(
            policy=policy if isinstance(policy, str) else list(policy),
            new_entries=new_entries,
            missing_genes=missing,
            reference_categories={key: list(values) for key, values in reference.conditions},
            reference_labels=[str(label) for label in reference.labels],
            known_batches=_known(reference.conditions, query),
        )
        model._check_policy(model.query_record)
        model.is_trained_ = True
        model.to_device(choose_device(accelerator, device))
        model.module.eval()
        return model

    @classmethod
    def _set_up_query(
        cls,
        adata: AnnData,
        reference: Any,
        learn_labels: bool,
        layer: str | None,
        min_gene_overlap: float,
    ) -> tuple[AnnData, list[str]]:
        """Set up a copy of the query; return it, and the genes that the query lacks."""
        setup, arguments = reference.registry["setup_args"], reference._condition_arguments()
        check_query_conditions(adata.obs, arguments)
        labels_of_query = (adata.obs, setup["labels_key"], setup["unlabeled_category"])
        labels, new_labels = None, list[str]()
        if learn_labels:
            labels, new_labels = query_labels(*labels_of_query, reference.labels)
        elif (n_cells := n_labelled(*labels_of_query)) and not cls._has_set_up(adata):
            logger.info(
                f"query.obs[{setup['labels_key']!r}] has labels of {n_cells:,} cells, which are "
                "not learnt from. To learn from them, pass `learn_labels=True`."
            )
        query = query_cells(
            adata, layer, reference.gene_names, min_gene_overlap, into=reference.layer
        )
        if labels is not None:
            query.obs[setup["labels_key"]] = pd.Categorical(labels)
        for key, known in reference.conditions:
            query.obs[key] = name_as_known(name_values(query.obs[key]), known)
        source = query_registry(reference.registry, new_labels, learn_labels=learn_labels)
        cls.setup_anndata(
            query, source_registry=source, extend_categories=True, **source["setup_args"]
        )
        present = set(strip_versions(adata.var_names))
        missing = [gene for gene in reference.gene_names if gene not in present]
        return query, missing

    @classmethod
    def _arguments_of_query(cls, reference: Any, registry: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the reference, with the first batch of the query added."""
        arguments = reference._arguments()
        known, conditions = reference.conditions, registered_conditions(registry)
        if registry["setup_args"].get("batch_key") is not None:
            n_known = len(known[0].categories)
            if len(conditions[0].categories) > n_known:
                before = arguments.get("first_query_batches", ())
                arguments["first_query_batches"] = [*before, n_known]
        return arguments

    def _condition_arguments(self) -> dict[str, str]:
        """Map the columns on which the encoder is conditioned to the names of their arguments."""
        setup = self.registry["setup_args"]
        arguments = {}
        if setup.get("batch_key") is not None:
            arguments[setup["batch_key"]] = "batch_key"
        for key in setup.get("categorical_covariate_keys") or ():
            arguments.setdefault(key, "categorical_covariate_keys")
        return arguments

    def _check_policy(self, record: QueryRecord) -> None:
        """Refuse a policy that does not exist or leaves nothing to train."""
        policy = record.policy
        names = [name for name, _ in self.module.named_parameters()]
        if isinstance(policy, str) and policy not in QUERY_POLICIES:
            raise ValueError(
                f"{policy=} is none of {', '.join(map(repr, QUERY_POLICIES))}, nor a list of "
                "patterns of names of parameters."
            )
        for pattern in policy if not isinstance(policy, str) else ():
            if pattern != "*" and not any(matches(name, [pattern]) for name in names):
                raise ValueError(f"No parameter fits the pattern {pattern!r}: {names}.")
        trainer = QueryTrainer(self, record)
        if trainer.has_objective or trainer.adapter is not None:
            return
        if "batch_key" not in self._condition_arguments().values():
            raise ValueError(
                "The reference was set up without `batch_key`, so that a query has nothing of its "
                "own to train. Predict without adapting, `reference.predict(query)`; or set up "
                "and train the reference with `batch_key=`; or train the reference's own "
                "parameters, `policy='head'` or 'all'."
            )
        known = record.known_batches[self.conditions[0].key] if self.conditions else []
        raise ValueError(
            "Nothing is left to train: the reference knows every batch of the query, "
            f"{list_names(known)}. Predict with the reference, rename the "
            "query's batches if they are others of the same name, or train the reference's own "
            "parameters, `policy='head'` or 'all'."
        )

    def surgery_report(self) -> SurgeryReport:
        """Report new batches and labels, trained parameters, and changed predictions.

        Returns
        -------
        A report with a value per field, to print as text.

        Raises
        ------
        RuntimeError
            If this is not a query model.
        """
        record = self.query_record
        if record is None:
            raise RuntimeError(
                "This model was not made by `SCTAB.load_query_data`: there is nothing to report."
            )
        known, trainer = record.reference_categories, QueryTrainer(self, record)
        return SurgeryReport(
            policy=record.policy,
            n_parameters=sum(p.numel() for p in self.module.parameters()),
            n_trained=_n_trained(trainer),
            n_genes=len(self.gene_names),
            missing_genes=list(record.missing_genes),
            new_batches={key: values[len(known[key]) :] for key, values in self.conditions},
            known_batches=dict(record.known_batches),
            new_labels=[str(label) for label in self.labels[len(record.reference_labels) :]],
            **vars(record.training),
        )


def _n_trained(trainer: QueryTrainer) -> int:
    """Count the parameters that are trained."""
    adapter, record = trainer.adapter, trainer.record
    n_in_adapter = 0 if adapter is None else sum(p.numel() for p in adapter.parameters())
    if not trainer.has_objective:
        return n_in_adapter
    module = trainer.model.module
    return n_in_adapter + n_trained(module, record.patterns, record.new_entries, trainer.frozen)


def _check_registry(registry: dict[str, Any], reference: Any) -> None:
    """Refuse a registry without the genes, or without all labels or batches of the reference."""
    probe = SimpleNamespace(registry=registry)
    cls = type(reference)
    of_query = {
        condition.key: condition.categories for condition in registered_conditions(registry)
    }
    pairs = {
        "genes": (reference.gene_names, cls.gene_names.fget(probe)),
        "labels": (reference.labels, cls.labels.fget(probe)[: len(reference.labels)]),
    }
    for key, categories in reference.conditions:
        pairs[f"categories of {key!r}"] = (categories, of_query.get(key, [])[: len(categories)])
    for name, (expected, found) in pairs.items():
        if list(expected) != list(found):
            raise ValueError(
                f"The {name} of the registry are not those of the reference: {list_names(found)}, "
                f"not {list_names(expected)}. Pass the cells instead, `adata=`, or the registry of "
                "a query model of this reference."
            )


def _known(conditions: Sequence[Condition], query: AnnData | None) -> dict[str, list[str]]:
    """List the categories that both the reference and the query have."""
    if query is None:
        return {key: [] for key, _ in conditions}
    return {key: sorted(set(categories) & set(query.obs[key])) for key, categories in conditions}
