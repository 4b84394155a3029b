"""Coarse labels, which stand for any of several finer labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def accepted_labels(
    labels: NDArray[np.str_], coarse_labels: Mapping[str, Sequence[str]]
) -> NDArray[np.bool_]:
    """Mark the predictable labels that each label stands for.

    Parameters
    ----------
    labels
        Labels of the model, ``(n_labels,)``.
    coarse_labels
        Finer labels of each coarse label; they may be coarse themselves.

    Returns
    -------
    ``(n_labels, n_labels)``, boolean, a row per label; a predictable label stands for itself.

    Raises
    ------
    ValueError
        If there is no such label, or a coarse label stands for no predictable label.

    Examples
    --------
    >>> accepted_labels(np.array(["CD4", "CD8", "T"]), {"T": ["CD4", "CD8"]}).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    """
    for label in (*coarse_labels, *(name for finer in coarse_labels.values() for name in finer)):
        check_label(label, labels)
    accepted = np.eye(len(labels), dtype=bool)
    is_predictable = ~np.isin(labels, list(coarse_labels))
    for label in coarse_labels:
        reached, left = set[str](), [label]
        while left:
            new = set(coarse_labels.get(left.pop(), ())) - reached
            reached |= new
            left += sorted(new)
        row = np.isin(labels, sorted(reached)) & is_predictable
        if not row.any():
            raise ValueError(
                f"coarse_labels: {label!r} stands for {list(coarse_labels[label])}, none of which "
                "can be predicted."
            )
        accepted[labels == label] = row
    return accepted


def check_label(label: str, labels: NDArray[np.str_]) -> None:
    """Refuse a label that the model does not have, and suggest a similar one.

    Parameters
    ----------
    label
        The label.
    labels
        Labels of the model.

    Raises
    ------
    ValueError
        If it is not a label of the model.
    """
    if label in labels:
        return
    near = get_close_matches(str(label), [str(name) for name in labels], n=1)
    raise ValueError(
        f"{label!r} is no label of the model"
        + (f"; did you mean {near[0]!r}?" if near else f", which has {list(map(str, labels))}.")
    )
