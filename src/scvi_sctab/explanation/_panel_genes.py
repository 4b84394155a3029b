"""Choice of genes that tell labels apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Added to variances of log-normalised expression, so that genes of few molecules do not win.
_MIN_VARIANCE = 0.1


class PanelGenes(NamedTuple):
    """Genes in the order in which they were chosen.

    Attributes
    ----------
    genes
        Positions, ``(n_chosen,)``.
    pairs
        Codes of the two labels that each gene was chosen for most, ``(n_chosen, 2)``; the first
        expresses it more.
    """

    genes: NDArray[np.intp]
    pairs: NDArray[np.intp]


def label_moments(
    x: sparse.csr_matrix, codes: NDArray[np.int64], n_labels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute mean and variance of the expression of each label.

    Parameters
    ----------
    x
        Log-normalised expression, ``(n_cells, n_genes)``.
    codes
        Codes of labels, ``(n_cells,)``.
    n_labels
        Number of labels.

    Returns
    -------
    Two arrays, ``(n_labels, n_genes)``; 0 for labels without a cell.
    """
    sizes = np.maximum(np.bincount(codes, minlength=n_labels), 1)[:, None]
    places = codes, np.arange(len(codes))
    member = sparse.csr_matrix((np.ones(len(codes)), places), (n_labels, len(codes)))
    mean = (member @ x).toarray() / sizes
    variance = (member @ x.power(2)).toarray() / sizes - mean**2
    return mean, np.maximum(variance, 0)


def choose_genes(
    mean: NDArray[np.float64], variance: NDArray[np.float64], n_chosen: int, discount: float
) -> PanelGenes:
    r"""Choose genes one by one, each for the pairs of labels that are least told apart so far.

    With the Bhattacharyya distance of a gene between two labels,
    :math:`B_g = (\mu_a - \mu_b)^2 / (4 (\sigma_a^2 + \sigma_b^2))`, the error of telling them apart
    by independent genes is at most :math:`\exp(-\sum_g B_g)` :cite:p:`Kailath67`. Each gene is the one that
    lowers the sum of this bound over all pairs most. Distances are multiplied by ``discount``, since genes
    are not independent: without it, pairs count as told apart by a few genes that say the same.

    Parameters
    ----------
    mean, variance
        Of log-normalised expression, ``(n_labels, n_genes)``.
    n_chosen
        Number of genes to choose.
    discount
        In (0, 1].

    Examples
    --------
    >>> mean = np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    >>> chosen = choose_genes(mean, np.ones_like(mean), 2, 1.0)
    >>> chosen.genes.tolist(), chosen.pairs[0].tolist()
    ([0, 2], [0, 1])
    """
    first, second = np.triu_indices(len(mean), 1)
    difference = mean[first] - mean[second]
    distance = discount / 4 * difference**2 / (variance[first] + variance[second] + _MIN_VARIANCE)
    gain = -np.expm1(-distance)
    log_bound = np.zeros(len(first))
    genes, pairs = np.empty(n_chosen, np.intp), np.empty((n_chosen, 2), np.intp)
    for i in range(n_chosen):
        # Bounds only count relative to each other.
        lowered = np.exp(log_bound - log_bound.max())[:, None] * gain
        gene = int(lowered.sum(axis=0).argmax())
        pair = int(lowered[:, gene].argmax())
        ends = first[pair], second[pair]
        genes[i], pairs[i] = gene, ends if difference[pair, gene] >= 0 else ends[::-1]
        log_bound -= distance[:, gene]
        gain[:, gene] = -np.inf
    return PanelGenes(genes, pairs)
