"""Script that trains JointEmbeddingSCVI on one .h5ad, and writes its latent and another's as .npz.

Runs under the interpreter of an environment with scvi-tools >= 1.5, which has the model (scvi-tools
1.5 needs Python 3.12); nothing of this repository is imported here. Both files hold raw counts of
the same genes in ``X``. The recipe is that of the model's tutorial: 32 dimensions, a negative
binomial, 512 cells per step, a learning rate of 0.004, and scvi-tools' default number of epochs.
Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path

import anndata
import numpy as np
import scvi
import torch
from scvi.external import JointEmbeddingSCVI


def parse_args() -> argparse.Namespace:
    """Command line of one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("query", type=Path)
    parser.add_argument("latents", type=Path, help=".npz to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-epochs", type=int, help="the host's default if not given")
    return parser.parse_args()


def main() -> None:
    """Train, embed both sides and write ``reference``, ``query`` and ``seconds``."""
    args = parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    scvi.settings.seed = args.seed
    reference, query = anndata.read_h5ad(args.reference), anndata.read_h5ad(args.query)
    start = time.process_time()
    JointEmbeddingSCVI.setup_anndata(reference)
    model = JointEmbeddingSCVI(reference, n_latent=32, gene_likelihood="nb")
    model.train(
        max_epochs=args.max_epochs,
        batch_size=512,
        plan_kwargs={"lr": 4e-3},
        accelerator="cpu",
        enable_progress_bar=False,
    )
    latents = {
        "reference": model.get_latent_representation(),
        "query": model.get_latent_representation(query),
    }
    np.savez_compressed(args.latents, seconds=time.process_time() - start, **latents)


if __name__ == "__main__":
    main()
