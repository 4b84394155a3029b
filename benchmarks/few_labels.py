"""Few labels and small references: models that are solved at once, beside regressions.

    .venv/bin/python benchmarks/few_labels.py --data ../shared/data

Part ``labels``: 5, 10 or 20 labels per type among the cells of a reference, whose other cells are
unlabelled, and a masked autoencoder of all of them. Part ``small``: references of 100, 200 and 300
cells. What was chosen was chosen on the sets for choosing; the others were opened once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _arguments import measured, new_parser, report
from _tasks import BUNDLED, KANG, LABEL_KEY, ONEK1K, ONEK1K_DONORS, PBMC3K, hold_out, read
from anndata import AnnData
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

