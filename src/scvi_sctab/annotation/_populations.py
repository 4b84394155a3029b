"""Test of populations of cells against the labels that a model knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from scipy.special import erf, ndtr
from scipy.stats import false_discovery_control

from scvi_sctab.annotation._profiles import Profiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_CELLS_OF_POPULATION = 20
"""Smallest population that is tested: the mean expression of fewer cells is mostly noise."""
MIN_POPULATIONS = 5
"""Smallest number of populations that can be compared with each other."""

# Standard deviations of the signs among populations of known types in queries of other laboratories,
# chosen on blood cells; `benchmarks/shift.py --parts populations` prints them.
_NOVELTY_SD, _EXCESS_SD = 0.9, 0.3
# Genes whose excess over the nearest label is averaged.
_N_GENES = 30
# Added to the standard deviation of a gene, so that genes that are hardly there do not count most.
_MIN_SD = 0.1
# Counts per 10,000, added to means before their ratio is taken.
_MIN_COUNT = 0.1
# Labels that it takes to tell a shift between laboratories from one between types.
_MIN_LABELS = 3
# Doublets: two labels explain the population, and it has more molecules than others.
_MIN_SECOND_SHARE, _MORE_MOLECULES = 0.3, 1.3
# Low quality: far fewer molecules than in other populations.
_FEW_MOLECULES = 0.5


@dataclass(frozen=True, eq=False)
class Populations:
    """Populations of a query.

    Parameters
    ----------
    codes
        Population of each cell, ``(n_cells,)``; -1 for cells of a population that is too small.
    profiles
        Log-normalised expression of the populations, over the genes of the labels.
    probabilities
        Mean probability of each label, ``(n_populations, n_labels)``; labels that a query added,
        of which no expression is known, come last.
    novelty
        Mean of ``-log(p)`` over the novelty p-values of the cells, ``(n_populations,)``; 1 for
        cells like the held-out ones.
    """

    codes: NDArray[np.intp]
    profiles: Profiles
    probabilities: NDArray[np.floating]
    novelty: NDArray[np.floating]

    @property
    def nearest(self) -> NDArray[np.intp]:
        """Code of the label with the highest mean probability, ``(n_populations,)``."""
        return self.probabilities.argmax(axis=1)

    def take(self, populations: NDArray[np.bool_]) -> Populations:
        """Select populations by a mask; codes of cells stay those of all."""
        own = self.profiles
        profiles = Profiles(own.mean[populations], own.sd[populations], own.n_cells[populations])
        probabilities, novelty = self.probabilities[populations], self.novelty[populations]
        return Populations(self.codes, profiles, probabilities, novelty)


def can_be_tested(found: Populations, labels: Profiles) -> NDArray[np.bool_]:
    """Mark populations whose nearest label has a known expression, ``(n_populations,)``.

    Parameters
    ----------
    found
        The populations.
    labels
        Expression of the labels; those without cells are not known.
    """
    n_added = max(found.probabilities.shape[1] - len(labels.n_cells), 0)
    return np.append(labels.n_cells, np.zeros(n_added, np.int64))[found.nearest] > 0


def compare_populations(found: Populations, labels: Profiles) -> pd.DataFrame:
    """Test which populations are of no label of the model.

    Two signs are joined: cells that are far from all labels, and genes that are on in a population
    and not in the label nearest to it. Each is compared with the median population of the query,
    since another laboratory shifts all of them; most populations are taken to be of known types.
    The score is the sum of the two signs above the median, each in standard deviations of
    populations of known types; the p-value takes these signs to be normal and independent.

    Parameters
    ----------
    found
        The populations.
    labels
        Expression of the labels, over the same genes.

    Returns
    -------
    A row per population: ``nearest``, the code of a label; ``novelty`` and ``excess``, the signs;
    ``score``; ``p_value``; ``q_value``, to be compared with a false discovery rate
    :cite:p:`Benjamini95`. Both are NaN for fewer than five populations. Populations nearest to a
    label without a known expression are left out, and NaN.
    """
    tested = can_be_tested(found, labels)
    frame = pd.DataFrame({"nearest": found.nearest})
    rows = _compare(found.take(tested), labels).set_axis(np.flatnonzero(tested))
    return frame.join(rows.reindex(frame.index))


def _compare(found: Populations, labels: Profiles) -> pd.DataFrame:
    excess = gene_excess(found, labels)
    n_genes = min(_N_GENES, excess.shape[1])
    highest = np.sort(excess, axis=1)[:, excess.shape[1] - n_genes :].mean(axis=1)
    score = _above_median(found.novelty) / _NOVELTY_SD + _above_median(highest) / _EXCESS_SD
    frame = pd.DataFrame({"novelty": found.novelty, "excess": highest, "score": score})
    is_enough = len(frame) >= MIN_POPULATIONS
    p_value = _p_value(score) if is_enough else np.full(len(frame), np.nan)
    q_value = false_discovery_control(p_value) if is_enough else p_value
    return frame.assign(p_value=p_value, q_value=q_value)


def gene_excess(found: Populations, labels: Profiles) -> NDArray[np.float64]:
    """Compute how far each gene of each population is above its nearest label.

    Laboratories differ in every gene. The factor by which the query's captures a gene is estimated
    from the labels that express it and the populations nearest to them, if there are three labels.

    Parameters
    ----------
    found
        The populations.
    labels
        Expression of the labels, over the same genes.

    Returns
    -------
    In standard deviations between cells, ``(n_populations, n_genes)``.
    """
    nearest, own = found.nearest, found.profiles
    before, here = labels.mean[nearest], _expected(found, labels)[nearest]
    # The factor is an estimate: anything between the two laboratories is as expected.
    above = np.maximum(own.mean - np.maximum(before, here), 0)
    below = np.minimum(own.mean - np.minimum(before, here), 0)
    pooled = np.sqrt((labels.sd[nearest] ** 2 + own.sd**2) / 2)
    return np.asarray((above + below) / (pooled + _MIN_SD))


def possible_causes(
    found: Populations,
    labels: Profiles,
    names: NDArray[np.str_],
    n_molecules: NDArray[np.floating],
) -> list[str]:
    """Say of each population whether doublets or few molecules may explain it.

    Parameters
    ----------
    found
        The populations.
    labels, names
        Expression of the labels, and their names.
    n_molecules
        Median number of molecules of the cells of each population, ``(n_populations,)``.

    Returns
    -------
    ``"doublets of A and B"`` if a mixture of two labels, the second with a share of 30 % or more,
    fits a population best, which has 1.3 times as many molecules as the median population;
    ``"low quality"`` for less than half as many; else ``""``.
    """
    if not len(n_molecules):
        return []
    # Counts add up in a doublet, not their logarithms.
    expected, own = np.expm1(_expected(found, labels)), np.expm1(found.profiles.mean)
    relative = n_molecules / np.median(n_molecules)
    causes = []
    for profile, ratio in zip(own, relative, strict=True):
        shares, _ = nnls(expected.T, profile)
        second, first = np.argsort(shares)[-2:] if len(shares) > 1 else (0, 0)
        is_mixed = shares[second] >= _MIN_SECOND_SHARE * max(shares.sum(), 1e-12)
        if first != second and is_mixed and ratio >= _MORE_MOLECULES:
            causes.append(f"doublets of {names[first]} and {names[second]}")
        else:
            causes.append("low quality" if ratio < _FEW_MOLECULES else "")
    return causes


def _expected(found: Populations, labels: Profiles) -> NDArray[np.float64]:
    """Return the expression of the labels as the laboratory of the query would measure it.

    It captures each gene more or less than the reference did, by a factor that is the median over
    labels, weighted by how much a label expresses the gene; 1 with too few labels.
    """
    nearest, own = found.nearest, found.profiles
    present = np.unique(nearest)
    if len(present) < _MIN_LABELS:
        return np.asarray(labels.mean, np.float64)
    of_label = np.stack(
        [
            np.average(own.mean[nearest == k], axis=0, weights=own.n_cells[nearest == k])
            for k in present
        ]
    )
    before, after = np.expm1(labels.mean[present]), np.expm1(of_label)
    ratio = np.log((after + _MIN_COUNT) / (before + _MIN_COUNT))
    capture = np.exp(_weighted_median(ratio, before))
    return np.log1p(capture * np.expm1(labels.mean))


def _weighted_median(
    values: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the weighted median over rows; 0 for columns without weight."""
    order = np.argsort(values, axis=0)
    total = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    middle = (total >= total[-1] / 2).argmax(axis=0)
    median = np.take_along_axis(values, np.take_along_axis(order, middle[None], axis=0), axis=0)
    return np.where(total[-1] > 0, median[0], 0.0)


def _above_median(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.maximum(values - np.median(values), 0) if len(values) else np.asarray(values)


def _p_value(score: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the chance that the positive parts of two standard normals have a larger sum."""
    one_positive = ndtr(-score)
    both_positive = (1 - erf(score / 2) ** 2) / 4
    return np.where(score > 0, one_positive + both_positive, 1.0)
