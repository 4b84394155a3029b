"""Expected expression after shifts of latents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS

from scvi_sctab._config import ROTATION
from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab._messages import list_names, list_near_names
from scvi_sctab.base import seed
from scvi_sctab.external.svae._guides import UnknownPerturbationError
from scvi_sctab.external.svae._shift_estimates import standard_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import CellSelection, Condition
    from scvi_sctab.external.svae._guides import Guides
    from scvi_sctab.external.svae._model import SpikeSlabVAE
    from scvi_sctab.external.svae._module import SpikeSlabModule

# Cells that are drawn from the prior where a screen has no control.
_N_PRIOR_CELLS = 1000
_DEFAULT_SEPARATOR = "+"
# Cells per minibatch: each is decoded once per sample and perturbation.
_BATCH_SIZE = 512


def resolve_combination(
    combination: str | Sequence[str], known: Sequence[str], guides: Guides
) -> list[int]:
    """Look up the perturbations of a combination.

    Parameters
    ----------
    combination
        Name of a perturbation, names that are joined by the separator of set-up, ``"+"`` if there
        is none, or a list of names.
    known
        Perturbations of the model.
    guides
        Notation of set-up.

    Returns
    -------
    Positions in ``known``, each once; none for the control.

    Raises
    ------
    UnknownPerturbationError
        If the model does not know a part.
    """
    if isinstance(combination, str) or not isinstance(combination, Iterable):
        # Perturbations may be numbered; their names are strings.
        combination = str(combination)
        separator = guides.separator or _DEFAULT_SEPARATOR
        whole = combination in known or combination == guides.control
        parts = [combination] if whole else [part.strip() for part in combination.split(separator)]
    else:
        parts = [str(part) for part in combination]
    position = {name: code for code, name in enumerate(known)}
    parts = [part for part in dict.fromkeys(parts) if part != guides.control]
    unknown = [part for part in parts if part not in position]
    if unknown:
        raise UnknownPerturbationError(
            f"The model does not know the perturbation {list_near_names(unknown, known)}"
            + (f" of {combination!r}" if [combination] != unknown else "")
            + f"; it knows {list_names(known)}. If you have cells of it, "
            "`model.adapt(adata)` learns its shift."
        )
    return [position[part] for part in parts]


def sample_shifts(
    model: SpikeSlabVAE, combinations: Sequence[Sequence[int]], n_samples: int
) -> NDArray[np.float32]:
    r"""Sample shifts of combinations from their posterior.

    Masks are Bernoulli, but after the sparse rotation, all shifts above the noise floor count,
    targets or not: a target is a large shift, small ones are real as well, and an inclusion is the
    optimum of a penalty, less than the probability of a shift. Without rotation, shifts off target
    are not estimated. Since the prior of a shift is flat and latents have variance 1, its
    posterior is normal, with variance :math:`1 / n` for :math:`n` cells, plus that of the mean of
    unperturbed cells, which all perturbations share.

    Parameters
    ----------
    model
        Trained model.
    combinations
        Positions of perturbations.
    n_samples
        Number of samples.

    Returns
    -------
    ``(n_combinations, n_samples, n_latent)``.
    """
    rng = np.random.default_rng(seed())
    inclusion = model.module.inclusion().detach().cpu().numpy()
    shift = model.module.shift.detach().cpu().numpy()
    if model.rotation is not None:
        errors = standard_errors(model.n_cells_, model.n_controls_)
        above_noise = np.abs(shift) > ROTATION.noise_floor * errors[:, None]
        inclusion = np.where(above_noise, 1, inclusion)
    # Samples are the same in all combinations, so that they cancel in differences.
    size = (n_samples, shift.shape[1])
    deviation = standard_errors(model.n_cells_, 0)
    of_control = rng.normal(size=size) / np.sqrt(model.n_controls_) if model.n_controls_ else 0.0
    drawn = {
        part: (rng.random(size) < inclusion[part])
        * (shift[part] + rng.normal(size=size) * deviation[part] - of_control)
        for part in sorted({part for parts in combinations for part in parts})
    }
    samples = np.zeros((len(combinations), *size), dtype=np.float32)
    for sample, parts in zip(samples, combinations, strict=True):
        for part in parts:
            sample += drawn[part]
    return samples


def sample_expression(
    model: SpikeSlabVAE,
    shifts: NDArray[np.float32],
    cells: CellSelection | None,
    batch_size: int | None,
) -> NDArray[np.float64]:
    """Shift the latents of cells, and average their expected expression.

    Parameters
    ----------
    model
        Trained model.
    shifts
        ``(n_combinations, n_samples, n_latent)``. All combinations get the same samples of the
        cells' latents.
    cells
        Unperturbed cells; ``None`` are latents from the prior, and average covariates.
    batch_size
        Cells per minibatch.

    Returns
    -------
    Mean over cells of the share of each gene in counts, ``(n_combinations, n_samples, n_genes)``.
    """
    module = model.module
    generator = torch.Generator(module.device).manual_seed(seed())
    offsets = torch.from_numpy(shifts).to(module.device)

    def total(mean: Tensor, std: Tensor, inputs: dict[str, Any]) -> NDArray[np.float64]:
        """Sum expression over the cells of a minibatch."""
        parts = []
        for shift in offsets.unbind(dim=1):
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
            z = mean + std * noise + shift[:, None]
            library = z.new_ones(len(mean), 1)
            parts.append(module.generative(z, library, **inputs)["scale"].sum(dim=1))
        return torch.stack(parts, dim=1).cpu().numpy().astype(np.float64)

    if cells is None:
        zero = offsets.new_zeros(_N_PRIOR_CELLS, module.n_latent)
        module.eval()
        with torch.inference_mode():
            return total(zero, torch.ones_like(zero), {}) / len(zero)

    def of_batch(tensors: dict[str, Tensor]) -> NDArray[np.float64]:
        qz = module.inference(**module._get_inference_input(tensors))["qz"]
        inputs = {
            "conditions": tensors[CONDITIONS_KEY],
            "covariates": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY),
        }
        return total(qz.loc, qz.scale, inputs)

    batches = model._map_decoded(
        of_batch, cells, _BATCH_SIZE if batch_size is None else batch_size
    )
    sums = np.sum([*batches], axis=0)
    expression: NDArray[np.float64] = sums / len(cells)
    return expression


def decode_means(module: SpikeSlabModule, tensors: dict[str, Tensor], batch: int | None) -> Tensor:
    """Decode the posterior means of latents of cells.

    Parameters
    ----------
    module
        Module in evaluation mode.
    tensors
        Minibatch.
    batch
        Code of the batch of all cells; their own if not given.

    Returns
    -------
    Share of each gene in counts, ``(n_cells, n_genes)``.
    """
    embedded = module.inference(**module._get_inference_input(tensors))
    embedded["z"] = embedded["qz"].loc
    inputs = module._get_generative_input(tensors, embedded)
    if batch is not None:
        inputs["conditions"] = inputs["conditions"].clone()
        inputs["conditions"][:, 0] = batch
    scale: Tensor = module.generative(**inputs)["scale"]
    return scale


def find_genes(genes: pd.Index, chosen: Sequence[str] | None) -> NDArray[np.intp]:
    """Return the positions of genes; of all if none are chosen.

    Parameters
    ----------
    genes
        Genes of the model.
    chosen
        Names.

    Raises
    ------
    KeyError
        If the model does not have one.
    """
    if chosen is None:
        return np.arange(len(genes))
    chosen = [chosen] if isinstance(chosen, str) else [*chosen]
    positions: NDArray[np.intp] = genes.get_indexer(chosen)
    if (positions < 0).any():
        missing = [name for name, at in zip(chosen, positions, strict=True) if at < 0]
        raise KeyError(f"The model has no genes {list_near_names(missing, genes)}.")
    return positions


def find_batch(conditions: Sequence[Condition], key: str | None, batch: str | None) -> int | None:
    """Look up the code of a batch; ``None`` is none.

    Parameters
    ----------
    conditions
        Batch and covariates of the model.
    key
        Column of the batch, which is then the first condition.
    batch
        Name of the batch.

    Raises
    ------
    ValueError
        If the model does not know it.
    """
    if batch is None:
        return None
    known = [] if key is None else conditions[0].categories
    if str(batch) not in known:
        raise ValueError(
            f"transform_batch={batch!r} is not a batch of the model, which knows "
            f"{list_names(known) or 'none'}."
        )
    return known.index(str(batch))


def summarize_prediction(
    expression: NDArray[np.float64], genes: Sequence[str], level: float
) -> pd.DataFrame:
    """Summarise samples of expected expression beside that of unperturbed cells.

    Parameters
    ----------
    expression
        Of unperturbed and of perturbed cells, ``(2, n_samples, n_genes)``.
    genes
        Names of the genes.
    level
        Probability of the interval.

    Returns
    -------
    A row per gene: ``mean``, ``lower``, ``upper``, ``baseline`` and ``log2_fold_change``.
    """
    baseline, perturbed = expression
    lower, upper = _interval(perturbed, level)
    mean, before = perturbed.mean(axis=0), baseline.mean(axis=0)
    columns = {
        "mean": mean,
        "lower": lower,
        "upper": upper,
        "baseline": before,
        "log2_fold_change": np.log2(mean / before),
    }
    return pd.DataFrame(columns, index=pd.Index(genes, name="gene"))


def summarize_difference(
    expression: NDArray[np.float64], genes: Sequence[str], level: float, delta: float
) -> pd.DataFrame:
    """Summarise samples of the expected expression of two groups.

    Parameters
    ----------
    expression
        Of both groups, ``(2, n_samples, n_genes)``.
    genes
        Names of the genes.
    level
        Probability of the interval.
    delta
        Absolute log2 fold change from which a gene counts as changed.

    Returns
    -------
    A row per gene, sorted by absolute fold change: ``mean_1``, ``mean_2``, ``log2_fold_change``
    of 1 over 2, ``lower``, ``upper`` and ``probability`` of a change.
    """
    first, second = expression
    change = np.log2(first) - np.log2(second)
    lower, upper = _interval(change, level)
    columns = {
        "mean_1": first.mean(axis=0),
        "mean_2": second.mean(axis=0),
        "log2_fold_change": change.mean(axis=0),
        "lower": lower,
        "upper": upper,
        "probability": (np.abs(change) > delta).mean(axis=0),
    }
    table = pd.DataFrame(columns, index=pd.Index(genes, name="gene"))
    return _by_size(table)


def latent_genes(model: SpikeSlabVAE, latent: int, step: float | None) -> pd.DataFrame:
    """Decode both sides of a latent around unperturbed cells, which are at 0.

    Parameters
    ----------
    model
        Trained model.
    latent
        Position of the latent.
    step
        Distance from 0; the median of the shifts of this latent if not given.

    Returns
    -------
    A row per gene, sorted by absolute fold change: ``log2_fold_change`` of ``plus`` over
    ``minus``, the shares of the gene in counts on both sides.
    """
    module = model.module
    if step is None:
        shifts = model.get_intervention_effects().to_numpy()[:, latent]
        included = model.get_intervention_targets().to_numpy()[:, latent] > 0.5
        step = float(np.median(np.abs(shifts[included]))) if included.any() else 1.0
    points = torch.zeros(2, module.n_latent, device=module.device)
    points[0, latent], points[1, latent] = step, -step
    module.eval()
    with torch.inference_mode():
        scale = module.generative(points, points.new_ones(2, 1))["scale"]
    plus, minus = scale.double().cpu().numpy()
    columns = {"log2_fold_change": np.log2(plus / minus), "plus": plus, "minus": minus}
    return _by_size(pd.DataFrame(columns, index=pd.Index(model.gene_names, name="gene")))


def _interval(
    samples: NDArray[np.float64], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lower, upper = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return lower, upper


def _by_size(table: pd.DataFrame) -> pd.DataFrame:
    """Sort genes by absolute fold change."""
    order = np.argsort(-table["log2_fold_change"].abs().to_numpy(), kind="stable")
    return table.iloc[order]
