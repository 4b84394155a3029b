"""Ensemble of several networks, SCTABEnsemble."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import pandas as pd
from scvi import settings

from scvi_sctab._config import ENSEMBLE, PRESETS
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab._logging import logger
from scvi_sctab.annotation import AnnotationState, same_values
from scvi_sctab.base import document_cells, is_other_process, resolve_target, seeded
from scvi_sctab.data import TrainingRecord
from scvi_sctab.metrics import CellLogits
from scvi_sctab.model._ensemble_files import (
    hash_ensemble,
    read_ensemble,
    save_ensemble,
)
from scvi_sctab.model._explainer import CellExplainer
from scvi_sctab.model._sctab import SCTAB
from scvi_sctab.model._surgery import map_members

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scvi.data import AnnDataManager
    from torch import Tensor

    from scvi_sctab.base import CellReader
    from scvi_sctab.data import CellSelection
    from scvi_sctab.model._surgery_report import SurgeryReport
    from scvi_sctab.module import CellTypeClassifier

    T = TypeVar("T")

_TINY = 1e-30
_MEMBERS_PER_SEED = 1000


class SCTABEnsemble(CellExplainer):
    """Deep ensemble of :class:`~scvi_sctab.SCTAB` :cite:p:`Lakshminarayanan17`.

    Members differ in their random start and in the order of cells; all have the same held-out
    cells. The probabilities of the ensemble are the mean of the members' probabilities, each at
    its own temperature, calibrated on the held-out cells. The differences between members show
    which cells the reference does not determine.

    Parameters
    ----------
    adata
        AnnData registered by :meth:`setup_anndata`.
    preset, **overrides
        As in :class:`~scvi_sctab.SCTAB`, except that ``encoder_weight`` is 1 if not given: the
        mean of several encoders is less noisy than one encoder.
    n_members
        Number of networks. Each is a :class:`~scvi_sctab.SCTAB` in ``ensemble.members``, with
        further verbs.

    Raises
    ------
    ValueError
        If there is no member, or as in :class:`~scvi_sctab.SCTAB`.

    Examples
    --------
    >>> from scvi_sctab import SCTABEnsemble, datasets
    >>> reference, query = datasets.pbmc_kang18(), datasets.pbmc3k()
    >>> SCTABEnsemble.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
    >>> ensemble = SCTABEnsemble(reference)  # doctest: +SKIP
    >>> ensemble.train()  # doctest: +SKIP
    >>> query.obs = query.obs.join(ensemble.annotate(query))  # doctest: +SKIP
    """

    member_class: ClassVar[type[SCTAB]] = SCTAB
    """Class of the members; a subclass of the ensemble may have another."""
    setup_anndata = SCTAB.setup_anndata
    setup_mudata = SCTAB.setup_mudata

    def __init_subclass__(cls, **kwargs: Any):
        """Set cells up for the class of the members."""
        super().__init_subclass__(**kwargs)
        cls.setup_anndata = cls.member_class.setup_anndata
        cls.setup_mudata = cls.member_class.setup_mudata

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
            with seeded(_seed(number)):
                self.members.append(self.member_class(adata, preset, **overrides))
        if n_members > 1 and PRESETS[self.members[0].preset_].train.closed_form:
            raise ValueError(
                f"preset={preset!r} has one solution, so that all members would be the same: take a "
                "single `SCTAB`, or another preset."
            )
        self._annotation = self.members[0].annotation

    @classmethod
    def from_members(cls, members: Sequence[SCTAB]) -> SCTABEnsemble:
        """Join models of the same genes and labels.

        The ensemble is not calibrated until it is trained or :meth:`calibrate` is called; the
        members keep their temperatures.

        Parameters
        ----------
        members
            Models, trained or not.

        Raises
        ------
        ValueError
            If there are none, they differ in genes, labels, coarse labels or batches, or one was
            imported from CellTypist.
        """
        if not members:
            raise ValueError("An ensemble has at least one member.")
        first = members[0]
        if any(network.is_imported for member in members for network in member.networks):
            raise ValueError(
                "Models of CellTypist are not joined: their probabilities are those of a label "
                "against all others. Compare them by `scvi_sctab.ontology.consensus`."
            )
        for number, member in enumerate(members):
            for name in ("gene_names", "labels", "coarse_labels", "conditions"):
                if not same_values(getattr(member, name), getattr(first, name)):
                    raise ValueError(
                        f"Member {number} has other {name} than the first one: an ensemble joins "
                        "models of the same reference."
                    )
        ensemble = cls.__new__(cls)
        ensemble.members = list(members)
        ensemble._annotation = replace(first.annotation, calibration=None)
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
        return cls.from_members(cls.member_class.from_sctab_checkpoints(path, var_names, labels))

    def train(self, *args: Any, **kwargs: Any) -> None:
        """Train one member after the other, then calibrate the ensemble.

        Parameters
        ----------
        *args, **kwargs
            As in :meth:`SCTAB.train`; each member has a folder of its own in ``checkpoint_dir``.

        Raises
        ------
        ValueError
            As in :meth:`SCTAB.train`.
        """
        folder = kwargs.get("checkpoint_dir")
        for number, member in enumerate(self.members):
            logger.info(f"Training member {number + 1} of {len(self.members)}.")
            if folder is not None:
                kwargs["checkpoint_dir"] = Path(folder) / f"member{number + 1}"
            try:
                with seeded(_seed(number)):
                    member.train(*args, **kwargs)
            except BaseException as error:
                if number == 0:
                    raise
                # The members before are others than those that were calibrated.
                self.annotation = replace(self.annotation, calibration=None)
                if not isinstance(error, KeyboardInterrupt):
                    raise
                self._stop_at(number, number)
                break
            if member._was_interrupted:
                self._stop_at(number, number + 1)
                break
        record = self.members[0].query_record
        if record is None:
            self._calibrate_after_training()
        elif record.patterns:  # training has changed the calibrated reference
            self.annotation = replace(self.annotation, calibration=None)

    def _stop_at(self, number: int, n_trained: int) -> None:
        """Keep the members that were trained before Ctrl-C."""
        logger.warning(
            f"Ctrl-C came while member {number + 1} of {len(self.members)} was trained: the "
            f"ensemble has {n_trained} members now."
        )
        self.members = self.members[:n_trained]

    @document_cells
    def get_uncertainty(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Split uncertainty into that of the cells and that of the reference.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`predict`.

        Returns
        -------
        A row per cell, in units of the entropy of equal probabilities: ``total``, the entropy of
        the mean probabilities of the members, each at its temperature; ``aleatoric``, the mean of
        their entropies; ``epistemic``, the difference, which is the mutual information between
        label and member, and high if members disagree. These are class-balanced probabilities,
        without the calibration of the ensemble, so that ``total`` differs from the ``uncertainty``
        of :meth:`annotate`.

        Raises
        ------
        RuntimeError
            If a member is not trained.
        ValueError
            As in :meth:`predict`.
        """
        self._require_trained()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        parts = [np.zeros((0, 2)), *self._map_cells(self._entropies, cells, batch_size)]
        values = np.concatenate(parts) / np.log(len(self.labels))
        frame = pd.DataFrame(values, cells.names, ["total", "aleatoric"])
        # By rounding, the difference may be slightly below zero.
        return frame.assign(epistemic=(frame["total"] - frame["aleatoric"]).clip(lower=0))

    @document_cells
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
        self._require_trained()
        n_columns = sum(network.encoder.n_output for network in self.networks)
        parts = self._map_cells(self._embed, cells, batch_size)
        return np.concatenate([np.zeros((0, n_columns), np.float32), *parts])

    def _embed(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        return np.concatenate([member._embed(tensors) for member in self.members], axis=1)

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData,
        reference_model: Any,
        *,
        policy: str | list[str] = "batch",
        learn_labels: bool = False,
        allow_pickle: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Map a query onto each member; see :meth:`SCTAB.load_query_data`.

        Parameters
        ----------
        adata
            Cells of the query.
        reference_model
            A trained ensemble, or the directory that one was saved to.
        policy, learn_labels, allow_pickle, **kwargs
            As of :meth:`SCTAB.load_query_data`; ``layer`` and ``min_gene_overlap`` among them.

        Returns
        -------
        An ensemble of the query.

        Raises
        ------
        TypeError
            If ``reference_model`` is no ensemble.
        ValueError
            As of :meth:`SCTAB.load_query_data`.
        """
        if isinstance(reference_model, str | os.PathLike):
            place = {name: kwargs[name] for name in ("accelerator", "device") if name in kwargs}
            reference_model = cls.load(
                reference_model, adata=False, allow_pickle=allow_pickle, **place
            )
        if not isinstance(reference_model, cls):
            raise TypeError(
                f"The reference is a {type(reference_model).__name__}, not a {cls.__name__}."
            )
        arguments = {"policy": policy, "learn_labels": learn_labels, **kwargs}
        ensemble = cls.from_members(map_members(reference_model.members, adata, arguments))
        ensemble.annotation = reference_model.annotation.for_labels(ensemble.labels)
        return ensemble

    def save(
        self, dir_path: str | os.PathLike[str], overwrite: bool = False, save_anndata: bool = False
    ) -> None:
        """Save all members, each in both forms of :meth:`SCTAB.save`, and the calibration.

        Members are written into new folders. The file that names them is replaced at last, so that
        a killed run or a full disk leaves what was there, never members of two ensembles.

        Parameters
        ----------
        dir_path
            Directory to save to; a link is followed.
        overwrite
            Whether to replace the ensemble in an existing directory; other files in it stay.
        save_anndata
            Whether to save the AnnData, too, once.

        Raises
        ------
        ValueError
            If the directory exists and ``overwrite`` is not set.
        PermissionError
            If it may not be written to.
        """
        if not is_other_process():
            save_ensemble(self, resolve_target(dir_path, overwrite), save_anndata)

    @property
    def digest(self) -> str:
        """SHA-256 of what the ensemble holds now; see :attr:`SCTAB.digest`."""
        return hash_ensemble(self)

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike[str],
        adata: AnnData | str | Path | bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load an ensemble; nothing in its files is executed.

        Parameters
        ----------
        dir_path
            Directory that :meth:`save` wrote.
        adata, **kwargs
            As of :meth:`SCTAB.load`.

        Raises
        ------
        FileNotFoundError
            If there is no ensemble.
        ValueError
            If a file is damaged, or as of :meth:`SCTAB.load`.
        """
        directory = Path(dir_path)
        members, calibration, hierarchy = read_ensemble(cls.member_class, directory, adata, kwargs)
        ensemble = cls.from_members(members)
        ensemble.calibration_, ensemble.hierarchy_ = calibration, hierarchy
        return ensemble

    def surgery_report(self) -> list[SurgeryReport]:
        """Report on each member; see :meth:`SCTAB.surgery_report`.

        Raises
        ------
        RuntimeError
            If the members are not query models.
        """
        return [member.surgery_report() for member in self.members]

    def _entropies(self, tensors: dict[str, Tensor]) -> NDArray[np.float64]:
        """Compute total and mean entropy of the members' probabilities, ``(n_cells, 2)``."""
        members = np.stack(
            [m.annotation.class_balanced(m._to_logits(tensors).logits) for m in self.members]
        )
        return np.column_stack([_entropy(members.mean(axis=0)), _entropy(members).mean(axis=0)])

    def _to_logits(self, tensors: dict[str, Tensor]) -> CellLogits:
        """Return logs of the members' mean class-balanced probabilities, and mean features."""
        parts = [(member.annotation, member._to_logits(tensors)) for member in self.members]
        logits = _log_mean([state.class_balanced(part.logits) for state, part in parts])
        before = logits
        if self._is_adapted:
            before = _log_mean([state.class_balanced(p.reference_logits) for state, p in parts])
        features = np.mean([part.features for _, part in parts], axis=0)
        return CellLogits(logits, before, features, parts[0][1].n_molecules)

    def _read(self, cells: CellSelection) -> CellReader:
        """Read cells once for all members."""
        first, *others = self.members
        for member in others:
            # All of them read the same tensors.
            if member.device != first.device:
                member.to_device(first.device)
            member.module.eval()
        return first._read(cells)

    @property
    def networks(self) -> tuple[CellTypeClassifier, ...]:
        """Networks of the members."""
        return tuple(member.module for member in self.members)

    @property
    def annotation(self) -> AnnotationState:
        """State of the ensemble's annotations; the members have their own temperatures."""
        return self._annotation

    @annotation.setter
    def annotation(self, state: AnnotationState) -> None:
        if state.coarse_labels != self._annotation.coarse_labels:
            for member in self.members:
                member.annotation = replace(member.annotation, coarse_labels=state.coarse_labels)
        self._annotation = state

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

    def to_device(self, device: str | int) -> None:
        """Move all members to a device."""
        for member in self.members:
            member.to_device(device)

    @property
    def adata(self) -> AnnData | None:
        """Cells that the ensemble was set up with."""
        return self.members[0].adata

    @property
    def adata_manager(self) -> AnnDataManager | None:
        """Manager of the cells that the ensemble was set up with."""
        return self.members[0].adata_manager

    @property
    def registry(self) -> dict[str, Any]:
        """Registry of the fields of counts, labels and conditions."""
        return self.members[0].registry

    @property
    def labels(self) -> NDArray[np.str_]:
        """Cell types that the ensemble knows."""
        return self.members[0].labels

    @property
    def gene_names(self) -> NDArray[np.str_]:
        """Genes of the ensemble, in its order."""
        return self.members[0].gene_names

    @property
    def train_indices(self) -> NDArray[np.intp] | None:
        """Cells that the members were trained on."""
        return self.members[0].train_indices

    @property
    def training_record(self) -> TrainingRecord | None:
        """Identities of cells that any member was trained on, and that all members held out."""
        records = [member.training_record for member in self.members]
        known = [record for record in records if record is not None]
        return TrainingRecord.join(known) if len(known) == len(records) else None

    @property
    def validation_indices(self) -> NDArray[np.intp] | None:
        """Cells that all members held out."""
        if any(member.adata is not self.adata for member in self.members):
            return None  # positions in different data
        all_held_out = [member.validation_indices for member in self.members]
        held_out = [indices for indices in all_held_out if indices is not None]
        if len(held_out) < len(all_held_out):
            return None
        return reduce(lambda common, own: np.intersect1d(common, own), held_out)

    def __repr__(self) -> str:
        return f"SCTABEnsemble of {len(self.members)}: {self.members[0]._model_summary_string}"


def _seed(number: int) -> int:
    """Return the seed of a member, which is unique up to 1,000 members."""
    return (settings.seed or 0) * _MEMBERS_PER_SEED + number


def _log_mean(probabilities: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.log(np.mean(probabilities, axis=0) + _TINY)


def _entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the entropy over the last axis, in nats."""
    p = np.asarray(probabilities, dtype=np.float64)
    return -(p * np.log(np.maximum(p, _TINY))).sum(axis=-1)
