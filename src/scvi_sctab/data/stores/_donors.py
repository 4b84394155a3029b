"""Split of a corpus by donor, and nested subsamples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = "train", "val", "test"
PARTS = (TRAIN, VALIDATION, TEST)


def check_shares(shares: Sequence[float]) -> None:
    """Refuse shares that are not three numbers whose sum is 1.

    Parameters
    ----------
    shares
        For training, validation and test.
    """
    if len(shares) != len(PARTS) or min(shares) < 0 or not math.isclose(sum(shares), 1):
        raise ValueError(f"{shares=}: give shares for training, validation and test; sum 1.")


def split_donors(
    donors: pd.Series, shares: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 1
) -> pd.Categorical:
    """Assign whole donors to training, validation and test, as in scTab :cite:p:`Fischer24`.

    Parameters
    ----------
    donors
        Donor of each cell, ``(n_cells,)``; a cell without one counts as a donor of its own.
    shares
        Shares of donors for training, validation and test. The numbers for validation and test
        are rounded up; all others are for training.
    seed
        Seed of the draw.

    Returns
    -------
    ``"train"``, ``"val"`` or ``"test"`` of each cell, ``(n_cells,)``.

    Raises
    ------
    ValueError
        If the shares are not three non-negative numbers whose sum is 1, or there are too few
        donors for a part that has a share.

    Notes
    -----
    NOTE[DIFF] Donors are drawn in the order of their names; the original draws them in the order
    of the cells, so that it depends on the order of files.
    """
    check_shares(shares)
    names = pd.Series(donors, dtype=object).reset_index(drop=True)
    missing = names.isna()
    codes, _ = pd.factorize(names[~missing].astype(str), sort=True)
    order = np.empty(len(names), dtype=np.int64)
    order[~missing] = codes
    n_named = int(codes.max()) + 1 if len(codes) else 0
    order[missing] = n_named + np.arange(int(missing.sum()))
    n_donors = n_named + int(missing.sum())
    n_held = [math.ceil(share * n_donors - 1e-9) for share in shares[1:]]
    if sum(n_held) >= n_donors and n_donors:
        raise ValueError(
            f"{n_donors} donors are too few for a split of {shares}: none is left for training. Split later, `shares=None`."
        )
    shuffled = np.random.default_rng(seed).permutation(n_donors)
    part_of_donor = np.zeros(n_donors, dtype=np.int64)
    n_train = n_donors - sum(n_held)
    part_of_donor[shuffled[n_train : n_train + n_held[0]]] = 1
    part_of_donor[shuffled[n_train + n_held[0] :]] = 2
    return pd.Categorical.from_codes(part_of_donor[order], list(PARTS))


def subsample(
    donors: NDArray[np.int64], share: float, *, by: str = "donors", seed: int = 1
) -> NDArray[np.bool_]:
    """Choose a share of donors or of cells; a smaller share is part of a larger one.

    Parameters
    ----------
    donors
        Code of the donor of each cell, ``(n_cells,)``.
    share
        Share to keep, in (0, 1].
    by
        ``"donors"`` keeps whole donors, ``"cells"`` keeps cells of all donors.
    seed
        Seed of the order in which donors or cells are taken.

    Returns
    -------
    Mask of the cells to keep, ``(n_cells,)``.

    Raises
    ------
    ValueError
        If ``share`` is not in (0, 1], or ``by`` is neither ``"donors"`` nor ``"cells"``.

    Examples
    --------
    >>> donors = np.repeat(np.arange(10), 3)
    >>> small, large = subsample(donors, 0.2), subsample(donors, 0.5)
    >>> int(small.sum()), int(large.sum()), bool((small <= large).all())
    (6, 15, True)
    """
    if not 0 < share <= 1:
        raise ValueError(f"{share=} is not in (0, 1].")
    if by not in ("donors", "cells"):
        raise ValueError(f"{by=} is neither 'donors' nor 'cells'.")
    units, codes = np.unique(donors, return_inverse=True)
    if by == "cells":
        codes = np.arange(len(donors))
    n_units = len(donors) if by == "cells" else len(units)
    kept = np.zeros(n_units, dtype=bool)
    order = np.random.default_rng(seed).permutation(n_units)
    kept[order[: math.ceil(share * n_units - 1e-9)]] = True
    return kept[codes]
