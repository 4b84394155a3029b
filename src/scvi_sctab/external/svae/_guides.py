"""Perturbations of cells, by name: one, several or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from scvi_sctab.data import get_column, list_names, list_near_names, name_values

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

NO_CODE = -1
"""Code that fills up the perturbations of cells with fewer than others."""


class UnknownPerturbationError(ValueError):
    """Error for a perturbation that a model does not know."""


@dataclass(frozen=True)
class Guides:
    """Place of the perturbations of cells in an AnnData, and their notation.

    Attributes
    ----------
    key
        Column of ``obs`` with names of perturbations; ``None`` if they are in ``obsm``.
    obsm_key
        Key of ``obsm`` with a boolean matrix ``(n_cells, n_perturbations)``.
    control
        Name of unperturbed cells, if there are any.
    separator
        Text between the perturbations of a cell; ``None`` if names are not split.
    """

    key: str | None
    obsm_key: str | None
    control: str | None
    separator: str | None

    @classmethod
    def of_arguments(cls, arguments: dict[str, Any]) -> Guides:
        """Select among the arguments of set-up."""
        names = ("perturbation_key", "perturbation_obsm_key", "control_category", "separator")
        return cls(*(arguments[name] for name in names))

    @property
    def place(self) -> str:
        """Name of the place, for messages."""
        if self.key is not None:
            return f"`adata.obs[{self.key!r}]`"
        return f"`adata.obsm[{self.obsm_key!r}]`"

    def is_in(self, adata: AnnData) -> bool:
        """Return whether an AnnData has this column or matrix."""
        return self.key in adata.obs if self.key is not None else self.obsm_key in adata.obsm

    def parts(self, name: str) -> list[str]:
        """Split the name of a combination into perturbations, without the control.

        Parameters
        ----------
        name
            Name of a perturbation or combination.

        Returns
        -------
        Its parts, each once; none for the control.

        Raises
        ------
        ValueError
            If a part is empty.

        Examples
        --------
        >>> Guides("guide", None, "ctrl", "+").parts("IRF1 + ctrl")
        ['IRF1']
        """
        parts = [name] if self.separator is None else name.split(self.separator)
        parts = [part.strip() for part in parts] if len(parts) > 1 else parts
        if "" in parts:
            raise ValueError(
                f"{self.place}: {name!r} has an empty part; rename it, or pass another `separator=`."
            )
        return [part for part in dict.fromkeys(parts) if part != self.control]

    def join(self, names: Sequence[str]) -> str:
        """Name a combination; no names are the control.

        Parameters
        ----------
        names
            Its perturbations.
        """
        return (self.separator or "+").join(sorted(names)) or self.control or "control"

    def read(self, adata: AnnData) -> list[list[str]]:
        """List the perturbations of each cell.

        Parameters
        ----------
        adata
            Cells.

        Returns
        -------
        ``(n_cells,)``: names, none for unperturbed cells.

        Raises
        ------
        KeyError
            If there is no such column or matrix.
        ValueError
            If values are missing, or the matrix is not boolean.
        """
        if self.key is None:
            flags = self._flags(adata)
            guides: list[list[str]] = [[] for _ in range(len(flags))]
            for row, column in zip(*np.nonzero(flags.to_numpy()), strict=True):
                if flags.columns[column] != self.control:
                    guides[row].append(flags.columns[column])
            return guides
        names = name_values(get_column(adata.obs, self.key, "perturbation_key"))
        parts = [self.parts(str(name)) for name in names.categories]
        return [parts[code] for code in names.codes]

    def _flags(self, adata: AnnData) -> pd.DataFrame:
        """Check the boolean matrix of ``obsm``."""
        key = self.obsm_key
        if key not in adata.obsm:
            raise KeyError(
                f"perturbation_obsm_key={key!r} is not in `adata.obsm`, which has "
                f"{list(adata.obsm)}."
            )
        matrix = adata.obsm[key]
        if sparse.issparse(matrix):
            matrix = matrix.toarray()
        table = matrix if isinstance(matrix, pd.DataFrame) else pd.DataFrame(np.asarray(matrix))
        values = table.to_numpy()
        if pd.isna(values).any() or not np.isin(values, (0, 1)).all():
            raise ValueError(
                f"{self.place} is not boolean: it holds missing values or others than 0 and 1. "
                f"`adata.obsm[{key!r}] = adata.obsm[{key!r}] > 0`, where that is what is meant."
            )
        if table.columns.has_duplicates:
            raise ValueError(
                f"{self.place} has duplicated columns: "
                f"{list_names(table.columns[table.columns.duplicated()])}. Rename or join them."
            )
        return table.astype(bool).set_axis([str(name) for name in table.columns], axis=1)


def distinct(guides: Iterable[Sequence[str]]) -> list[str]:
    """List the perturbations that occur, sorted.

    Parameters
    ----------
    guides
        Perturbations of each cell.
    """
    return sorted({name for names in guides for name in names})


def encode_guides(
    guides: Sequence[Sequence[str]], known: Sequence[str], place: str
) -> NDArray[np.int64]:
    """Look up the codes of the perturbations of cells.

    Parameters
    ----------
    guides
        Perturbations of each cell.
    known
        Perturbations that the model knows.
    place
        Name of the place of the perturbations, for messages.

    Returns
    -------
    ``(n_cells, max(number of perturbations of a cell, 1))``, filled up with -1.

    Raises
    ------
    UnknownPerturbationError
        If the model does not know one.

    Examples
    --------
    >>> encode_guides([["A"], [], ["A", "B"]], ["A", "B"], "guides").tolist()
    [[0, -1], [-1, -1], [0, 1]]
    """
    code = {name: position for position, name in enumerate(known)}
    unknown = [name for name in distinct(guides) if name not in code]
    if unknown:
        raise UnknownPerturbationError(
            f"{place} holds perturbations that the model does not know: "
            f"{list_near_names(unknown, known)}. Give cells of them to `model.adapt(adata)`, or "
            "leave them out."
        )
    width = max([1, *map(len, guides)])
    codes = np.full((len(guides), width), NO_CODE, dtype=np.int64)
    for row, names in zip(codes, guides, strict=True):
        row[: len(names)] = [code[name] for name in names]
    return codes


def check_guides(
    guides: Sequence[Sequence[str]], where: Guides, obs_names: pd.Index, *, min_cells: int
) -> None:
    """Check that shifts can be learnt from the perturbations of cells.

    Parameters
    ----------
    guides
        Perturbations of each cell.
    where
        Their place.
    obs_names
        Names of the cells.
    min_cells
        Smallest number of cells of a perturbation.

    Raises
    ------
    ValueError
        If all cells are unperturbed, there is no control where one is named, or a perturbation has
        too few cells.
    """
    counts = pd.Series([name for names in guides for name in names], dtype=object).value_counts()
    if counts.empty:
        raise ValueError(
            f"{where.place}: all {len(guides):,} cells are controls"
            + (f" ({where.control!r})" if where.control else "")
            + ", so that there is no perturbation to learn. Set up all cells of the screen."
        )
    if where.control is not None and all(map(len, guides)):
        raise ValueError(
            f"control_category={where.control!r} is not in {where.place}: "
            f"{list_near_names([where.control], counts.index)}; it has "
            f"{list_names(counts.index)}. If the screen has no control, `control_category=None`."
        )
    few = counts[counts < min_cells]
    if len(few):
        cell = obs_names[next(i for i, names in enumerate(guides) if few.index[0] in names)]
        raise ValueError(
            f"{where.place}: {list_names(few.index)} have fewer than {min_cells} cells "
            f"({few.index[0]!r}: cell {str(cell)!r}). Leave them out, e.g. "
            f"`adata = adata[{_keep(where, [*few.index])}].copy()`."
        )


def _keep(where: Guides, few: list[str]) -> str:
    """Return the code of a mask of cells without the perturbations in ``few``."""
    if where.key is None:
        return f"~adata.obsm[{where.obsm_key!r}][{few}].any(axis=1)"
    column = f"adata.obs[{where.key!r}]"
    return f"{column}.map({column}.value_counts()).astype(int) > 1"
