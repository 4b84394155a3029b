"""Checks of the keyword arguments of set-up, with suggestions for wrong names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import pandas as pd

# Keyword arguments that scvi-tools passes when it sets up by the registry of another model.
_TRANSFER = ("source_registry", "extend_categories", "allow_missing_labels")

_MEANT = {
    "labels_key": (
        *("label", "labels", "label_key", "annotation", "annotation_key", "annotations_key"),
        *("cell_label_key", "cell_type", "cell_type_key", "cell_types_key", "celltype"),
        *("celltype_key", "cluster_key", "groupby", "label_column", "obs_key", "y"),
    ),
    "batch_key": (
        *("assay_key", "batch", "batch_column", "batches", "batch_keys", "chemistry_key"),
        *("dataset_key", "library_key", "sample", "sample_key", "samples_key", "study_key"),
    ),
    "donor_key": (
        *("donor", "donors", "donor_id", "donor_id_key", "donor_keys", "individual_key"),
        *("patient", "patient_id", "patient_key", "subject_key"),
    ),
    "categorical_covariate_keys": (
        *("categorical_covariate_key", "categorical_covariates", "covariate_key"),
        *("covariate_keys", "covariates"),
    ),
    "layer": ("count_layer", "counts", "counts_layer", "layer_key", "layers"),
    "unlabeled_category": (
        *("unknown_category", "unlabeled", "unlabeled_label", "unlabelled_category"),
    ),
    "protein_expression_obsm_key": ("protein_key", "protein_layer", "protein_obsm_key"),
    "perturbation_key": (
        *("condition", "condition_key", "drug", "gene_target", "guide", "guide_key", "guides"),
        *("perturbation", "perturbation_column", "perturbations", "target_gene", "treatment"),
    ),
    "control_category": ("control", "control_key", "control_label", "ctrl", "reference"),
}

_CUT = (
    "cut it into groups, `adata.obs['group'] = pd.cut(adata.obs['...'], 5).astype(str)`, and pass "
    "`categorical_covariate_keys=['group']`"
)
_NORMALISED = "counts are normalised within the model; leave it out"
_ABSENT = {
    "size_factor_key": _NORMALISED,
    "size_factors": _NORMALISED,
    "target_sum": _NORMALISED,
    "use_raw": "give it the raw counts: `adata = adata.raw.to_adata()`, or `layer='...'`",
    "gene_symbols": "genes are matched by `adata.var_names`; set those",
    "protein_expression_obsm_key": "`scvi_sctab.external.ProteinPredictor` learns proteins",
    "labels_key": "it learns without labels",
    "batch_key": "it learns without batches",
    "donor_key": "it learns without donors",
}


def check_arguments(
    given: Iterable[str], known: Iterable[str], verb: str, cures: Mapping[str, str]
) -> None:
    """Refuse keyword arguments that do not exist, and suggest the right ones.

    Parameters
    ----------
    given
        Names that were given.
    known
        Names that there are.
    verb
        Name of the function, for the message.
    cures
        For names that users of other packages try: what to type instead.

    Raises
    ------
    TypeError
        If a name does not exist. The message has the cure, or the nearest name.

    Examples
    --------
    >>> check_arguments(["lr"], ["batch_size"], "train", {"lr": "`plan_kwargs={'lr': 1e-3}`"})
    Traceback (most recent call last):
        ...
    TypeError: train() has no argument 'lr': `plan_kwargs={'lr': 1e-3}`.
    """
    known = list(known)
    for name in given:
        if name in known:
            continue
        near = get_close_matches(name, known, n=1, cutoff=0.75)
        cure = cures.get(name)
        if cure is None and near:
            cure = f"did you mean {near[0]!r}?"
        end = "" if cure is not None and cure.endswith("?") else "."
        raise TypeError(f"{verb}() has no argument {name!r}" + (f": {cure}" if cure else "") + end)


def check_keywords(model: str, given: Mapping[str, object], known: Collection[str]) -> None:
    """Refuse a keyword that ``setup_anndata`` does not have, and suggest the right one.

    Parameters
    ----------
    model
        Name of the class.
    given
        Keywords beyond those of its signature.
    known
        Keywords of its signature.

    Raises
    ------
    TypeError
        If there is a keyword that scvi-tools does not pass by itself.
    """
    cures = {name: _cure(name, known) for name in given if name not in _TRANSFER}
    check_arguments(given, _TRANSFER, f"{model}.setup_anndata", cures)


def _cure(name: str, known: Collection[str]) -> str:
    """Say what to type in place of a keyword that ``setup_anndata`` does not have."""
    if name == "continuous_covariate_keys" and "categorical_covariate_keys" in known:
        return _CUT
    if name in _ABSENT:
        return _ABSENT[name]
    if "sample" in name and "donor_key" in known:
        return "did you mean `batch_key=`, of technical samples, or `donor_key=`, of people?"
    meant = [key for key, guesses in _MEANT.items() if name.lower() in guesses and key in known]
    meant = meant or get_close_matches(name, known, n=1, cutoff=0.75)
    return f"did you mean `{meant[0]}=`?" if meant else f"it has {', '.join(known)}"


def check_key(key: object, argument: str) -> None:
    """Check that an argument names one column.

    Parameters
    ----------
    key
        Value of the argument; ``None`` is no column.
    argument
        Name of the argument.

    Raises
    ------
    TypeError
        If the value is not a string.
    """
    if key is None or isinstance(key, str):
        return
    names: list[object] = []
    if isinstance(key, pd.Series):
        names = [key.name]
    elif isinstance(key, list | tuple | set | pd.Index):
        names = [*key]
    name = names[0] if names and isinstance(names[0], str) else "..."
    more = (
        ", and the others by `categorical_covariate_keys=[...]`"
        if argument == "batch_key" and len(names) > 1
        else ""
    )
    raise TypeError(
        f"{argument} is a {type(key).__name__}: give the name of one column of `adata.obs`, "
        f"`{argument}={name!r}`{more}."
    )


def as_keys(keys: object, argument: str) -> list[str] | None:
    """Turn one or several names of columns into a list; a string is one name.

    Parameters
    ----------
    keys
        Value of the argument; ``None`` is no column.
    argument
        Name of the argument.

    Raises
    ------
    TypeError
        If a key is not a string.

    Examples
    --------
    >>> as_keys("sex", "categorical_covariate_keys"), as_keys(("sex", "assay"), "keys")
    (['sex'], ['sex', 'assay'])
    """
    if keys is None:
        return None
    one = isinstance(keys, str) or not isinstance(keys, Iterable)
    listed: list[Any] = [keys] if one else [*keys]  # type: ignore[misc]
    for key in listed:
        if not isinstance(key, str):
            raise TypeError(
                f"{argument} holds a {type(key).__name__}, {key!r}: give the names of columns of "
                f"`adata.obs`, `{argument}=['...']`."
            )
    return [*dict.fromkeys(listed)]
