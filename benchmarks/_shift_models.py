"""Models of the benchmark of shift, trained once for each reference and seed, and their logits."""

from __future__ import annotations

from pathlib import Path

import scvi
from _shift_laboratories import DONOR, LABEL, STUDY, Pair, reference_of

from scvi_sctab import SCTAB


def trained(
    folder: Path,
    pair: Pair,
    seed: int,
    cache: Path,
    *,
    across: bool = False,
    batches: bool = False,
) -> SCTAB:
    """Return the model of a pair's reference, from the cache if it is there.

    With ``across``, it is calibrated across the studies of the reference; with ``batches``, it is
    conditioned on the donors, so that queries can be mapped.
    """
    reference = reference_of(folder, pair)
    kind = "-fine" * pair.fine + "".join(f"-{donor}" for donor in pair.donors)
    kind += f"-without-{pair.left_out}" * bool(pair.left_out)
    name = f"{'+'.join(pair.references)}-{reference.n_vars}{kind}-{seed}"
    path = cache / (name + "-across" * across + "-batches" * batches)
    if (path / "model.safetensors").exists():
        return SCTAB.load(str(path), reference)
    if across:
        model = trained(folder, pair, seed, cache)
        scvi.settings.seed = seed
        model.calibrate_across(STUDY, enable_progress_bar=False)
    else:
        scvi.settings.seed = seed
        batch_key = DONOR if batches else None
        SCTAB.setup_anndata(reference, labels_key=LABEL, batch_key=batch_key, donor_key=DONOR)
        model = SCTAB(reference)
        model.train(enable_progress_bar=False)
    model.save(str(path), save_anndata=False, overwrite=True)
    return model
