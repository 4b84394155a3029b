"""Part `floor`: a lower bound of the time of a batch on this machine, and the measured time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from _speed_clock import Row, Run, Settings, alternate, one, rows
from _speed_data import load_counts, repeat_cells
from _speed_network import (
    N_LABELS,
    OURS,
    TRAINED_STEPS,
    batch,
    expression,
    our_inference,
    our_network,
    our_stages,
    settle,
    support,
    whole,
)

from scvi_sctab._config import PRESETS

FLOAT = 4  # bytes
FLOOR = "floor"


@dataclass(frozen=True)
class Work:
    """Work that cannot be avoided.

    Parameters
    ----------
    flops
        Floating-point operations by stage.
    traffic
        Bytes between memory and processor by stage, each array once per use.
    """

    flops: dict[str, float]
    traffic: dict[str, float]


def count_work(
    n_cells: int, n_genes: int, nonzeros: float, in_mask: float, *, train: bool
) -> Work:
    """Count what the published network needs for a batch.

    Dense attention logits that stay in the cache, the first layers as sparse products over the
    nonzeros of counts and masks. In training, gradients to weights and inputs double a layer
    (inputs have none); those of the logits live on the masks, but for what ghost batch norm adds,
    which needs the second moments of the attention of each virtual batch. Entmax, batch norm,
    gates and the traffic of activations are not counted: the true floor is higher.

    Parameters
    ----------
    n_cells, n_genes
        Shape of the batch.
    nonzeros, in_mask
        Nonzero counts of a cell, and genes in its mask.
    train
        Whether to count a training step.
    """
    net = PRESETS["paper"].network
    hidden, gated = net.n_d + net.n_a, 2 * (net.n_d + net.n_a)
    n_layers, steps = net.n_shared + net.n_independent - 1, net.n_steps
    masked = n_cells * in_mask * steps
    logits = 2.0 * n_cells * net.n_a * n_genes * steps
    first = 2 * n_cells * nonzeros * gated
    second = 2 * masked * gated
    blocks = 2 * n_cells * hidden * gated * n_layers * (1 + steps)
    head = 2 * n_cells * net.n_d * N_LABELS
    n_weights = n_genes * (gated + net.n_a * steps) + head / (2 * n_cells)
    n_weights += hidden * gated * (n_layers * (1 + steps) - (net.n_shared - 1) * steps)
    counts = n_cells * nonzeros * 2 * FLOAT  # values and int32 positions
    flops = {
        "attention logits": logits,
        "first layer": first,
        "masked layer": second,
        "gated layers": blocks,
        "head": head,
    }
    traffic = {"counts": counts, "weights": n_weights * FLOAT}
    if train:
        chunks = n_cells / net.virtual_batch_size
        moments = min(2 * 2 * chunks * n_genes * net.n_a**2 * steps, 2 * logits)
        flops["attention logits, gradients"] = 2 * 2 * masked * net.n_a + moments
        flops["first layer, gradients"] = first
        flops["masked layer, gradients"] = 2 * second
        flops["gated layers, gradients"] = 2 * blocks
        flops["head, gradients"] = 2 * head
        traffic["counts"] *= 2
        # Backward reads weights and writes gradients; clipping reads them; AdamW reads weight,
        # gradient and two moments, and writes all but the gradient (which it scales on the way).
        traffic["weights"] *= 2
        traffic["gradients"] = 2 * n_weights * FLOAT
        traffic["optimiser"] = 7 * n_weights * FLOAT
    return Work(flops, traffic)


def gemm_rate(size: int, repeats: int) -> float:
    """Flops per second of a square float32 product, the best of `repeats`."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    out = torch.empty(size, size)
    return 2 * size**3 / _best(lambda: torch.mm(a, b, out=out), repeats)


def copy_rate(n_floats: int, repeats: int) -> float:
    """Bytes per second of a copy, read and written ones together, the best of `repeats`."""
    source, target = torch.rand(n_floats), torch.empty(n_floats)
    return 2 * FLOAT * n_floats / _best(lambda: target.copy_(source), repeats)


def _best(call: Callable[[], object], repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _compare(case: str, work: Work, rates: tuple[float, float], seconds: list[float]) -> list[Row]:
    """The floor beside our time."""
    gemm, copy = rates
    flops, traffic = sum(work.flops.values()), sum(work.traffic.values())
    found = [one(case, k, "work", "GFLOP", v / 1e9) for k, v in work.flops.items()]
    found += [one(case, k, "traffic", "MB", v / 1e6) for k, v in work.traffic.items()]
    compute, move = flops / gemm, traffic / copy
    floor = max(compute, move)
    bound = "compute" if compute > move else "memory"
    notes = {FLOOR: f"bound by {bound}: compute {compute:.4f} s, memory {move:.4f} s"}
    samples = {FLOOR: [floor], OURS: seconds}
    return found + rows(case, "time per batch", "s", samples, notes)


def run(settings: Settings) -> list[Row]:
    """The part ``floor``."""
    n_cells, size = (256, 1024) if settings.quick else (2048, 4096)
    n_copied = 2**22 if settings.quick else 2**28
    counts, labels = batch(str(settings.data), n_cells)
    n_genes = counts.shape[1]
    rates = gemm_rate(size, 5), copy_rate(n_copied, 5)
    found = [
        one("this machine", f"product of {size} x {size}", "rate", "GFLOP/s", rates[0] / 1e9),
        one("this machine", f"copy of {n_copied * FLOAT:,} bytes", "rate", "GB/s", rates[1] / 1e9),
    ]
    network = our_network(n_genes)
    # With random weights a mask is one gene in inference, which is less work than it will be.
    n_steps = 2 if settings.quick else TRAINED_STEPS
    settle(network, repeat_cells(load_counts(settings.data), n_cells), n_steps)
    x = expression(counts)
    nonzeros = len(counts.values()) / n_cells
    for train, case in ((False, "inference"), (True, "training step")):
        if train:
            job = Run(OURS, whole(our_stages(network, counts, labels)))
        else:
            job = Run(OURS, our_inference(network, counts))
        in_mask = support(network, x, train=train)
        seconds = alternate([job], settings.repeats)[OURS]
        work = count_work(n_cells, n_genes, nonzeros, in_mask, train=train)
        found += _compare(f"{case}, batch of {n_cells:,}", work, rates, seconds)
    return [row for row in found if np.isfinite(row["median"])]
