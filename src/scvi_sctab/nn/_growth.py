"""Transfer of weights to a larger network, and training of its new entries only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn


class NewEntries(NamedTuple):
    """Positions of the entries of a tensor that the smaller network lacks.

    Attributes
    ----------
    dim
        Dimension along which entries are new.
    positions
        Positions along this dimension.
    """

    dim: int
    positions: list[int]


def append_entries(old: Tensor, size: int, dim: int = 0) -> tuple[Tensor, NewEntries]:
    """Append the mean of its entries to a tensor.

    Parameters
    ----------
    old
        Any tensor.
    size
        New length along ``dim``.
    dim
        Dimension to lengthen.

    Raises
    ------
    ValueError
        If the tensor is already longer.

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
    """Return whether the name of a parameter matches one of the patterns, as for file names.

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
) -> Tensor | bool:
    """Return whether a parameter is trained; if in part, 1 for these entries and 0 for others."""
    if matches(name, always_frozen):
        return False
    whole = matches(name, patterns)
    if not whole and name not in new_entries:
        return False
    new = None if whole else new_entries[name]
    if new is None:
        return True
    positions = torch.tensor(new.positions, device=parameter.device)
    return torch.zeros_like(parameter).index_fill(new.dim, positions, 1)


class GradientMask:
    """Hook that multiplies a gradient by a mask.

    Parameters
    ----------
    mask
        Of the shape of the parameter. It is moved once if the trainer has moved the parameter to
        another device.
    """

    def __init__(self, mask: Tensor):
        self.mask = mask

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return the masked gradient."""
        if self.mask.device != gradient.device:
            self.mask = self.mask.to(gradient.device)
        return gradient * self.mask


def n_trained(
    module: nn.Module,
    patterns: Sequence[str],
    new_entries: Mapping[str, NewEntries | None],
    always_frozen: Sequence[str] = (),
) -> int:
    """Count the entries that are trained under :func:`frozen_but`.

    Parameters
    ----------
    module, patterns, new_entries, always_frozen
        As in :func:`frozen_but`.
    """
    total = 0
    for name, parameter in module.named_parameters():
        mask = _mask(name, parameter, patterns, new_entries, always_frozen)
        total += mask * parameter.numel() if isinstance(mask, bool) else int(mask.sum())
    return total


@contextmanager
def frozen_but(
    module: nn.Module,
    patterns: Sequence[str],
    new_entries: Mapping[str, NewEntries | None],
    always_frozen: Sequence[str] = (),
) -> Iterator[None]:
    """Freeze a network except for new entries and the parameters that match ``patterns``.

    The gradient of all other entries is exactly 0, so an optimiser without weight decay does not
    change them.

    Parameters
    ----------
    module
        The network; on exit, ``requires_grad`` of its parameters is restored.
    patterns
        Parameters to train as a whole.
    new_entries
        Parameters with new entries; ``None`` if all entries are new.
    always_frozen
        Patterns of parameters that are not trained, even if new or matched by ``patterns``.
    """
    required = {name: p.requires_grad for name, p in module.named_parameters()}
    handles = []
    for name, parameter in module.named_parameters():
        mask = _mask(name, parameter, patterns, new_entries, always_frozen)
        parameter.requires_grad_(mask is not False)
        if not isinstance(mask, bool):
            handles.append(parameter.register_hook(GradientMask(mask)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(required[name])
            parameter.grad = None
