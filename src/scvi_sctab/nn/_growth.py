"""Carry weights over to a larger network, and train only what is new in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn


class NewEntries(NamedTuple):
    """Where a tensor holds entries that the smaller network lacks.

    Attributes
    ----------
    dim
        Dimension along which they lie.
    positions
        Their positions along it.
    """

    dim: int
    positions: list[int]


def append_entries(old: Tensor, size: int, dim: int = 0) -> tuple[Tensor, NewEntries]:
    """Lengthen a tensor by the mean of its entries.

    Parameters
    ----------
    old
        Any tensor.
    size
        Its new length along ``dim``.
    dim
        The dimension.

    Raises
    ------
    ValueError
        If the tensor is longer already.

    Examples
    --------
    >>> append_entries(torch.tensor([1.0, 3.0]), 3)
    (tensor([1., 3., 2.]), NewEntries(dim=0, positions=[2]))
    """
    n_new = size - old.shape[dim]
    if n_new < 0:
        raise ValueError(f"A tensor of shape {tuple(old.shape)} does not shrink to {size}.")
    mean = old.mean(dim=dim, keepdim=True)
    added = mean.repeat_interleave(n_new, dim=dim)
    return torch.cat([old, added], dim=dim), NewEntries(dim, list(range(size - n_new, size)))


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter's name fits one of some patterns, as of file names.

    Parameters
    ----------
    name
        Name of the parameter.
    patterns
        Patterns with ``*`` and ``?``.

    Examples
    --------
    >>> matches("final_mapping.weight", ["final_mapping.*"])
    True
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _mask(
    name: str,
    parameter: Tensor,
    patterns: Sequence[str],
    new_entries: Mapping[str, NewEntries | None],
    always_frozen: Sequence[str],
) -> Tensor | None:
    """Entries that are trained, as ones; ``None`` if none is."""
    if matches(name, always_frozen):
        return None
    whole = matches(name, patterns)
    if not whole and name not in new_entries:
        return None
    new = None if whole else new_entries[name]
    if new is None:
        return torch.ones_like(parameter)
    positions = torch.tensor(new.positions, device=parameter.device)
    return torch.zeros_like(parameter).index_fill(new.dim, positions, 1)


def _masked(mask: Tensor, gradient: Tensor) -> Tensor:
    # The trainer may have moved the network to another device since.
    return gradient * mask.to(gradient.device)


def n_trained(
    module: nn.Module,
    patterns: Sequence[str],
    new_entries: Mapping[str, NewEntries | None],
    always_frozen: Sequence[str] = (),
) -> int:
    """Count the entries that :func:`frozen_but` lets be trained.

    Parameters
    ----------
    module, patterns, new_entries, always_frozen
        As in :func:`frozen_but`.
    """
    masks = (
        _mask(name, p, patterns, new_entries, always_frozen)
        for name, p in module.named_parameters()
    )
    return sum(int(mask.sum()) for mask in masks if mask is not None)


@contextmanager
def frozen_but(
    module: nn.Module,
    patterns: Sequence[str],
    new_entries: Mapping[str, NewEntries | None],
    always_frozen: Sequence[str] = (),
) -> Iterator[None]:
    """Let gradients reach new entries and the parameters that fit ``patterns``, nothing else.

    The gradient of all other entries is exactly 0, with which no optimiser moves them as long as
    it has no weight decay.

    Parameters
    ----------
    module
        The network; on leaving, all its parameters require gradients as before.
    patterns
        Parameters to train as a whole.
    new_entries
        Parameters with new entries; ``None`` where all of them are new.
    always_frozen
        Parameters that are not trained, whatever the others say.
    """
    required = {name: p.requires_grad for name, p in module.named_parameters()}
    handles = []
    for name, parameter in module.named_parameters():
        mask = _mask(name, parameter, patterns, new_entries, always_frozen)
        parameter.requires_grad_(mask is not None)
        if mask is not None:
            handles.append(parameter.register_hook(partial(_masked, mask)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(required[name])
            parameter.grad = None
