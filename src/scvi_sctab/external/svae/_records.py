"""Record of the sparse rotation of a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from scvi_sctab.external.svae._rotation import SparseRotation


@dataclass(frozen=True, eq=False)
class RotationRecord:
    """Result of the second stage of training.

    Attributes
    ----------
    effects, targets
        Shifts in standard deviations within perturbations, and whether they exceed the threshold;
        a row per perturbation, a column per latent.
    threshold
        Absolute effect above which a latent is a target: the median over perturbations.
    criterion
        Geman-McClure criterion; the smaller, the sparser.
    share_of_starts
        Share of the starts that found the optimum. Below one half, another rotation may be as
        sparse.
    n_active
        Number of latents that are a target.
    criteria
        Criterion of each autoencoder that was trained; the smallest was kept.
    """

    effects: pd.DataFrame
    targets: pd.DataFrame
    threshold: float
    criterion: float
    share_of_starts: float
    n_active: int
    criteria: tuple[float, ...]

    @classmethod
    def of(
        cls, rotation: SparseRotation, names: list[str], criteria: tuple[float, ...]
    ) -> RotationRecord:
        """Take what is of interest from a rotation.

        Parameters
        ----------
        rotation
            The rotation.
        names
            Perturbations without the control.
        criteria
            Criteria of all autoencoders.
        """
        perturbed = np.isin(rotation.effects.index, names)
        return cls(
            effects=_name_axes(rotation.effects.loc[perturbed]),
            targets=_name_axes(rotation.targets.loc[perturbed]),
            threshold=float(np.median(rotation.threshold[perturbed])),
            criterion=rotation.criterion,
            share_of_starts=rotation.share_of_starts,
            n_active=rotation.n_active,
            criteria=criteria,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and data frames, to save."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> RotationRecord:
        """Restore the result of :meth:`to_dict`."""
        frames = {name: _name_axes(saved[name]) for name in ("effects", "targets")}
        return cls(**{**saved, **frames})


def _name_axes(table: pd.DataFrame) -> pd.DataFrame:
    # Pandas 3 has a type of strings, which a saved table gets and one of objects has not.
    named = table.set_axis([*table.index], axis=0)
    return named.rename_axis(index="perturbation", columns="latent")


@dataclass(frozen=True)
class SurgeryRecord:
    """Record of the mapping of a query with new batches.

    Attributes
    ----------
    n_known
        Number of categories of batch and covariates that the reference knew.
    """

    n_known: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, to save."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> SurgeryRecord:
        """Restore the result of :meth:`to_dict`."""
        return cls(n_known=tuple(saved["n_known"]))
