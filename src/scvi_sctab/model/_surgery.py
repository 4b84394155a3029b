"""Architecture surgery: a query mapped onto a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from scvi_sctab._constants import QUERY_POLICIES
from scvi_sctab._logging import logger
from scvi_sctab._messages import list_names
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

    from scvi_sctab.model._sctab import SCTAB


def map_query(
    cls: type[SCTAB],
    reference: SCTAB,
    adata: AnnData | None,
    registry: dict[str, Any] | None,
    policy: str | Sequence[str],
    *,
    learn_labels: bool,
    layer: str | None,
    min_gene_overlap: float,
) -> SCTAB:
    """Build a query model with the weights of a reference and parameters of its own.

    Parameters
    ----------
    cls
        Class of the model to build.
    reference
        Trained model.
    adata, registry, policy, learn_labels, layer, min_gene_overlap
        As of :meth:`scvi_sctab.SCTAB.load_query_data`.
    """
    if adata is None:
        if registry is None:
            raise ValueError("Give a query: `adata=`, or the registry of one, `registry=`.")
        _check_registry(registry, reference)
        query, missing = None, list[str]()
    else:
        adata = check_anndata(reference._cells_of(adata))
        place = choose_layer(adata, layer, reference.layer), min_gene_overlap
        query, missing = _set_up_query(cls, adata, reference, learn_labels, *place)
        registry = cls._registry_of(query)
    model = cls(query, registry=registry, **_arguments_of_query(reference, registry))
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
    _check_policy(model, model.query_record)
    model.is_trained_ = True
    return model


def map_members(
    members: Sequence[SCTAB], adata: AnnData, arguments: dict[str, Any]
) -> list[SCTAB]:
    """Map a query onto each member of an ensemble.

    Parameters
    ----------
    members
        Trained members.
    adata
        Cells of the query.
    arguments
        Of :meth:`SCTAB.load_query_data`.
    """
    mapped: list[SCTAB] = []
    for member in members:
        if not mapped:
            mapped.append(type(member).load_query_data(adata, member, **arguments))
            continue
        # The first one brings the genes into order; the others share its counts.
        shared = {name: value for name, value in arguments.items() if name != "layer"}
        other = type(member).load_query_data(mapped[0].adata, member, **shared)
        first, record = mapped[0].query_record, other.query_record
        if first is not None and record is not None:
            other.query_record = replace(record, missing_genes=first.missing_genes)
        mapped.append(other)
    return mapped


def _set_up_query(
    cls: type[SCTAB],
    adata: AnnData,
    reference: SCTAB,
    learn_labels: bool,
    layer: str | None,
    min_gene_overlap: float,
) -> tuple[AnnData, list[str]]:
    """Set up the counts of the query; also return the genes that it lacks."""
    setup, arguments = reference.registry["setup_args"], _condition_arguments(reference)
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
    query = query_cells(adata, layer, reference.gene_names, min_gene_overlap, into=reference.layer)
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


def _arguments_of_query(reference: SCTAB, registry: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the reference, with the first batch of the query beside those before."""
    arguments = reference._arguments()
    known, conditions = reference.conditions, registered_conditions(registry)
    if registry["setup_args"].get("batch_key") is not None:
        n_known = len(known[0].categories)
        if len(conditions[0].categories) > n_known:
            before = arguments.get("first_query_batches", ())
            arguments["first_query_batches"] = [*before, n_known]
    return arguments


def _condition_arguments(model: SCTAB) -> dict[str, str]:
    """Columns that the encoder is conditioned on, with the arguments that named them."""
    setup = model.registry["setup_args"]
    arguments = {}
    if setup.get("batch_key") is not None:
        arguments[setup["batch_key"]] = "batch_key"
    for key in setup.get("categorical_covariate_keys") or ():
        arguments.setdefault(key, "categorical_covariate_keys")
    return arguments


def _check_policy(model: SCTAB, record: QueryRecord) -> None:
    """Stop if the policy does not exist, or leaves nothing to train."""
    policy = record.policy
    names = [name for name, _ in model.module.named_parameters()]
    if isinstance(policy, str) and policy not in QUERY_POLICIES:
        raise ValueError(
            f"{policy=} is none of {', '.join(map(repr, QUERY_POLICIES))}, nor a list of "
            "patterns of names of parameters."
        )
    for pattern in policy if not isinstance(policy, str) else ():
        if pattern != "*" and not any(matches(name, [pattern]) for name in names):
            raise ValueError(f"No parameter fits the pattern {pattern!r}: {names}.")
    trainer = QueryTrainer(model, record)
    if trainer.has_objective or trainer.adapter is not None:
        return
    if "batch_key" not in _condition_arguments(model).values():
        raise ValueError(
            "The reference was set up without `batch_key`, so that a query has nothing of its "
            "own to train. Predict without adapting, `reference.predict(query)`; or set up "
            "and train the reference with `batch_key=`; or train the reference's own "
            "parameters, `policy='head'` or 'all'."
        )
    known = record.known_batches[model.conditions[0].key] if model.conditions else []
    raise ValueError(
        "Nothing is left to train: the reference knows every batch of the query, "
        f"{list_names(known)}. Predict with the reference, rename the "
        "query's batches if they are others of the same name, or train the reference's own "
        "parameters, `policy='head'` or 'all'."
    )


def report_surgery(model: SCTAB, record: QueryRecord) -> SurgeryReport:
    """Report the surgery of a query model.

    Parameters
    ----------
    model
        The model.
    record
        Its record.
    """
    known, trainer = record.reference_categories, QueryTrainer(model, record)
    return SurgeryReport(
        policy=record.policy,
        n_parameters=sum(p.numel() for p in model.module.parameters()),
        n_trained=_n_trained(trainer),
        n_genes=len(model.gene_names),
        missing_genes=list(record.missing_genes),
        new_batches={key: values[len(known[key]) :] for key, values in model.conditions},
        known_batches={key: list(values) for key, values in record.known_batches.items()},
        new_labels=[str(label) for label in model.labels[len(record.reference_labels) :]],
        **{**vars(record.training), "parameters": record.training.parameters.copy()},
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
