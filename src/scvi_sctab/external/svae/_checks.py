"""Checks of hyperparameters and arguments of training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

from scvi_sctab._config import SHIFT_TRAIN
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
        check_whole(name, arguments[name], 1)
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
        check_whole("finetune_epochs", finetune_epochs, 0)
    check_whole("n_init", n_init, 1)
    check_whole("n_starts", n_starts, 1)


def check_stages(
    reason: str | None, *, finetune_epochs: int | None = None, n_init: int = SHIFT_TRAIN.n_init
) -> None:
    """Refuse arguments of stages that a training does not have.

    Parameters
    ----------
    reason
        Why there are no such stages; ``None`` if there are.
    finetune_epochs, n_init
        Arguments of ``train``.

    Raises
    ------
    ValueError
        If one is given.
    """
    given = [] if finetune_epochs is None else [f"{finetune_epochs=}"]
    given += [] if n_init == SHIFT_TRAIN.n_init else [f"{n_init=}"]
    if reason and given:
        raise ValueError(
            f"{reason}, so that {' and '.join(given)} would have no effect. Leave it out; "
            "`max_epochs=` is the number of epochs."
        )


def check_stability(
    prior: str,
    sparsity: Sequence[float | None],
    n_seeds: int,
    finetune_epochs: int | None,
) -> None:
    """Check the arguments of a comparison of seeds.

    Parameters
    ----------
    prior
        Prior of the model.
    sparsity, n_seeds, finetune_epochs
        Arguments of ``stability``.

    Raises
    ------
    ValueError
        If the prior has no masks, there is no sparsity, one is too small or has no effect, or
        there are fewer than two seeds.
    """
    if prior != "spike_slab":
        raise ValueError(f"prior={prior!r} has no sparse masks to compare; see 'spike_slab'.")
    values = [*sparsity] if isinstance(sparsity, Iterable) else []
    if not values or any(k is not None and (not _is_number(k) or k < 1) for k in values):
        raise ValueError(f"{sparsity=}: give a list of K of at least 1, or None for the default.")
    if finetune_epochs == 0 and values != [None]:
        raise ValueError(
            f"{sparsity=} has no effect with finetune_epochs=0, where masks are the targets of the "
            "rotation. Leave one of them out."
        )
    check_whole("n_seeds", n_seeds, 2)


def check_level(level: float) -> None:
    """Check the probability of an interval.

    Parameters
    ----------
    level
        Probability.

    Raises
    ------
    ValueError
        If it is not between 0 and 1.
    """
    if not _is_number(level) or not 0 < level < 1:
        raise ValueError(f"{level=} is not between 0 and 1, e.g. 0.95.")


def check_latent(latent: int, n_latent: int, step: float | None) -> None:
    """Check the position of a latent and a distance along it.

    Parameters
    ----------
    latent, step
        Arguments of ``get_latent_genes``.
    n_latent
        Number of latents.

    Raises
    ------
    ValueError
        If there is no such latent, or the distance is not positive.
    """
    check_whole("latent", latent, 0)
    if latent >= n_latent:
        raise ValueError(f"{latent=}: the model has latents 0 to {n_latent - 1}.")
    if step is not None and (not _is_number(step) or step <= 0):
        raise ValueError(f"{step=}: give a positive distance.")


def check_whole(name: str, value: object, lowest: int) -> None:
    """Check that a value is a whole number.

    Parameters
    ----------
    name
        Name of the argument.
    value
        Its value.
    lowest
        Smallest number.

    Raises
    ------
    ValueError
        If it is not, or is too small.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
        raise ValueError(f"{name}={value!r}: give a whole number of at least {lowest}.")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
