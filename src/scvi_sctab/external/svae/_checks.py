"""Checks of hyperparameters and arguments of training."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from scvi_sctab.external.svae._module import LIKELIHOODS, PRIORS


def check_network(arguments: dict[str, Any]) -> None:
    """Check the hyperparameters of a model.

    Parameters
    ----------
    arguments
        Values by name.

    Raises
    ------
    ValueError
        If one is out of range.
    """
    for name in ("n_latent", "n_hidden", "n_layers"):
        _check_whole(name, arguments[name], 1)
    for name, known in (("prior", PRIORS), ("gene_likelihood", LIKELIHOODS)):
        if arguments[name] not in known:
            raise ValueError(
                f"{name}={arguments[name]!r} is none of {', '.join(map(repr, known))}."
            )
    if not 0 <= arguments["dropout_rate"] < 1:
        raise ValueError(f"dropout_rate={arguments['dropout_rate']!r} is not in [0, 1).")
    if not _is_number(arguments["beta"]) or arguments["beta"] < 0:
        raise ValueError(f"beta={arguments['beta']!r}: give a weight of at least 0.")
    sparsity = arguments["sparsity"]
    lowest = 1 if arguments["prior"] == "spike_slab" else 0
    if sparsity is not None and (not _is_number(sparsity) or sparsity < lowest):
        raise ValueError(
            f"{sparsity=}: give a number of at least {lowest}, where {lowest} is not sparse; or "
            "leave it out, and it follows from the cells."
        )


def check_training(finetune_epochs: int | None, n_init: int, n_starts: int) -> None:
    """Check the numbers of a training in stages.

    Parameters
    ----------
    finetune_epochs, n_init, n_starts
        Arguments of ``train``.

    Raises
    ------
    ValueError
        If one is not a whole number or too small.
    """
    if finetune_epochs is not None:
        _check_whole("finetune_epochs", finetune_epochs, 0)
    _check_whole("n_init", n_init, 1)
    _check_whole("n_starts", n_starts, 1)


def _check_whole(name: str, value: object, lowest: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
        raise ValueError(f"{name}={value!r}: give a whole number of at least {lowest}.")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and value == value
