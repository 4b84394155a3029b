"""Masks of genes: those that an encoder sees, and those that a decoder reconstructs."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from scvi_sctab.nn._masking import (
    HiddenGenes,
    check_targets,
    draw_targets,
    hide_genes,
    values_of,
)
from scvi_sctab.sparse import CSR

_LARGEST_FACTOR = 10.0


class RandomMask(nn.Module):
    """Hide each gene of each cell with the same probability, by :func:`hide_genes`.

    For sparse cells, random numbers are drawn for nonzeros and targets only, so that the same
    generator hides other genes than in dense cells.

    Parameters
    ----------
    rate
        Probability, in ``(0, 1)``.
    n_targets
        Number of genes to reconstruct, drawn at each call; all if not given.

    Raises
    ------
    ValueError
        If no gene would be hidden, or all, or there are no targets.

    Examples
    --------
    >>> import torch
    >>> visible, hidden = RandomMask(rate=0.5)(torch.rand(32, 100))
    >>> visible.shape, hidden.entries.shape
    (torch.Size([32, 100]), torch.Size([32, 100]))
    """

    def __init__(self, rate: float = 0.5, n_targets: int | None = None) -> None:
        super().__init__()
        if not 0 < rate < 1:
            raise ValueError(f"{rate=} is not in (0, 1): hide some genes and show some.")
        check_targets(n_targets)
        self.rate, self.n_targets = rate, n_targets

    def forward(
        self, x: Tensor | CSR, generator: Generator | None = None
    ) -> tuple[Tensor | CSR, HiddenGenes]:
        """Hide genes of log-normalised expression, ``(n_cells, n_genes)``."""
        return hide_genes(x, self.rate, self.n_targets, generator)


class _ProgrammeMask(nn.Module):
    """Base of the masks by gene programme.

    Visible values are divided by the visible share of the cell's genes, as in dropout.
    NOTE[DIFF] The factor is at most 10. For one programme of 50 among 14,000 genes the original
    would multiply log-normalised expression by 280, far outside the range of complete cells.

    Parameters
    ----------
    programmes
        Genes of each programme, ``(n_programmes, n_genes)``, boolean.
    """

    programmes: Tensor

    def __init__(self, programmes: Tensor) -> None:
        super().__init__()
        _check_programmes(programmes)
        self.register_buffer("programmes", programmes.clone())

    def forward(
        self, x: Tensor | CSR, generator: Generator | None = None
    ) -> tuple[Tensor | CSR, HiddenGenes]:
        """Draw the hidden genes of each cell.

        Parameters
        ----------
        x
            Log-normalised expression, ``(n_cells, n_genes)``.
        generator
            Source of randomness on the device of ``x``; torch's own if not given.

        Returns
        -------
        Visible expression, ``(n_cells, n_genes)``, dense or sparse as ``x``, and the targets of
        the decoder. The same generator hides the same genes of dense and of sparse cells.

        Raises
        ------
        ValueError
            If the cells have another number of genes than the programmes.
        """
        n_cells, n_genes = x.shape
        if n_genes != self.programmes.shape[1]:
            raise ValueError(
                f"Cells of {n_genes:,} genes, but programmes of {self.programmes.shape[1]:,}. "
                "Match the programmes to the genes of these cells."
            )
        hidden, genes, entries = self._draw(n_cells, generator)
        return _show(x, hidden), HiddenGenes(genes, values_of(x, genes), entries)

    def _draw(self, n_cells: int, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Draw hidden entries, ``(n_cells, n_genes)``, the targets, and the scored entries."""
        raise NotImplementedError

    def _rand(self, n_cells: int, generator: Generator | None) -> Tensor:
        """Draw a random number per cell and programme, ``(n_cells, n_programmes)``."""
        shape = n_cells, len(self.programmes)
        return torch.rand(shape, generator=generator, device=self.programmes.device)

    def _all_genes(self) -> Tensor:
        return torch.arange(self.programmes.shape[1], device=self.programmes.device)


class ProgrammeMask(_ProgrammeMask):
    """Hide whole gene programmes :cite:p:`Richter24`, so that co-expressed genes are hidden, too.

    In each cell a share of the programmes is hidden, and all hidden genes are reconstructed.
    NOTE[DIFF] The original draws programmes once for all cells of a minibatch.

    Parameters
    ----------
    programmes
        Genes of each programme, ``(n_programmes, n_genes)``, boolean; a buffer.
    rate
        Share of programmes to hide, in ``(0, 1]``, rounded; at least one is hidden.
    n_targets
        Number of genes to reconstruct, drawn at each call; all if not given. Others may be hidden
        as well.

    Raises
    ------
    ValueError
        If a programme is empty, there are no programmes or no targets, ``rate`` is not in
        ``(0, 1]``, or no gene would be visible.

    Examples
    --------
    >>> import torch
    >>> programmes = torch.eye(4, dtype=torch.bool).repeat_interleave(25, dim=1)
    >>> visible, hidden = ProgrammeMask(programmes, rate=0.5)(torch.rand(32, 100) + 0.1)
    >>> (visible == 0).sum(dim=1).unique()
    tensor([50])
    """

    def __init__(
        self, programmes: Tensor, rate: float = 0.25, n_targets: int | None = None
    ) -> None:
        super().__init__(programmes)
        if not 0 < rate <= 1:
            raise ValueError(f"{rate=} is not a share in (0, 1] of the programmes.")
        check_targets(n_targets)
        self.rate, self.n_targets = rate, n_targets
        self.n_hidden = max(1, round(rate * len(programmes)))
        if self.n_hidden == len(programmes) and programmes.any(dim=0).all():
            raise ValueError(
                f"{rate=} hides all of {len(programmes)} programmes, which are all genes. "
                "Lower the rate or give more programmes."
            )

    def _draw(self, n_cells: int, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        drawn = self._rand(n_cells, generator).topk(self.n_hidden, dim=1).indices
        chosen = torch.zeros(n_cells, len(self.programmes), device=drawn.device)
        chosen.scatter_(1, drawn, 1)
        hidden = chosen @ self.programmes.to(chosen.dtype) > 0
        shape = self.programmes.shape
        genes = draw_targets(shape[1], self.n_targets, drawn.device, generator)
        return hidden, genes, hidden[:, genes]


class ProgrammeToProgrammeMask(_ProgrammeMask):
    """Show one gene programme and reconstruct another :cite:p:`Richter24`, both drawn per cell.

    Genes of both programmes are visible and not reconstructed. NOTE[DIFF] In the paper both are
    the same, which the identity solves. Pairs without genes to reconstruct are not drawn.

    Parameters
    ----------
    programmes
        Genes of each programme, ``(n_programmes, n_genes)``, boolean; a buffer.

    Raises
    ------
    ValueError
        If a programme is empty, or no programme has genes that another one lacks.

    Examples
    --------
    >>> import torch
    >>> programmes = torch.eye(4, dtype=torch.bool).repeat_interleave(25, dim=1)
    >>> visible, hidden = ProgrammeToProgrammeMask(programmes)(torch.rand(32, 100) + 0.1)
    >>> (visible != 0).sum(dim=1).unique(), hidden.entries.sum(dim=1).unique()
    (tensor([25]), tensor([25]))
    """

    pairs: Tensor

    def __init__(self, programmes: Tensor) -> None:
        super().__init__(programmes)
        members = programmes.float()
        # Whether the programme of the column has genes that the programme of the row lacks.
        pairs = members @ members.T < members.sum(dim=1)
        if not pairs.any():
            raise ValueError(
                f"{len(programmes)} programmes, none of which has genes that another lacks, so "
                "there is nothing to ask for. Give at least two different ones."
            )
        self.register_buffer("pairs", pairs)

    def _draw(self, n_cells: int, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        may_show = self.pairs.any(dim=1)
        shown = self._rand(n_cells, generator).masked_fill(~may_show, -1).argmax(dim=1)
        asked = self._rand(n_cells, generator).masked_fill(~self.pairs[shown], -1).argmax(dim=1)
        hidden = ~self.programmes[shown]
        return hidden, self._all_genes(), self.programmes[asked] & hidden


class ProgrammeToGeneMask(_ProgrammeMask):
    """Show the gene programme of a regulator and reconstruct the regulator :cite:p:`Richter24`.

    For each cell a programme is drawn; its genes except the regulator are visible, and only the
    regulator is reconstructed. Targets are the regulators, each once.

    Parameters
    ----------
    programmes
        Genes of each programme, ``(n_programmes, n_genes)``, boolean; a buffer.
    genes
        Position of the regulator of each programme, ``(n_programmes,)``, int64. A gene may
        regulate several.

    Raises
    ------
    ValueError
        If a programme is empty or has no gene but its regulator, or a regulator is not a gene.

    Examples
    --------
    >>> import torch
    >>> programmes = torch.eye(4, dtype=torch.bool).repeat_interleave(25, dim=1)
    >>> mask = ProgrammeToGeneMask(programmes, genes=torch.tensor([99, 0, 0, 1]))
    >>> visible, hidden = mask(torch.rand(32, 100))
    >>> hidden.genes, hidden.entries.sum(dim=1).unique()
    (tensor([ 0,  1, 99]), tensor([1]))
    """

    genes: Tensor

    def __init__(self, programmes: Tensor, genes: Tensor) -> None:
        super().__init__(programmes)
        _check_regulators(programmes, genes)
        self.register_buffer("genes", genes.clone())

    def _draw(self, n_cells: int, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        drawn = self._rand(n_cells, generator).argmax(dim=1)
        regulators = self.genes[drawn, None]
        hidden = (~self.programmes[drawn]).scatter(1, regulators, True)
        targets = self.genes.unique()
        return hidden, targets, targets == regulators


def _show(x: Tensor | CSR, hidden: Tensor) -> Tensor | CSR:
    """Set hidden entries, ``(n_cells, n_genes)``, boolean, to 0 and scale up the visible ones."""
    n_genes = hidden.shape[1]
    n_visible = (~hidden).sum(dim=1).to(x.dtype)
    factors = n_genes / n_visible.clamp(min=n_genes / _LARGEST_FACTOR)
    if not isinstance(x, CSR):
        return (x * factors[:, None]).masked_fill(hidden, 0)
    rows = x.rows()
    return x.with_values(x.values * factors[rows]).keep(~hidden[rows, x.columns.long()])


def _check_programmes(programmes: Tensor) -> None:
    if programmes.dtype is not torch.bool or programmes.ndim != 2:
        raise ValueError(
            "Programmes are boolean, (n_programmes, n_genes), not "
            f"{programmes.dtype} of shape {tuple(programmes.shape)}."
        )
    if not len(programmes):
        raise ValueError("There are no programmes. Give at least one.")
    empty = (~programmes.any(dim=1)).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(
            f"{len(empty)} of {len(programmes)} programmes have no genes, e.g. at {empty[:5]}. "
            "Drop them."
        )


def _check_regulators(programmes: Tensor, genes: Tensor) -> None:
    n_programmes, n_genes = programmes.shape
    if genes.shape != (n_programmes,) or genes.dtype is not torch.int64:
        raise ValueError(
            f"Regulators are one position for each of {n_programmes} programmes, int64, not "
            f"{genes.dtype} of shape {tuple(genes.shape)}."
        )
    unknown = ((genes < 0) | (genes >= n_genes)).nonzero()[:, 0].tolist()
    if unknown:
        raise ValueError(
            f"The regulators of {len(unknown)} programmes are none of {n_genes:,} genes, e.g. of "
            f"those at {unknown[:5]}. Drop these programmes."
        )
    others = programmes.scatter(1, genes[:, None], False)
    alone = (~others.any(dim=1)).nonzero()[:, 0].tolist()
    if alone:
        raise ValueError(
            f"{len(alone)} programmes have no gene but their regulator, e.g. those at "
            f"{alone[:5]}; nothing would be shown. Drop them."
        )


class NoMask(nn.Module):
    """Hide no gene and reconstruct all: the control, a plain autoencoder.

    Parameters
    ----------
    n_targets
        Number of genes to reconstruct, drawn at each call; all if not given.

    Examples
    --------
    >>> import torch
    >>> visible, hidden = NoMask()(torch.rand(32, 100))
    >>> hidden.entries.all()
    tensor(True)
    """

    def __init__(self, n_targets: int | None = None) -> None:
        super().__init__()
        check_targets(n_targets)
        self.n_targets = n_targets

    def forward(
        self, x: Tensor | CSR, generator: Generator | None = None
    ) -> tuple[Tensor | CSR, HiddenGenes]:
        """Draw targets of log-normalised expression, ``(n_cells, n_genes)``."""
        genes = draw_targets(x.shape[1], self.n_targets, x.device, generator)
        asked = torch.ones(len(x), len(genes), dtype=torch.bool, device=x.device)
        return x, HiddenGenes(genes, values_of(x, genes), asked)
