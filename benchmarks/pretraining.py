"""Effect of pretraining without labels on types of the cells of unseen donors, from few labels or all.

Writes ``results/pretraining_labels.csv``, a row per run and after each, and ``results/pretraining.md``; runs
that have a row are not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scvi
import torch
from _arguments import DATA, measured, new_parser, report
from anndata import AnnData, read_h5ad
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from scvi_sctab import SCTAB, benchmark, pretrain
from scvi_sctab.benchmark import Method, Task
from scvi_sctab.data import normalized_expression

KANG, QUERY_DONORS = "kang18_ctrl_12k_1287genes.h5ad", ("1256", "1488")
ONE_DONOR, SIX_DONORS = FEW = ("10 per type, one donor", "10 per type, six donors")
ALL_LABELS, ZERO_SHOT = "all labels", "zero-shot, 5-NN"
TASKS = (ONE_DONOR, SIX_DONORS, ALL_LABELS, ZERO_SHOT)
UNITS = (512, 512, 256, 256, 64)
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
ENCODERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "MAE": (pretrain.MaskedAutoencoder, {}),
    "autoencoder": (pretrain.MaskedAutoencoder, {"mask": "none"}),
    "Barlow Twins": (pretrain.BarlowTwins, {}),
    "BYOL": (pretrain.BYOL, {}),
    "SCVI": (scvi.model.SCVI, {}),
}


class Cells(NamedTuple):
    """Both sides without labels, labels of the reference and which are known, and the truth."""

    reference: AnnData
    query: AnnData
    labels: np.ndarray
    known: np.ndarray
    truth: np.ndarray

    @property
    def partly_labelled(self) -> AnnData:
        """The reference, cells whose label is not known as ``"unknown"``."""
        reference = self.reference.copy()
        labels = np.where(self.known, self.labels, "unknown")
        reference.obs["cell_type"] = pd.Categorical(labels)
        return reference


def draw_labels(seed: int, task: str, folder: Path) -> Cells:
    """Control cells of Kang et al., and the cells whose labels are known.

    These are all, or ten per type (or all of them) of the donor number `seed` or of any donor; the same
    for every method.
    """
    cells = read_h5ad(folder / KANG)
    held_out = cells.obs["donor_id"].astype(str).isin(QUERY_DONORS).to_numpy()
    plain = AnnData(cells.X, cells.obs[[]], cells.var[[]])
    labels = cells.obs["cell_type"].to_numpy(dtype=str)
    donors = cells.obs["donor_id"].to_numpy(dtype=str)[~held_out]
    known, of_reference = np.ones(len(donors), dtype=bool), labels[~held_out]
    if task in FEW:
        chosen = np.unique(donors)[[seed]] if task == ONE_DONOR else np.unique(donors)
        rng, known = np.random.default_rng(seed), ~known
        for label in np.unique(of_reference):
            rows = np.flatnonzero((of_reference == label) & np.isin(donors, chosen))
            known[rng.choice(rows, min(10, len(rows)), replace=False)] = True
    sides = plain[~held_out].copy(), plain[held_out].copy()
    return Cells(*sides, of_reference, known, labels[held_out])


def score_labels(_: Task, cells: Cells, method: Callable[[Cells], tuple[Any, float]]) -> dict:
    """Score the labels of a method; seconds are those of the processor, with the pretraining."""
    start = time.process_time()
    predicted, earlier = method(cells)
    row = benchmark.classification_scores(cells.truth, np.asarray(predicted).astype(str))
    row["seconds"] = time.process_time() - start + earlier
    return row | {"n_scored": len(cells.truth), "n_labelled": int(cells.known.sum())}


def from_scratch(cells: Cells, seed: int) -> tuple[np.ndarray, float]:
    """Train the published network on the labelled cells alone, by the published recipe."""
    torch.manual_seed(seed)
    x, query = (torch.from_numpy(normalized_expression(side).toarray()).float()
                for side in (cells.reference[cells.known], cells.query))  # fmt: skip
    types, codes = np.unique(cells.labels[cells.known], return_inverse=True)
    layers: list[nn.Module] = []
    for n_in, n_out in zip((x.shape[1], *UNITS), (*UNITS, len(types)), strict=True):
        layers += [nn.Linear(n_in, n_out), nn.SELU(), nn.Dropout(0.1)]
    network, counts, n = nn.Sequential(*layers[:-2]), np.bincount(codes), len(codes)
    loss = nn.CrossEntropyLoss(torch.from_numpy(n / (len(counts) * counts)).float())
    optimizer = torch.optim.AdamW(network.parameters(), lr=9e-4, weight_decay=0.05)
    target, order = torch.from_numpy(codes), np.random.default_rng(seed)
    for _ in range(1000 if n <= 256 else 20):  # more steps are better on few labels
        for rows in torch.from_numpy(order.permutation(n)).split(256):
            optimizer.zero_grad()
            loss(network(x[rows]), target[rows]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
    with torch.no_grad():
        return types[network.eval()(query).argmax(1).numpy()], 0.0


def on_genes(cells: Cells, seed: int) -> tuple[np.ndarray, float]:
    """Class-balanced logistic regression on log-normalised genes."""
    reference, query = (normalized_expression(s) for s in (cells.reference, cells.query))
    model = LogisticRegression(class_weight="balanced", max_iter=2000)
    return model.fit(reference[cells.known], cells.labels[cells.known]).predict(query), 0.0


def sctab(
    cells: Cells, seed: int, encoder: str = "", folder: Path = DATA, **options: Any
) -> tuple[Any, float]:
    """SCTAB on the labelled and the unlabelled cells, by default or on a pretrained encoder."""
    reference, seconds = cells.partly_labelled, 0.0
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    if encoder:
        pretrained, seconds, *_ = encode(encoder, seed, folder)
        scvi.settings.seed = seed
        model = SCTAB.from_pretrained(pretrained, "cell_type", adata=reference, **options)
    else:
        scvi.settings.seed = seed
        model = SCTAB(reference)
    model.train(**QUIET)
    return model.predict(cells.query), seconds


def fit_encoder(cells: AnnData, name: str, seed: int) -> Any:
    """Train an encoder on cells without labels and without batches."""
    scvi.settings.seed = seed
    (kind, options), cells = ENCODERS[name], AnnData(cells.X, cells.obs[[]], cells.var[[]])
    kind.setup_anndata(cells)
    model = kind(cells, **options)
    model.train(**QUIET)
    return model


@cache
def encode(name: str, seed: int, folder: Path) -> tuple[Any, float, np.ndarray, np.ndarray]:
    """An encoder of the reference, its seconds, and both sides; kept for the other tasks."""
    cells, start, model = draw_labels(seed, ALL_LABELS, folder), time.process_time(), None
    if name == "PCA64":
        sides = [normalized_expression(s).toarray() for s in (cells.reference, cells.query)]
        pca = PCA(UNITS[-1], svd_solver="covariance_eigh").fit(sides[0])
        latents = [pca.transform(side) for side in sides]
    else:
        model = fit_encoder(cells.reference, name, seed)
        latents = [model.get_latent_representation(s) for s in (cells.reference, cells.query)]
    return model, time.process_time() - start, *latents


def read_out(
    cells: Cells, seed: int, encoder: str, neighbours: bool, folder: Path
) -> tuple[Any, float]:
    """Logistic regression, or votes of five neighbours, on the centred and scaled latents."""
    _, seconds, reference, query = encode(encoder, seed, folder)
    centre = reference.mean(axis=0)
    scale = (reference - centre).std() or 1.0
    regression = LogisticRegression(class_weight="balanced", max_iter=2000)
    model = KNeighborsClassifier(5) if neighbours else regression
    model.fit((reference[cells.known] - centre) / scale, cells.labels[cells.known])
    return model.predict((query - centre) / scale), seconds


def method(name: str, function: Callable, seeded: bool = True, **given: Any) -> Method:
    """A method whose function gets cells and a seed."""
    return Method(name, lambda seed: partial(function, seed=seed, **given), seeded)


def label_methods(neighbours: bool, folder: Path) -> list[Method]:
    """Methods of the label tasks, or of the votes of neighbours."""
    end, given = "5-NN" if neighbours else "logistic regression", {"folder": folder}
    latents = [
        method(f"{e} + {end}", read_out, e != "PCA64", encoder=e, neighbours=neighbours, **given)
        for e in ("PCA64", *ENCODERS)
    ]
    on_mae = partial(method, function=sctab, encoder="MAE", **given)
    return latents if neighbours else [
        method("logistic regression on genes", on_genes, False),
        method("network from scratch", from_scratch),
        method("SCTAB", sctab),
        *latents,
        on_mae("MAE, fine-tuned", linear_skip=False),
        on_mae("SCTAB on MAE, frozen", freeze_encoder=True),
        on_mae("SCTAB on MAE, fine-tuned"),
    ]  # fmt: skip


DETERMINISTIC = ("logistic regression on genes", "PCA64 + logistic regression", "PCA64 + 5-NN")
BASELINES = ("network from scratch", "SCTAB", "PCA64 + logistic regression")


def differences(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Differences to the baselines by task, paired by draw."""
    # A run with one draw of labels or weights is paired with nothing.
    n_seeds = rows.groupby(["method", "task"])["seed"].transform("nunique")
    pairs = rows[(n_seeds > 1) | rows["method"].isin(DETERMINISTIC)]
    for task, baseline in product(TASKS, BASELINES):
        of_task = pairs[pairs["task"] == task]
        if baseline in set(of_task["method"]):
            table = benchmark.difference_table(of_task, "macro_f1", baseline)
            yield table.drop(columns="least").rename_axis(task)


def main() -> None:
    """Run what has no row, and print all tables."""
    args = new_parser(__doc__, seeds=range(5)).parse_args()
    tasks = [Task(name, partial(draw_labels, task=name, folder=args.data), is_seeded=name in FEW)
             for name in TASKS]  # fmt: skip
    name, few, votes = "pretraining_labels", tasks[:3], tasks[3:]
    rows = pd.concat([
        measured(name, args, few, label_methods(False, args.data), score_labels),
        measured(name, args, votes, label_methods(True, args.data), score_labels),
    ])  # fmt: skip
    table = benchmark.task_table(rows, "macro_f1").T
    table = table[[name for name in TASKS if name in table]].rename_axis("macro F1")
    report("pretraining", args, table, *differences(rows))


if __name__ == "__main__":
    main()
