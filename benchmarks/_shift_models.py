"""Models of the benchmark of shift, trained once for each reference and seed, and their logits."""

from __future__ import annotations

from pathlib import Path

import scvi
from _shift_laboratories import DONOR, LABEL, Pair, reference_of

from scvi_sctab import SCTAB


def trained(folder: Path, pair: Pair, seed: int, cache: Path) -> SCTAB:
    """Return the model of a pair's reference, from the cache if it is there."""
    reference = reference_of(folder, pair)
    fine = "-fine" if pair.fine else ""
    path = cache / f"{'+'.join(pair.references)}-{reference.n_vars}{fine}-{seed}"
    if (path / "model.safetensors").exists():
        return SCTAB.load(str(path), reference)
    scvi.settings.seed = seed
    SCTAB.setup_anndata(reference, labels_key=LABEL, donor_key=DONOR)
    model = SCTAB(reference)
    model.train(enable_progress_bar=False)
    model.save(str(path), save_anndata=False, overwrite=True)
    return model
