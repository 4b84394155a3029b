"""Splits of cells into training, validation and test sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scvi_sctab._messages import warn

Codes = NDArray[np.int64]
_N_TRIALS = 20
# Held-out sets may differ by this share from the size asked for, to cover more labels.
_TOLERANCE = 0.75
# Largest share by which the training set may be smaller than asked for without a warning.
_MAX_SHORTFALL = 0.25


def class_weights(labels: Codes, n_labels: int, power: float = 1.0) -> NDArray[np.float32]:
    """Compute class weights ``n_cells / (n_present * n_c)``, 0 for labels without a cell.

    Parameters
    ----------
    labels
        Codes, ``(n_cells,)``; cells with codes from ``n_labels`` on are unlabelled and left out.
    n_labels
        Number of labels.
    power
        Power of the weights, which are then scaled to a mean of 1 over cells; 1 is class-balanced,
        0 gives all labels the same weight.

    Examples
    --------
    >>> class_weights(np.array([0, 0, 0, 1]), 2).round(2).tolist()
    [0.6700000166893005, 2.0]
    """
    counts = np.bincount(labels[labels < n_labels], minlength=n_labels)
    present = counts > 0
    weights = np.zeros(n_labels, dtype=np.float32)
    weights[present] = (counts.sum() / (present.sum() * counts[present])) ** power
    return (weights * (counts.sum() / (weights @ counts))).astype(np.float32)


def split_by_donor(
    labels: Codes, donors: Codes, shares: tuple[float, ...], seed: int
) -> list[NDArray[np.intp]] | None:
    """Hold out whole donors, so that no donor is in two sets and every label is in training.

    Of several random choices the best is kept: near the shares asked for, then with most labels
    in the held-out sets, then nearest to the shares. NOTE[DIFF] scTab draws donors without
    regard to their labels.

    Parameters
    ----------
    labels, donors
        Codes per cell, ``(n_cells,)``.
    shares
        Share of cells to hold out for each held-out set, e.g. ``(validation, test)``.
    seed
        Seed of the choice.

    Returns
    -------
    Positions for training and for each held-out set, or ``None`` if no choice of donors leaves
    every label in training.
    """
    n_donors = donors.max() + 1
    table = np.zeros((n_donors, labels.max() + 1), dtype=np.int64)
    np.add.at(table, (donors, labels), 1)
    rng = np.random.default_rng(seed)
    best: tuple[tuple[float, ...], NDArray[np.int64]] | None = None
    for _ in range(_N_TRIALS):
        side = _draw_sides(table, shares, rng)
        held_out = [table[side == i + 1].sum(axis=0) for i, share in enumerate(shares) if share]
        if any(counts.sum() == 0 for counts in held_out):
            continue
        covered = sum(int((counts > 0).sum()) for counts in held_out)
        asked = [share for share in shares if share]
        error = sum(abs(c.sum() / len(labels) - s) for c, s in zip(held_out, asked, strict=True))
        near = error <= _TOLERANCE * sum(asked)
        score = (near, covered, -error) if near else (near, -error, covered)
        if best is None or score > best[0]:
            best = score, side
    if best is None:
        return None
    return [np.flatnonzero(best[1][donors] == i) for i in range(len(shares) + 1)]


def _draw_sides(
    table: NDArray[np.int64], shares: tuple[float, ...], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Assign each donor (row) to a set: 0 is training, 1 and more are held out."""
    side = np.zeros(len(table), dtype=np.int64)
    left = table.sum(axis=0)
    present = left > 0
    order = rng.permutation(len(table))
    for i, share in enumerate(shares):
        wanted, held = share * table.sum(), 0
        for donor in order:
            size = table[donor].sum()
            fits = held == 0 or held + size <= 1.25 * wanted
            keeps_labels = ((left - table[donor])[present] > 0).all()
            if side[donor] == 0 and held < wanted and fits and keeps_labels:
                side[donor], held = i + 1, held + size
                left = left - table[donor]
    return side


def split_by_label(
    labels: Codes, shares: tuple[float, ...], seed: int, *, shuffle: bool = True
) -> list[NDArray[np.intp]]:
    """Hold out the same share of every label; at least one cell of each is kept in training.

    Parameters
    ----------
    labels
        Codes per cell, ``(n_cells,)``.
    shares
        Share of cells to hold out for each held-out set.
    seed
        Seed of the choice.
    shuffle
        Whether cells are held out at random; otherwise the last ones.

    Returns
    -------
    Positions for training and for each held-out set.
    """
    rng = np.random.default_rng(seed)
    sides = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        cells = np.flatnonzero(labels == label)[::-1]
        cells = rng.permutation(cells) if shuffle else cells
        start = 0
        for i, share in enumerate(shares):
            n_held = min(round(share * len(cells) + 1e-9), len(cells) - 1 - start)
            sides[cells[start : start + n_held]] = i + 1
            start += n_held
    return [np.flatnonzero(sides == i) for i in range(len(shares) + 1)]


def split_cells(
    labels: Codes,
    donors: Codes | None,
    train_size: float,
    validation_size: float | None,
    seed: int,
    *,
    shuffle: bool = True,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Split cells by donor if donors are known, else by label.

    Parameters
    ----------
    labels
        Codes per cell, ``(n_cells,)``.
    donors
        Codes per cell, ``(n_cells,)``, or ``None``.
    train_size
        Share of cells for training, in (0, 1].
    validation_size
        Share for validation; if not given, all cells that are not for training. The rest is for
        testing.
    seed
        Seed of the choice.
    shuffle
        Whether to hold out donors or cells at random; otherwise the last cells of each label.

    Returns
    -------
    Positions for training, validation and test.

    Raises
    ------
    ValueError
        If the sizes are inconsistent.

    Warns
    -----
    UserWarning
        If donors cannot be held out without losing a label, or the training set is much smaller
        than asked for.
    """
    if not 0 < train_size <= 1:
        raise ValueError(f"{train_size=} is not in (0, 1].")
    validation = 1 - train_size if validation_size is None else validation_size
    test = 1 - train_size - validation
    if validation < 0 or test < -1e-9:
        raise ValueError(f"{train_size=} and {validation_size=} sum to more than 1.")
    shares = (validation, test if test > 1e-9 else 0.0)
    parts = None
    if donors is not None and shuffle and any(shares):
        parts = split_by_donor(labels, donors, shares, seed)
        if parts is None:
            warn(
                "No donors can be held out without losing a label from training; cells are "
                "split at random within each label, so that the validation scores are too high."
            )
        elif len(parts[0]) < (1 - _MAX_SHORTFALL) * train_size * len(labels):
            warn(
                f"Holding out whole donors leaves {len(parts[0]) / len(labels):.0%} of the cells "
                f"to train on, not {train_size:.0%}: donors are large. Set up without `donor_key` "
                "to split by cell."
            )
    if parts is None:
        parts = split_by_label(labels, shares, seed, shuffle=shuffle)
    return parts[0], parts[1], parts[2]
