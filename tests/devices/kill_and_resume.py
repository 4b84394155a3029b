"""Kill a training at random steps, resume it each time, and compare it with an unbroken one.

``python tests/devices/kill_and_resume.py 10 folder`` kills it ten times and prints a line of JSON.
Every attempt is a process that ends by SIGKILL; nothing is cleaned up.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import scvi
import torch
from lightning.pytorch.callbacks import Callback

from scvi_sctab import SCTAB, datasets

BATCH_SIZE, EVERY = 64, 3


class KillAt(Callback):
    """End the process after a number of batches, as the kernel does when memory is short."""

    def __init__(self, n_batches):
        self.n_left = n_batches

    def on_train_batch_end(self, *_):
        self.n_left -= 1
        if self.n_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def build(seed):
    reference = datasets.pbmc_kang18()
    top = np.argsort(-np.asarray(reference.X.sum(axis=0)).ravel())[:200]
    reference = reference[::4, np.sort(top)].copy()
    common = reference.obs["cell_type"].value_counts().index[:5]
    reference = reference[reference.obs["cell_type"].isin(common)].copy()
    for key in ("cell_type", "donor_id"):
        reference.obs[key] = reference.obs[key].astype(str)
    scvi.settings.seed = seed
    columns = {"labels_key": "cell_type", "donor_key": "donor_id", "batch_key": "donor_id"}
    SCTAB.setup_anndata(reference, **columns)
    return SCTAB(reference, preset="small", n_steps=2)


def train(folder, output, n_epochs, *, resume, kill_at=None):
    """Train in this process; write what is compared."""
    # Weights at random, since those of the state count.
    model = build(1 if resume else 0)
    scvi.settings.seed = 0
    if resume:
        torch.manual_seed(5)
    model.train(
        max_epochs=n_epochs,
        batch_size=BATCH_SIZE,
        augment=True,
        accelerator="cpu",
        enable_progress_bar=False,
        checkpoint_dir=folder,
        checkpoint_every_n_steps=EVERY,
        resume=resume,
        callbacks=[] if kill_at is None else [KillAt(kill_at)],
    )
    results = {name: tensor.numpy() for name, tensor in model.module.state_dict().items()}
    for name, table in model.history_.items():
        results[f"history {name}"] = table.to_numpy(dtype=float)
        results[f"epochs {name}"] = table.index.to_numpy(dtype=int)
    results["random"] = torch.rand(3).numpy()
    np.savez(output, **results)


def in_process(*args, **kwargs):
    """Train in a copy of this process; return the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            train(*args, **kwargs)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"Training failed with exit code {os.WEXITSTATUS(status)}.")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(n_kills, folder, seed=0):
    """Return which arrays differ from those of the unbroken training."""
    rng = np.random.default_rng(seed)
    # Long enough for all kills: an epoch has seven batches, a kill comes after at most eight.
    n_epochs = max(6, 2 * n_kills)
    whole = folder / "whole", folder / "whole.npz", n_epochs
    broken = folder / "broken", folder / "broken.npz", n_epochs
    assert in_process(*whole, resume=False) == 0
    kills = []
    for attempt in range(n_kills):
        kills.append(int(rng.integers(1, 9)))
        ended_by = in_process(*broken, resume=attempt > 0, kill_at=kills[-1])
        assert ended_by == signal.SIGKILL, (kills, ended_by)
    assert in_process(*broken, resume=True) == 0
    whole, broken = np.load(whole[1]), np.load(broken[1])
    differing = [
        name
        for name in sorted({*whole.files, *broken.files})
        if name not in whole.files
        or name not in broken.files
        or not np.array_equal(whole[name], broken[name])
    ]
    return {"kills": kills, "compared": len(whole.files), "differing": differing}


if __name__ == "__main__":
    place = Path(sys.argv[2])
    place.mkdir(parents=True, exist_ok=True)
    print(json.dumps(main(int(sys.argv[1]), place, *map(int, sys.argv[3:]))))
