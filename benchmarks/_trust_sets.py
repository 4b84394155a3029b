"""Part `sets`: prediction sets of cells of the donors that the model was calibrated on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scvi
from _tasks import BUNDLED, DONOR_KEY, KANG, LABEL_KEY, read

from scvi_sctab import SCTAB

DATA_SETS = {"Kang, control": KANG, "Kang, bundled": BUNDLED}
ERROR_RATES = (0.05, 0.1, 0.2)
_N_TESTED = 0.25


def cover(folder: Path, seeds: list[int]) -> list[dict[str, Any]]:
    """Train on three quarters of the cells of all donors, test on the rest.

    Without donors at set-up, validation cells and tested cells are exchangeable, which is what the
    stated rate is for.
    """
    rows = []
    for name, file in DATA_SETS.items():
        adata = read(folder, file, "cell_type")
        for seed in seeds:
            scvi.settings.seed = seed
            tested = np.random.default_rng(seed).random(adata.n_obs) < _N_TESTED
            reference, query = adata[~tested].copy(), adata[tested].copy()
            SCTAB.setup_anndata(reference, labels_key=LABEL_KEY)
            model = SCTAB(reference)
            model.train(enable_progress_bar=False)
            truth = query.obs[LABEL_KEY].to_numpy()
            p, shift = model.get_novelty(query), model.get_shift(query)
            for by_label in (False, True):
                for rate in ERROR_RATES:
                    sets = model.get_prediction_sets(query, error_rate=rate, by_label=by_label)
                    hit = sets.to_numpy()[np.arange(len(sets)), sets.columns.get_indexer(truth)]
                    n, m = len(sets), len(model.calibration.truth)
                    rows.append(
                        {
                            "data": name,
                            "seed": seed,
                            "by_label": by_label,
                            "error_rate": rate,
                            "coverage": hit.mean(),
                            # Of the tested cells and of those that the threshold is taken from.
                            "standard_error": np.sqrt(rate * (1 - rate) * (1 / n + 1 / m)),
                            "set_size": sets.to_numpy().sum(axis=1).mean(),
                            "empty": (sets.to_numpy().sum(axis=1) == 0).mean(),
                            "false_alarms": (p <= rate).mean(),
                            "shifted": float(shift["shifted"].any()),
                            "n_donors": adata.obs[DONOR_KEY].nunique(),
                            "n_tested": n,
                            "n_held_out": m,
                        }
                    )
            last = rows[-2]
            print(f"{name} seed {seed}: by label, 90 %: {last['coverage']:.3f}", flush=True)
    return rows
