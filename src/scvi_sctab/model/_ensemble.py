"""SCTABEnsemble: several networks that answer as one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi import settings

from scvi_sctab._config import ENSEMBLE
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.data import TrainingRecord
from scvi_sctab.metrics import CellEvidence
from scvi_sctab.model._annotation import AnnotationMixin
from scvi_sctab.model._deletion import DeletionMixin
from scvi_sctab.model._ensemble_explanation import EnsembleExplanationMixin
from scvi_sctab.model._ensemble_files import EnsembleFilesMixin
from scvi_sctab.model._explanation import ExplanationMixin
from scvi_sctab.model._held_out import HeldOutMixin
from scvi_sctab.model._ontology import OntologyMixin
from scvi_sctab.model._refinement import RefinementMixin
from scvi_sctab.model._sctab import SCTAB
from scvi_sctab.model._uncertainty import UncertaintyMixin

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scvi.data import AnnDataManager

    from scvi_sctab.data import CellSelection
    from scvi_sctab.model._surgery_report import SurgeryReport

logger = logging.getLogger("scvi.sctab")

_TINY = 1e-30
_MEMBERS_PER_SEED = 1000


class SCTABEnsemble(
    AnnotationMixin,
    UncertaintyMixin,
    HeldOutMixin,
    OntologyMixin,
    ExplanationMixin,
    DeletionMixin,
    EnsembleExplanationMixin,
    RefinementMixin,
    EnsembleFilesMixin,
):
    """Deep ensemble of :class:`~scvi_sctab.SCTAB` :cite:p:`Lakshminarayanan17`.

    Members differ by their random start and by the order of cells; all hold out the same cells.
    The ensemble's probabilities are the mean of the members', each at its own temperature,
    calibrated on the held-out cells. How far members disagree shows what the reference does not settle.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`.
    preset, **overrides
        As of :class:`~scvi_sctab.SCTAB`, but for ``encoder_weight``: the mean of several encoders
        deserves more of a say beside the linear paths than one does, 1 if not given.
    n_members
        How many networks. Each is a :class:`~scvi_sctab.SCTAB` in ``ensemble.members``, with
        verbs that the ensemble lacks.

    Raises
    ------
    ValueError
        If there is no member, or as of :class:`~scvi_sctab.SCTAB`.

    Examples
    --------
    >>> from scvi_sctab import SCTABEnsemble, datasets
    >>> reference, query = datasets.pbmc_kang18(), datasets.pbmc3k()
    >>> SCTABEnsemble.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    >>> ensemble = SCTABEnsemble(reference)  # doctest: +SKIP
    >>> ensemble.train()  # doctest: +SKIP
    >>> query.obs = query.obs.join(ensemble.annotate(query))  # doctest: +SKIP
    """

    setup_anndata = SCTAB.setup_anndata
    setup_mudata = SCTAB.setup_mudata

    def __init__(
        self,
        adata: AnnData | None = None,
        preset: str = "auto",
        *,
        n_members: int = ENSEMBLE.n_members,
        **overrides: Any,
    ):
        if n_members < 1:
            raise ValueError(f"{n_members=}: an ensemble has at least one member.")
        overrides = {"encoder_weight": ENSEMBLE.encoder_weight, **overrides}
        self.members: list[SCTAB] = []
        for number in range(n_members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_seed(number))
                self.members.append(SCTAB(adata, preset, **overrides))

    @classmethod
    def from_members(cls, members: Sequence[SCTAB]) -> SCTABEnsemble:
        """Join models of the same genes and labels.

        The ensemble has no calibration until it is trained or :meth:`calibrate` is called; of the
        members' it takes the temperatures.

        Parameters
        ----------
        members
            Models, trained or not.

        Raises
        ------
        ValueError
            If there is none, or they differ in genes, labels, coarse labels or batches.
        """
        if not members:
            raise ValueError("An ensemble has at least one member.")
        first = members[0]
        for number, member in enumerate(members):
            for name in ("gene_names", "labels", "coarse_labels", "conditions"):
                if list(getattr(member, name)) != list(getattr(first, name)):
                    raise ValueError(
                        f"Member {number} has other {name} than the first one: an ensemble joins "
                        "models of the same reference."
                    )
        ensemble = cls.__new__(cls)
        ensemble.members = list(members)
        ensemble.hierarchy_ = first.hierarchy_
        return ensemble

    @classmethod
    def from_sctab_checkpoints(cls, path: Any, var_names: Any, labels: Any) -> SCTABEnsemble:
        """Import the runs of a published archive; see :meth:`SCTAB.from_sctab_checkpoint`.

        Parameters
        ----------
        path
            Directory with ``run1``, ``run2``, ...
        var_names, labels
            As in :meth:`SCTAB.from_sctab_checkpoint`.

        Raises
        ------
        FileNotFoundError
            If there is no run.
        ValueError
            As in :meth:`SCTAB.from_sctab_checkpoint`.
        """
        return cls.from_members(SCTAB.from_sctab_checkpoints(path, var_names, labels))

    def train(self, *args: Any, **kwargs: Any) -> None:
        """Train one member after the other, then calibrate the ensemble.

        Parameters
        ----------
        *args, **kwargs
            As of :meth:`SCTAB.train`.

        Raises
        ------
        ValueError
            As of :meth:`SCTAB.train`.
        """
        for number, member in enumerate(self.members):
            logger.info(f"Training member {number + 1} of {len(self.members)}.")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_seed(number))
                member.train(*args, **kwargs)
            if member._was_interrupted:
                self._stop_at(number + 1)
                break
        if self.members[0].surgery_ is None:
            self._calibrate_after_training()
        elif self.members[0]._patterns():  # the reference that was calibrated is not this one
            self.calibration_ = None

    def _stop_at(self, n_members: int) -> None:
        """Go on with the members that were trained when Ctrl-C came."""
        trained = [member for member in self.members if member.is_trained]
        logger.warning(
            f"Ctrl-C came while member {n_members} of {len(self.members)} was trained: the ensemble "
            f"has {len(trained)} members now."
        )
        self.members = trained

    def get_uncertainty(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Split uncertainty into what cells and what the reference leave open.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        A row per cell, in units of the entropy of not knowing at all: ``total``, the entropy of the
        mean probabilities of the members, each at its temperature; ``aleatoric``, the mean of their
        entropies; ``epistemic``, the difference, the mutual information between label and member:
        it is high where members disagree. The calibration of the ensemble, and how frequent labels
        are, come after that, so that ``total`` is not quite the ``uncertainty`` of
        :meth:`annotate`.

        Raises
        ------
        RuntimeError
            If a member is not trained.
        ValueError
            As in :meth:`predict`.
        """
        self._require_trained()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        parts = [np.zeros((0, 2))]
        for members in self._of_members(cells, batch_size):
            total, aleatoric = _entropy(members.mean(axis=0)), _entropy(members).mean(axis=0)
            parts.append(np.column_stack([total, aleatoric]))
        values = np.concatenate(parts) / np.log(len(self.labels))
        frame = pd.DataFrame(values, cells.names, ["total", "aleatoric"])
        # Rounding may leave the difference a hair below zero.
        return frame.assign(epistemic=(frame["total"] - frame["aleatoric"]).clip(lower=0))

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.float32]:
        """Embed cells by all members, side by side.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        ``(n_cells, n_members * n_d)``.

        Raises
        ------
        RuntimeError
            If a member is not trained.
        ValueError
            As in :meth:`predict`.
        """
        return self._latent(self._select(adata, indices, layer, min_gene_overlap), batch_size)

    def _latent(self, cells: CellSelection, batch_size: int | None = None) -> NDArray[np.float32]:
        latents = [member._latent(cells, batch_size) for member in self.members]
        return np.concatenate(latents, axis=1)

    def surgery_report(self) -> list[SurgeryReport]:
        """Report on each member; see :meth:`SCTAB.surgery_report`.

        Raises
        ------
        RuntimeError
            If this is not an ensemble of a query.
        """
        return [member.surgery_report() for member in self.members]

    def _of_members(
        self, cells: CellSelection, batch_size: int | None
    ) -> Iterator[NDArray[np.float32]]:
        """Yield probabilities of each member, ``(n_members, n_cells, n_labels)``."""
        for parts in self._evidence_of_members(cells, batch_size):
            yield np.stack(
                [m._tempered(part.logits) for m, part in zip(self.members, parts, strict=True)]
            )

    def _evidence_of_members(
        self, cells: CellSelection, batch_size: int | None
    ) -> Iterator[tuple[CellEvidence, ...]]:
        return zip(*(m._evidence(cells, batch_size) for m in self.members), strict=True)

    def _evidence(self, cells: CellSelection, batch_size: int | None) -> Iterator[CellEvidence]:
        """Join the evidence of the members: mean probabilities, and mean features."""
        for parts in self._evidence_of_members(cells, batch_size):
            pairs = list(zip(self.members, parts, strict=True))
            logits = _log_mean([member._tempered(part.logits) for member, part in pairs])
            before = logits
            if self._is_adapted:
                before = _log_mean([m._tempered(part.reference_logits) for m, part in pairs])
            yield CellEvidence(logits, before, np.mean([part.features for part in parts], axis=0))

    def _select(self, *args: Any, **kwargs: Any) -> CellSelection:
        return self.members[0]._select(*args, **kwargs)

    def _require_trained(self) -> None:
        for member in self.members:
            member._require_trained()

    @property
    def _is_adapted(self) -> bool:
        return self.members[0]._is_adapted

    @property
    def is_trained(self) -> bool:
        """Whether all members are trained."""
        return all(member.is_trained for member in self.members)

    def _set_coarse_labels(self, coarse_labels: dict[str, list[str]]) -> None:
        for member in self.members:
            member._set_coarse_labels(coarse_labels)

    @property
    def coarse_labels(self) -> dict[str, list[str]]:
        """Labels that stand for finer ones, and are not predicted."""
        return self.members[0].coarse_labels

    @property
    def _open_labels(self) -> NDArray[np.bool_]:
        return self.members[0]._open_labels

    def to_device(self, device: str | int) -> None:
        """Move all members to a device."""
        for member in self.members:
            member.to_device(device)

    @property
    def adata(self) -> AnnData | None:
        """Cells that the ensemble was made for."""
        return self.members[0].adata

    @property
    def adata_manager(self) -> AnnDataManager | None:
        """Manager of the cells that the ensemble was made for."""
        return self.members[0].adata_manager

    @property
    def registry(self) -> dict[str, Any]:
        """Where counts and labels are, and what they hold."""
        return self.members[0].registry

    @property
    def labels(self) -> NDArray[np.str_]:
        """Cell types that the ensemble knows."""
        return self.members[0].labels

    @property
    def gene_names(self) -> NDArray[np.str_]:
        """Genes that the ensemble reads, in its order."""
        return self.members[0].gene_names

    @property
    def train_indices(self) -> NDArray[np.intp] | None:
        """Cells that the members were trained on."""
        return self.members[0].train_indices

    @property
    def training_record(self) -> TrainingRecord | None:
        """Fingerprints of cells that any member was trained on, and that all held out."""
        records = [member.training_record for member in self.members]
        return None if None in records else TrainingRecord.join(records)

    @property
    def validation_indices(self) -> NDArray[np.intp] | None:
        """Cells that all members held out."""
        held_out = [member.validation_indices for member in self.members]
        if any(indices is None for indices in held_out):
            return None
        if any(member.adata is not self.adata for member in self.members):
            return None  # positions in different data
        return reduce(np.intersect1d, held_out[1:], np.asarray(held_out[0]))

    def __repr__(self) -> str:
        return f"SCTABEnsemble of {len(self.members)}: {self.members[0]._model_summary_string}"


def _seed(number: int) -> int:
    """Seed of a member, which no other ensemble shares."""
    return (settings.seed or 0) * _MEMBERS_PER_SEED + number


def _log_mean(probabilities: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.log(np.mean(probabilities, axis=0) + _TINY)


def _entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Entropy over the last axis, in nats."""
    p = np.asarray(probabilities, dtype=np.float64)
    return -(p * np.log(np.maximum(p, _TINY))).sum(axis=-1)
