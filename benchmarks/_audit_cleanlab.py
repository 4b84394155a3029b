"""Label issues by cleanlab, in whatever environment has it.

    PYTHON benchmarks/_audit_cleanlab.py given.npz found.npz

``given.npz`` holds ``labels`` and ``probabilities``; ``found.npz`` gets the issues and, for each
method of ranking, the quality of each label.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

METHODS = {
    "self_confidence": {},
    "normalized_margin": {},
    "normalized_margin, adjusted": {"adjust_pred_probs": True},
}


def ask_cleanlab(
    labels: np.ndarray, probabilities: np.ndarray, python: Path | None
) -> dict[str, np.ndarray]:
    """Return issues and qualities; from another Python if one is given, and nothing without any."""
    if python is None and find_spec("cleanlab") is None:
        return {}
    with TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        np.savez(given, labels=labels, probabilities=probabilities)
        subprocess.run([str(python or sys.executable), __file__, given, found], check=True)
        with np.load(found) as file:
            return dict(file)


def main(given: str, found: str) -> None:
    """Ask cleanlab with its defaults."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    with np.load(given) as file:
        labels, probabilities = file["labels"], file["probabilities"].astype(float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    qualities = {
        name: get_label_quality_scores(labels, probabilities, method=name.split(",")[0], **options)
        for name, options in METHODS.items()
    }
    issues = find_label_issues(labels, probabilities, n_jobs=1)
    confident = find_label_issues(labels, probabilities, n_jobs=1, filter_by="confident_learning")
    np.savez(found, issues=issues, confident_learning=confident, **qualities)


if __name__ == "__main__":
    main(*sys.argv[1:])
