"""Labels that stand for any of several finer ones."""

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
    """Mark the labels that a cell of each label may be of.

    Parameters
    ----------
    labels
        Labels of the model, ``(n_labels,)``.
    coarse_labels
        What some of them stand for; through other coarse ones, too.

    Returns
    -------
    ``(n_labels, n_labels)``; itself for a label that is not coarse.

    Raises
    ------
    ValueError
        If there is no such label, or one stands for none that can be predicted.

    Examples
    --------
    >>> accepted_labels(np.array(["CD4", "CD8", "T"]), {"T": ["CD4", "CD8"]}).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    """
    for label in (*coarse_labels, *(name for finer in coarse_labels.values() for name in finer)):
        check_label(label, labels)
    accepted = np.eye(len(labels), dtype=bool)
    is_open = ~np.isin(labels, list(coarse_labels))
    for label in coarse_labels:
        reached, left = set[str](), [label]
        while left:
            new = set(coarse_labels.get(left.pop(), ())) - reached
            reached |= new
            left += sorted(new)
        row = np.isin(labels, sorted(reached)) & is_open
        if not row.any():
            raise ValueError(
                f"coarse_labels: {label!r} stands for {list(coarse_labels[label])}, none of which "
                "can be predicted."
            )
        accepted[labels == label] = row
    return accepted


def check_label(label: str, labels: NDArray[np.str_]) -> None:
    """Stop at a label that the model does not have.

    Parameters
    ----------
    label
        The label.
    labels
        Those of the model.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    if label in labels:
        return
    near = get_close_matches(str(label), [str(name) for name in labels], n=1)
    raise ValueError(
        f"{label!r} is no label of the model"
        + (f"; did you mean {near[0]!r}?" if near else f", which has {list(map(str, labels))}.")
    )
