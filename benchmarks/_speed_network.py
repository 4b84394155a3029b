"""Part `network`: inference and training step of the published network, ours and pytorch-tabnet's."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from _speed_clock import Row, Run, Settings, alternate, one, rows, skipped
from _speed_data import as_tensor, load_counts, random_labels, repeat_cells
from _speed_memory import measure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scvi_sctab._config import PRESETS
from scvi_sctab.module import CellTypeClassifier, build_encoder
from scvi_sctab.nn import normalize_counts
from scvi_sctab.train import GeneAdamW

if TYPE_CHECKING:
    from scipy import sparse

OURS, PEER, PEER_FUSED = "SCTAB", "pytorch-tabnet 4.0", "pytorch-tabnet 4.0, fused AdamW"
N_LABELS, BATCH = 164, 2048
LAMBDA_SPARSE = 1e-5
ADAMW = {"lr": 5e-3, "weight_decay": 0.05}
CLIP_NORM = 1.0
TRAINED_STEPS = 30
OFF = 1e-4
"""Error of a logit, over the largest of all, that rounding alone does not make."""


def batch(data: str, n_cells: int) -> tuple[Tensor, Tensor]:
    """Raw counts ``(n_cells, n_genes)`` as a sparse CSR tensor, and labels ``(n_cells,)``."""
    counts = repeat_cells(load_counts(data), n_cells)
    return as_tensor(counts), torch.from_numpy(random_labels(n_cells, N_LABELS))


def expression(counts: Tensor) -> Tensor:
    """Dense log-normalised expression, what the peer reads."""
    return normalize_counts(counts if counts.layout is torch.strided else counts.to_dense())


def our_network(n_genes: int) -> CellTypeClassifier:
    """The published scTab network with random weights."""
    torch.manual_seed(0)
    encoder = build_encoder(n_genes, PRESETS["paper"].network)
    return CellTypeClassifier(encoder, n_genes, N_LABELS, lambda_sparse=LAMBDA_SPARSE)


def peer_network(n_genes: int) -> nn.Module:
    """The same network of pytorch-tabnet."""
    from pytorch_tabnet.tab_network import TabNet

    torch.manual_seed(0)
    settings = PRESETS["paper"].network
    names = ("n_d", "n_a", "n_steps", "gamma", "n_independent", "n_shared", "epsilon")
    names += ("virtual_batch_size", "momentum", "mask_type")
    return TabNet(n_genes, N_LABELS, **{name: getattr(settings, name) for name in names})


def copy_weights(ours: CellTypeClassifier, peer: nn.Module) -> None:
    """Give the peer our weights; it holds one batch norm that it does not use."""
    state = {f"tabnet.{name}": value for name, value in ours.state_dict().items()}
    missing, unexpected = peer.load_state_dict(state, strict=False)
    left = [name for name in missing if not name.startswith("tabnet.initial_bn.")]
    if left or unexpected:
        raise RuntimeError(f"the networks differ: {left=}, {unexpected=}.")


def our_inference(network: CellTypeClassifier, counts: Tensor) -> Callable[[], Tensor]:
    """Logits from raw counts, normalisation included."""
    network.eval()

    def infer() -> Tensor:
        with torch.no_grad():
            _, outputs = network({"X": counts}, compute_loss=False)
        return outputs["logits"]

    return infer


def peer_inference(network: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Logits from log-normalised expression."""
    network.eval()

    def infer() -> Tensor:
        with torch.no_grad():
            return network(x)[0]

    return infer


def _stepper(
    network: nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Callable[[], object]]:
    """The stages of a training step, in order."""
    network.train()
    kept: list[Tensor] = []

    def forward() -> None:
        optimizer.zero_grad()
        kept[:] = [loss()]

    return {
        "forward": forward,
        "backward": lambda: kept.pop().backward(),
        "clip": lambda: nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM),
        "optimiser": optimizer.step,
    }


def our_stages(
    network: CellTypeClassifier, counts: Tensor, labels: Tensor
) -> dict[str, Callable[[], object]]:
    """The stages of our training step, normalisation included; fused AdamW."""
    tensors = {"X": counts, "labels": labels[:, None]}

    def loss() -> Tensor:
        return network(tensors, loss_kwargs={"reduction": "mean"})[-1].loss

    optimizer = GeneAdamW(network.parameters(), **ADAMW)
    return _stepper(network, loss, optimizer)


def peer_stages(
    network: nn.Module, x: Tensor, labels: Tensor, *, fused: bool
) -> dict[str, Callable[[], object]]:
    """The stages of the peer's training step."""

    def loss() -> Tensor:
        logits, mask_loss = network(x)
        return cross_entropy(logits, labels) - LAMBDA_SPARSE * mask_loss

    optimizer = torch.optim.AdamW(network.parameters(), fused=fused, **ADAMW)
    return _stepper(network, loss, optimizer)


def whole(stages: dict[str, Callable[[], object]]) -> Callable[[], None]:
    """One training step."""

    def step() -> None:
        for stage in stages.values():
            stage()

    return step


def settle(network: CellTypeClassifier, counts: sparse.csr_matrix, n_steps: int) -> None:
    """Train on a batch of `counts` for some steps, so that masks are those of a trained network."""
    cells = counts[:BATCH]
    labels = torch.from_numpy(random_labels(cells.shape[0], network.n_labels))
    step = whole(our_stages(network, as_tensor(cells), labels))
    for _ in range(n_steps):
        step()


def support(network: CellTypeClassifier, x: Tensor, *, train: bool = False) -> float:
    """Genes that a cell attends to in our network, mean over cells."""
    # A copy: in training mode a look changes the statistics of batch norm.
    encoder = deepcopy(network).train(train).encoder
    with torch.no_grad():
        n_genes = (encoder.attention(x) != 0).sum(dim=1)
    # A cell whose embedding is zero hides its mask.
    return float(n_genes[n_genes > 0].float().mean())


def peer_support(network: nn.Module, x: Tensor, *, train: bool = False) -> float:
    """Genes that a cell attends to in the peer, mean over cells."""
    with torch.no_grad():
        _, masks = deepcopy(network).train(train).forward_masks(x)
    return float((masks[0] != 0).sum(dim=1).float().mean())


def _alike(
    case: str, ours: CellTypeClassifier, peer: nn.Module | None, counts: Tensor
) -> list[Row]:
    """Whether the two networks compute the same, and how sparse their masks are."""
    x = expression(counts)
    found: list[Row] = []
    for train, mode in ((False, "inference"), (True, "training step")):
        masks = {OURS: [support(ours, x, train=train)]}
        if peer is not None:
            masks[PEER] = [peer_support(peer, x, train=train)]
        found += rows(f"{case}, {mode}", "genes in a cell's mask", "genes", masks)
    if peer is None:
        return found
    exact = peer_inference(deepcopy(peer).double(), expression(counts.to_dense().double()))()
    logits = {OURS: our_inference(ours, counts)(), PEER: peer_inference(peer, x)()}
    largest = exact.abs().max()
    errors = {m: ((value - exact).abs().amax(1) / largest) for m, value in logits.items()}
    note = dict.fromkeys(errors, "over the largest logit; truth: the peer in float64")
    worst = {m: [float(error.max())] for m, error in errors.items()}
    off = {m: [float(100 * (error > OFF).double().mean())] for m, error in errors.items()}
    found += rows(case, "largest error of a logit", "1", worst, note)
    found += rows(case, f"cells with an error above {OFF:g}", "%", off, note)
    return found


def _compare(
    case: str, ours: CellTypeClassifier, counts: Tensor, labels: Tensor, repeats: int
) -> list[Row]:
    """Inference and training step of the two networks, which start with the same weights."""
    copies = {}
    if find_spec("pytorch_tabnet"):
        copies = {name: peer_network(counts.shape[1]) for name in (PEER, PEER_FUSED)}
        for copy in copies.values():
            copy_weights(ours, copy)
    else:
        skipped(PEER, "not installed")
    found = _alike(case, ours, copies.get(PEER), counts)
    x = expression(counts)
    infer = [Run(OURS, our_inference(ours, counts))]
    if copies:
        infer.append(Run(PEER, peer_inference(copies[PEER], x)))
    notes = {OURS: "from raw counts (CSR)", PEER: "dense log-normalised input, made untimed"}
    seconds = alternate(infer, repeats)
    found += rows(f"{case}, inference", "time per batch", "s", seconds, notes)
    train = [Run(OURS, whole(our_stages(ours, counts, labels)))]
    for name, copy in copies.items():
        stages = peer_stages(copy, x, labels, fused=name == PEER_FUSED)
        train.append(Run(name, whole(stages)))
    notes = {OURS: "from raw counts (CSR); fused AdamW", PEER: "AdamW as torch chooses it"}
    seconds = alternate(train, repeats)
    return found + rows(f"{case}, training step", "time per batch", "s", seconds, notes)


def memory_task(method: str, train: bool, data: str, n_cells: int) -> None:
    """Run two batches; called in a fresh process."""
    counts, labels = batch(data, n_cells)
    if method == OURS:
        network = our_network(counts.shape[1])
        if train:
            call = whole(our_stages(network, counts, labels))
        else:
            call = our_inference(network, counts)
    else:
        x, counts = expression(counts), None
        network = peer_network(x.shape[1])
        if train:
            call = whole(peer_stages(network, x, labels, fused=False))
        else:
            call = peer_inference(network, x)
    for _ in range(2):
        call()


def _memory(settings: Settings, n_cells: int) -> list[Row]:
    found: list[Row] = []
    imports = {OURS: ["scvi_sctab.module"], PEER: ["pytorch_tabnet.tab_network"]}
    if not find_spec("pytorch_tabnet"):
        del imports[PEER]
    for train, case in ((False, "inference"), (True, "training step")):
        peaks = {}
        for method, names in imports.items():
            arguments = {"method": method, "train": train, "n_cells": n_cells}
            done = measure(
                "_speed_network", "memory_task", names, data=str(settings.data), **arguments
            )
            peaks[method] = [done["above"]]
        notes = dict.fromkeys(peaks, "weights and batch included")
        found += rows(f"batch of {n_cells:,}, {case}", "peak memory", "MiB", peaks, notes)
    return found


def run(settings: Settings) -> list[Row]:
    """The part ``network``."""
    n_cells, n_steps = (256, 2) if settings.quick else (BATCH, TRAINED_STEPS)
    counts, labels = batch(str(settings.data), n_cells)
    nonzeros = len(counts.values()) / n_cells
    found = [one("the cells", OURS, "nonzeros of a cell", "genes", nonzeros)]
    network = our_network(counts.shape[1])
    found += _compare("random weights", network, counts, labels, settings.repeats)
    network = our_network(counts.shape[1])
    settle(network, repeat_cells(load_counts(settings.data), n_cells), n_steps)
    found += _compare(f"after {n_steps} steps", network, counts, labels, settings.repeats)
    found += _memory(settings, n_cells)
    return [row for row in found if np.isfinite(row["median"])]
