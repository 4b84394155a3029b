"""Recovery of latents and targets of simulated screens.

All methods see the counts and the perturbations of all cells. Latents are matched to the true ones
by absolute correlation. Seconds are processor time of fitting.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
import torch
from _report import as_markdown
from _table import Table
from scvi.model import SCVI
from sklearn.decomposition import PCA

from scvi_sctab.external.svae import (
    PAPER_DESIGN,
    REALISTIC_DESIGN,
    SpikeSlabVAE,
    rotate_scvi,
    simulate_perturbations,
    sparse_rotation,
)
from scvi_sctab.metrics import match_latents, target_scores

if TYPE_CHECKING:
    from anndata import AnnData

KEYS = ["case", "method", "seed"]
KEY, BATCH, CONTROL = "perturbation", "batch", "control"
N_LATENT = 15
# As the training of our model before the fine-tuning, for SCVI; and with it, for the others.
EPOCHS, ALL_EPOCHS, LR, BATCH_SIZE = 80, 140, 3e-3, 512
TRAINER = {"accelerator": "cpu", "enable_progress_bar": False}
OURS, VAE, VAE_ROTATION, DEFAULT = "sVAE+", "VAE", "VAE + rotation", "sVAE+, 20 latents"
PERMUTED, PUBLISHED = "sVAE+, permuted labels", "published sVAE+, 600 epochs"
PCA_ROTATION, SCVI_ROTATION = "PCA + rotation", "SCVI + rotation"


@dataclass(frozen=True)
class Found:
    """Latents of cells, targets of perturbations (None if the method has none), and notes."""

    latents: np.ndarray
    targets: pd.DataFrame | None
    notes: dict[str, Any]


def control_of(screen: AnnData) -> str | None:
    """Name of unperturbed cells, if there are some."""
    return CONTROL if CONTROL in set(screen.obs[KEY]) else None


def batch_of(screen: AnnData) -> str | None:
    """Column of batches, if there are several."""
    return BATCH if screen.obs[BATCH].nunique() > 1 else None


def build(screen: AnnData, n_latent: int = N_LATENT, **arguments: Any) -> SpikeSlabVAE:
    """Set up a model of ours."""
    SpikeSlabVAE.setup_anndata(screen, KEY, control_of(screen), batch_key=batch_of(screen))
    return SpikeSlabVAE(screen, n_latent=n_latent, **arguments)


def top_two(effects: pd.DataFrame) -> pd.DataFrame:
    """Targets of a model without masks: the two largest effects of a perturbation, as published."""
    ranks = effects.abs().rank(axis=1, ascending=False, method="first")
    return ranks <= 2


def by_pca(screen: AnnData, n_latent: int) -> Found:
    """Rotate principal components of log-normalised counts."""
    sizes = screen.X.sum(axis=1, keepdims=True)
    scaled = np.log1p(screen.X / sizes * np.median(sizes))
    latents = PCA(n_latent, random_state=0).fit_transform(scaled)
    rotation = sparse_rotation(latents, screen.obs[KEY], control_of(screen))
    return Found(rotation.transform(latents), rotation.targets, notes_of(rotation))


def by_scvi(screen: AnnData, n_latent: int) -> Found:
    """Rotate the latents of SCVI."""
    SCVI.setup_anndata(screen, batch_key=batch_of(screen))
    model = SCVI(screen, n_latent=n_latent, n_layers=2, gene_likelihood="nb")
    plan = {"lr": LR, "n_epochs_kl_warmup": EPOCHS}
    model.train(EPOCHS, batch_size=BATCH_SIZE, train_size=1.0, plan_kwargs=plan, **TRAINER)
    rotation = rotate_scvi(model, KEY, control_of(screen))
    return Found(model.get_latent_representation(), rotation.targets, notes_of(rotation))


def notes_of(rotation: Any) -> dict[str, Any]:
    """Numbers by which a user judges a rotation."""
    return {
        "criterion": rotation.criterion,
        "share_of_starts": rotation.share_of_starts,
        "n_active": rotation.n_active,
        "threshold": float(np.median(rotation.threshold)),
    }


def by_vae(screen: AnnData, n_latent: int) -> dict[str, Found]:
    """Fit the autoencoder of the first stage of our model, and rotate its latents."""
    model = build(screen, n_latent, prior="none")
    model.train(EPOCHS, **TRAINER)
    with torch.inference_mode():
        posterior = model.module.inference(torch.from_numpy(screen.X))["qz"]
    latents, variances = posterior.loc.numpy(), posterior.variance.numpy()
    rotation = sparse_rotation(latents, screen.obs[KEY], control_of(screen), variances=variances)
    rotated = Found(rotation.transform(latents), rotation.targets, notes_of(rotation))
    return {VAE: Found(latents, None, {}), VAE_ROTATION: rotated}


def by_prior(prior: str) -> Callable[[AnnData, int], Found]:
    """Fit another prior, with as many epochs as our model."""

    def fit(screen: AnnData, n_latent: int) -> Found:
        model = build(screen, n_latent, prior=prior)
        model.train(ALL_EPOCHS, **TRAINER)
        inclusion, effects = model.get_intervention_targets(), model.get_intervention_effects()
        targets = top_two(effects) if prior == "dense" else inclusion > 0.5
        return Found(model.get_latent_representation(), targets, {})

    return fit


def by_published(screen: AnnData, n_latent: int) -> Found:
    """Fit the published recipe: sampled masks, no rotation."""
    model = build(screen, n_latent)
    model.train(600, rotate=False, batch_size=256, **TRAINER)
    return Found(model.get_latent_representation(), model.get_intervention_targets() > 0.5, {})


def by_ours(**arguments: Any) -> Callable[[AnnData, int], Found]:
    """Fit our model in stages."""

    def fit(screen: AnnData, n_latent: int) -> Found:
        model = build(screen, arguments.get("n_latent", n_latent))
        training = {k: v for k, v in arguments.items() if k not in ("n_latent", "permute")}
        model.train(**training, **TRAINER)
        targets = model.get_intervention_targets() > 0.5
        return Found(model.get_latent_representation(), targets, notes_of(model.rotation))

    return fit


def by_permuted(screen: AnnData, n_latent: int) -> Found:
    """Fit our model to labels in another order; no target is true."""
    permuted = screen.copy()
    order = np.random.default_rng(0).permutation(screen.n_obs)
    permuted.obs[KEY] = screen.obs[KEY].to_numpy()[order]
    return by_ours()(permuted, n_latent)


# A function may return the results of several methods, by name; the first one is its own.
METHODS: dict[str, Callable[[AnnData, int], Found | dict[str, Found]]] = {
    PCA_ROTATION: by_pca,
    OURS: by_ours(),
    VAE_ROTATION: by_vae,
    PERMUTED: by_permuted,
    SCVI_ROTATION: by_scvi,
    "iVAE": by_prior("dense"),
    "sVAE": by_prior("l1"),
    DEFAULT: by_ours(n_latent=20),
    PUBLISHED: by_published,
}
ORDER = (OURS, DEFAULT, VAE_ROTATION, SCVI_ROTATION, PCA_ROTATION, VAE, "iVAE", "sVAE", PUBLISHED,
         PERMUTED)  # fmt: skip
PAPER = replace(PAPER_DESIGN, n_perturbations=80)
REALISTIC = replace(REALISTIC_DESIGN, n_perturbations=80)
# Designs, and the number of latents of the models.
HARD = {
    "20 perturbations": (replace(PAPER, n_perturbations=20), N_LATENT),
    "shifts of absolute N(3, 2)": (replace(PAPER, shift=3.0, shift_sd=2.0), N_LATENT),
    "shifts of absolute 5 + t(2)": (replace(PAPER, shift_tail=2.0, shift_sd=1.0), N_LATENT),
    "shift 1": (replace(PAPER, shift=1.0, shift_sd=0.1), N_LATENT),
    "50 cells per perturbation": (replace(PAPER, n_cells=50), N_LATENT),
    "10 latents for 15": (PAPER, 10),
    "unequal cells, 1,000 controls": (
        replace(PAPER, n_cells_spread=0.7, n_control_cells=1000),
        N_LATENT,
    ),
    "three batches": (replace(PAPER, n_batches=3, batch_sd=0.3), N_LATENT),
    "off-target background 0.5": (replace(PAPER, background_sd=0.5), N_LATENT),
    "anisotropic residuals": (replace(PAPER, anisotropy=0.5), N_LATENT),
    "correlated targets": (replace(PAPER, partner_rate=0.8), N_LATENT),
    "depth 1,000, overdispersed": (
        replace(PAPER, normalization="cell", depth=1000.0, overdispersion=0.2),
        N_LATENT,
    ),
}
CASES = {
    "simulator": {"published simulator": (PAPER, N_LATENT)},
    "realistic": {"realistic simulator": (REALISTIC, N_LATENT)},
    "hard": HARD,
}
SEEDS = {"simulator": range(5), "realistic": range(2), "hard": range(1)}
ONLY = {
    "realistic": (OURS, PCA_ROTATION, VAE_ROTATION),
    "hard": (OURS, PCA_ROTATION),
}


def score(screen: AnnData, found: Found) -> dict[str, float]:
    """Compare latents and targets with the truth."""
    truth = screen.uns["targets"].drop(index=CONTROL, errors="ignore")
    matching = match_latents(screen.obsm["latent"], found.latents)
    mcc = float(np.abs(matching.correlation).sum() / matching.n_first)
    row: dict[str, float] = {"mcc": mcc, "true_rate": float(truth.to_numpy().mean())}
    if found.targets is not None:
        targets = found.targets.loc[truth.index]
        scores = target_scores(truth, targets, matching)
        row |= {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}
        row["mask_rate"] = float(targets.to_numpy().mean())
    return row


def table_of(args: Namespace) -> Table:
    """Rows of all parts of this module."""
    return Table(args.out / "svae_recovery.csv", KEYS, merge=True)


def run(part: str, args: Namespace) -> None:
    """Run the methods that have no row yet."""
    table = table_of(args)
    methods = [m for m in METHODS if m in (args.only or ONLY.get(part, METHODS))]
    for method in methods:
        for case, (design, n_latent) in CASES[part].items():
            if args.cases and case not in args.cases:
                continue
            for seed in args.seeds or SEEDS[part]:
                done = table.rows
                known = (done[KEYS] == [case, method, seed]).all(axis=1).any()
                if known and not args.again:
                    continue
                screen = simulate_perturbations(design, seed=seed)
                scvi.settings.seed = seed
                start = time.process_time()
                found = METHODS[method](screen, n_latent)
                seconds = time.process_time() - start
                for name, one in (found if isinstance(found, dict) else {method: found}).items():
                    row = {"case": case, "method": name, "seed": seed, **score(screen, one)}
                    table.add([row | {"seconds": seconds} | one.notes])
                    print({k: row[k] for k in (*KEYS, "mcc", "f1") if k in row}, flush=True)


def mean_sd(values: pd.Series, form: str = "{:.3f}") -> str:
    """``mean ± sd``; no sd for one run, ``-`` for none."""
    values = values.dropna()
    if values.empty:
        return "-"
    text = form.format(values.mean())
    return text if len(values) < 2 else f"{text} ± {form.replace('+', '').format(values.std())}"


def markdown(rows: pd.DataFrame, index: str) -> str:
    """Markdown table of a frame whose index is named."""
    return as_markdown(rows.rename_axis(index=index))


def _summary(runs: pd.DataFrame, by: str) -> pd.DataFrame:
    rows = {}
    for name, part in runs.groupby(by, sort=False):
        worst = part[["mcc", "f1"]].min()
        rows[name] = {
            "MCC": mean_sd(part["mcc"]),
            "F1": mean_sd(part["f1"]),
            "worst": f"{worst['mcc']:.3f} / {worst['f1']:.3f}".replace("nan", "-"),
            "mask rate": mean_sd(part["mask_rate"]),
            "s": f"{part['seconds'].mean():.0f}",
        }
    return pd.DataFrame(rows).T


def _gains(runs: pd.DataFrame) -> str:
    """Differences of our model to the others, paired by seed."""
    lines = []
    wide = runs.pivot(index="seed", columns="method", values=["mcc", "f1"])
    for method in ORDER:
        if method in (OURS, PERMUTED) or not {OURS, method} <= set(runs["method"]):
            continue
        gain = {m: (wide[m, OURS] - wide[m, method]).dropna() for m in ("mcc", "f1")}
        texts = [f"{name} {mean_sd(gain[m], '{:+.3f}')}" for m, name in
                 (("mcc", "MCC"), ("f1", "F1")) if len(gain[m])]  # fmt: skip
        lines.append(f"- {OURS} minus {method}: {', '.join(texts)} ({len(gain['mcc'])} seeds)")
    return "\n".join(lines)


def report(args: Namespace) -> str:
    """Tables of the three parts."""
    runs = table_of(args).rows.reindex(columns=[*KEYS, "mcc", "f1", "mask_rate", "seconds"])
    parts = []
    for part in ("simulator", "realistic"):
        (case,) = CASES[part]
        of_case = runs[runs["case"] == case]
        if of_case.empty:
            continue
        order = {name: place for place, name in enumerate(ORDER)}
        of_case = of_case.sort_values("method", key=lambda names: names.map(order), kind="stable")
        n = of_case["seed"].nunique()
        head = f"## {case.capitalize()}\n\nMean ± sd over {n} seeds; worst is MCC / F1.\n"
        parts += [head, markdown(_summary(of_case, "method"), "method"), "", _gains(of_case), ""]
    hard = runs[runs["case"].isin(HARD)]
    if len(hard):
        parts.append("## Hard cases\n\nMCC / F1, one seed per case unless there is a ±.\n")
        rows = {}
        for case, of_case in hard.groupby("case", sort=False):
            by_method = of_case.groupby("method")
            rows[case] = {
                method: f"{mean_sd(p['mcc'])} / {mean_sd(p['f1'])}" for method, p in by_method
            }
        frame = pd.DataFrame(rows).T
        frame = frame[[m for m in ORDER if m in frame]].fillna("-")
        parts += [markdown(frame.reindex([c for c in HARD if c in rows]), "case"), ""]
    return "\n".join(parts)
