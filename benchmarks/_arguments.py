"""Arguments that the benchmarks share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def add_data(parser: ArgumentParser) -> None:
    """Add ``--data``, the folder of the data sets."""
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("SCVI_SCTAB_DATA", DATA),
        help="folder of the .h5ad files (default: $SCVI_SCTAB_DATA, else ../shared/data)",
    )
