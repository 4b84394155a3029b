"""Exponential moving average of the weights of a network."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(network: Network) -> Network:
    """Copy a network, with parameters that do not require gradients.

    Parameters
    ----------
    network
        Network to copy.
    """
    copy = deepcopy(network)
    copy.requires_grad_(False)
    return copy


@torch.no_grad()
def update_moving_average(target: nn.Module, online: nn.Module, decay: float) -> None:
    """Move a network towards another of the same layers, in place.

    Parameters
    ----------
    target
        Network that is changed. Each parameter becomes ``decay * target + (1 - decay) * online``;
        buffers, such as the statistics of batch norm, are copied, since some of them are counters.
    online
        Network that it moves towards.
    decay
        Weight of the target, in ``[0, 1]``.

    Raises
    ------
    ValueError
        If ``decay`` is not in ``[0, 1]``, or the networks do not match.

    Examples
    --------
    >>> from torch import nn
    >>> online = nn.Linear(3, 2)
    >>> target = frozen_copy(online)
    >>> update_moving_average(target, online, decay=0.99)
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"{decay=} is not in [0, 1].")
    if _shapes(target) != _shapes(online):
        raise ValueError("The networks do not match: make one of them by `frozen_copy`.")
    for weight, goal in zip(target.parameters(), online.parameters(), strict=True):
        weight.lerp_(goal, 1 - decay)
    for buffer, source in zip(target.buffers(), online.buffers(), strict=True):
        buffer.copy_(source)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}
